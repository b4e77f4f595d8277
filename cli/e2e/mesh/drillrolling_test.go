package mesh

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

const (
	rollingNamespace = "drill-rolling"
	rollingApps      = 10
	rollingReplicas  = 4
	// rollingLeast of them are to be available at any time: one may be missing for the roll-out, one for the drain.
	rollingLeast = 2
	// rollingLimit bounds the roll-out of all with two of five hosts away.
	rollingLimit = "150s"
)

// rollWhileDrained rolls ten applications while one host is drained and another killed. What their budgets ask for is available at all
// times, but for what died.
func rollWhileDrained(t *testing.T, on []string) {
	t.Helper()
	victim, drained := on[0], ""
	for _, host := range hosts { // the last that is no victim: the load is on the next after the victim
		if host != victim && host != survivor(on) {
			drained = host
		}
	}
	at := survivor(on)
	t.Cleanup(func() {
		run(t, at, "kubectl", "uncordon", drained)
		run(t, at, "kubectl", "delete", "namespace", rollingNamespace, "--timeout=80s")
	})
	run(t, at, "kubectl", "create", "namespace", rollingNamespace)
	var manifest strings.Builder
	for i := range rollingApps {
		name := fmt.Sprintf("app-%d", i)
		manifest.WriteString(replicated("Deployment", name, rollingReplicas, "strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 1}},", withApp("")))
		fmt.Fprintf(&manifest, "\napiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: %s}\nspec: {minAvailable: %d, selector: {matchLabels: {app: %[1]s}}}\n---", name, rollingLeast)
	}
	if out, err := try(t, at, manifest.String(), "kubectl", "--namespace", rollingNamespace, "apply", "-f", "-"); err != nil {
		t.Fatalf("make the applications: %v: %s", err, out)
	}
	appsRolledOut(t, at)
	available := recordAvailable(t, at)
	begun := time.Now()
	run(t, at, "kubectl", "--namespace", rollingNamespace, "set", "env", "deployment", "--all", "STEP=two")
	var drain sync.WaitGroup
	var drainOut string
	var drainErr error
	drain.Go(func() {
		drainOut, drainErr = try(t, at, "", "kubectl", "drain", drained, "--pod-selector=app", "--namespace", rollingNamespace, "--ignore-daemonsets", "--timeout="+rollingLimit)
	})
	last(t, time.Second)
	available.lose(victim)
	inflict(t, "kill", victim)
	appsRolledOut(t, at)
	drain.Wait()
	t.Logf("ten applications rolled in %v while %s was drained and %s was dead; the fewest available of one: %d",
		time.Since(begun).Round(time.Millisecond), drained, victim, available.fewest())
	if drainErr != nil {
		t.Errorf("drain %s: %v: %s", drained, drainErr, drainOut)
	}
	if below := available.below(); len(below) > 0 {
		t.Errorf("below what their budgets ask for:\n%s", strings.Join(below, "\n"))
	}
	inflict(t, "start", victim)
}

// appsRolledOut waits until each application is what it shall be.
func appsRolledOut(t *testing.T, at string) {
	t.Helper()
	for i := range rollingApps {
		app := fmt.Sprintf("deployment/app-%d", i)
		eventually(t, drillLimit, app+" to be rolled out", func() (string, bool) { // the API may be between two leaders
			out, err := try(t, at, "", "kubectl", "--namespace", rollingNamespace, "rollout", "status", app, "--timeout=60s")
			return fmt.Sprint(out, err), err == nil
		})
	}
}

// availability records how many pods of each application are available, at each change of a pod.
type availability struct {
	mu   sync.Mutex
	pods map[string]*corev1.Pod // by name
	// lost are the pods of each application that died with their host, until as many as the budget asks for are there again.
	lost  map[string]int
	dead  string
	least int
	under []string
}

// recordAvailable watches pods through the host until the test ends.
func recordAvailable(t *testing.T, at string) *availability {
	t.Helper()
	client, _ := clientOf(t, at)
	a := &availability{pods: map[string]*corev1.Pod{}, lost: map[string]int{}, least: rollingReplicas}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(rollingNamespace))
	informer := factory.Core().V1().Pods().Informer()
	registration, err := informer.AddEventHandler(cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(object any, initial bool) { a.see(object.(*corev1.Pod), !initial) }, UpdateFunc: func(_, object any) { a.see(object.(*corev1.Pod), true) },
		DeleteFunc: func(object any) {
			if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = unknown.Obj
			}
			gone := object.(*corev1.Pod).DeepCopy()
			gone.DeletionTimestamp = &metav1.Time{Time: time.Now()}
			a.see(gone, true)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	factory.Start(ctx.Done())
	t.Cleanup(func() { stop(); factory.Shutdown() })
	if !cache.WaitForCacheSync(t.Context().Done(), registration.HasSynced) {
		t.Fatal("the pods were not listed")
	}
	return a
}

// see notes a pod as it is now.
func (a *availability) see(pod *corev1.Pod, counts bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pods[pod.Name] = pod
	if counts {
		a.judgeLocked(pod.Labels["app"])
	}
}

// countLocked counts the available pods of an application, and those of them that are on a host.
func (a *availability) countLocked(app, host string) (all, there int) {
	selector := labels.SelectorFromSet(labels.Set{"app": app})
	for _, pod := range a.pods {
		if pod.DeletionTimestamp == nil && isReady(*pod) && selector.Matches(labels.Set(pod.Labels)) {
			all++
			if pod.Spec.NodeName == host {
				there++
			}
		}
	}
	return all, there
}

func (a *availability) judgeLocked(app string) {
	count, onDead := a.countLocked(app, a.dead)
	a.least = min(a.least, count)
	if count >= rollingLeast && onDead == 0 && a.dead != "" {
		delete(a.lost, app)
	}
	if count < rollingLeast-a.lost[app] {
		a.under = append(a.under, fmt.Sprintf("%s: %s had %d available, of %d that died", time.Now().Format(time.TimeOnly), app, count, a.lost[app]))
	}
}

// lose tells that a host is about to die: budgets do not hold back deaths.
func (a *availability) lose(host string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dead = host
	for i := range rollingApps {
		app := fmt.Sprintf("app-%d", i)
		_, a.lost[app] = a.countLocked(app, host)
	}
}

func (a *availability) fewest() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.least
}

func (a *availability) below() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.under)
}

// TestAvailabilityIsJudged: what is missing is told, but for what died, and that only until it is there again.
func TestAvailabilityIsJudged(t *testing.T) {
	a := &availability{pods: map[string]*corev1.Pod{}, lost: map[string]int{}, least: rollingReplicas}
	pod := func(name, node string, isReady, leaving bool) {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "app-0"}}, Spec: corev1.PodSpec{NodeName: node}}
		if isReady {
			p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		}
		if leaving {
			p.DeletionTimestamp = &metav1.Time{Time: time.Now()}
		}
		a.see(p, len(a.pods) >= rollingLeast)
	}
	pod("a", "h1", true, false)
	pod("b", "h2", true, false)
	pod("c", "h3", true, false)
	a.lose("h3")
	pod("b", "h2", true, true)
	pod("c", "h3", false, false)
	if below := a.below(); len(below) != 0 {
		t.Errorf("one was evicted before another was known to be dead: %v", below)
	}
	pod("d", "h1", true, false)
	pod("d", "h1", true, true)
	if below := a.below(); len(below) != 1 || a.fewest() != 1 {
		t.Errorf("evicted after all were there again: %v, fewest %d", below, a.fewest())
	}
}
