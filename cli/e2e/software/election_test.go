package software

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/tools/watch"
	"k8s.io/utils/ptr"
)

const (
	leaseDuration = 6 * time.Second
	renewDeadline = 4 * time.Second
	retryPeriod   = time.Second
)

// candidate is a role: it stands for election under its pod's name until it is told to end, and then gives the lead back.
func candidate() error {
	config, namespace, err := inCluster()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	events := record.NewBroadcaster()
	defer events.Shutdown()
	events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events(namespace)})
	lock, err := resourcelock.New(resourcelock.LeasesResourceLock, namespace, "election", client.CoreV1(), client.CoordinationV1(),
		resourcelock.ResourceLockConfig{Identity: name, EventRecorder: events.NewRecorder(scheme.Scheme, corev1.EventSource{Component: name})})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod, ReleaseOnCancel: true, Name: "election",
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) { fmt.Println(name, "leads") },
			OnStoppedLeading: func() { fmt.Println(name, "leads no more") },
			OnNewLeader:      func(leader string) { fmt.Println(name, "follows", leader) },
		},
	})
	if err != nil {
		return err
	}
	elector.Run(ctx)
	if ctx.Err() == nil {
		return errors.New("lost the lead")
	}
	return nil
}

const candidates = `
apiVersion: v1
kind: ServiceAccount
metadata: {name: candidate}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: candidate}
rules:
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, create, update]}
- {apiGroups: [""], resources: [events], verbs: [create, patch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: candidate}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: candidate}
subjects: [{kind: ServiceAccount, name: candidate}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: candidate}
spec:
  replicas: 3
  selector: {matchLabels: {app: candidate}}
  template:
    metadata: {labels: {app: candidate}}
    spec:
      serviceAccountName: candidate
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: candidate}}}
      containers:
      - {name: candidate, image: ` + rolesImage + `, args: [candidate]}
`

// TestLeaderElection lets three pods elect a leader with client-go, one a host. The leader hands over when it is deleted, is replaced
// when it is killed, and when its host is. A record of every write to the Lease shows that no candidate took it before its time.
func TestLeaderElection(t *testing.T) {
	const namespace = "election"
	newNamespace(t, namespace)
	client, _ := clientOf(t, "h1")
	record := recordLease(t, client, namespace)
	apply(t, namespace, candidates)
	first := nextLeader(t, client, namespace, "")
	kubectl(t, "h1", "--namespace", namespace, "rollout", "status", "deployment/candidate", "--timeout=60s")

	kubectl(t, "h2", "--namespace", namespace, "delete", "pod", first)
	second := nextLeader(t, client, namespace, first)

	kubectl(t, "h2", "--namespace", namespace, "delete", "pod", second, "--force", "--grace-period=0")
	third := nextLeader(t, client, namespace, second)
	record.check(t, []string{first, second, third})

	pod, err := client.CoreV1().Pods(namespace).Get(t.Context(), third, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	survivor := hosts[(slices.Index(hosts, pod.Spec.NodeName)+1)%len(hosts)]
	killHost(t, pod.Spec.NodeName, survivor)
	survivors, _ := clientOf(t, survivor)
	fourth := nextLeader(t, survivors, namespace, third)
	t.Logf("leaders: %s, %s, %s, %s (its host %s was killed)", first, second, third, fourth, pod.Spec.NodeName)

	checkEvents(t, survivors, namespace, []string{first, second, third, fourth})
}

// nextLeader waits until another candidate than the last leader holds the lease, and returns its name.
func nextLeader(t *testing.T, client kubernetes.Interface, namespace, last string) string {
	t.Helper()
	leader := ""
	took := eventually(t, "a leader after "+last, func() (string, bool) {
		lease, err := client.CoordinationV1().Leases(namespace).Get(t.Context(), "election", metav1.GetOptions{})
		if err != nil {
			return err.Error(), false
		}
		if lease.Spec.HolderIdentity == nil || lease.Spec.RenewTime == nil || lease.Spec.LeaseDurationSeconds == nil {
			return fmt.Sprintf("an incomplete lease: %+v", lease.Spec), false
		}
		leader = *lease.Spec.HolderIdentity
		return fmt.Sprintf("%+v", lease.Spec), leader != "" && leader != last
	})
	t.Logf("%s leads after %v", leader, took.Round(10*time.Millisecond))
	return leader
}

// checkEvents looks for the events that tell who became the leader.
func checkEvents(t *testing.T, client kubernetes.Interface, namespace string, leaders []string) {
	t.Helper()
	eventually(t, "the events of all leaders", func() (string, bool) {
		list, err := client.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.kind=Lease,reason=LeaderElection"})
		if err != nil {
			return err.Error(), false
		}
		var said []string
		for _, event := range list.Items {
			said = append(said, event.Message)
			if event.InvolvedObject.Name != "election" || event.Source.Component == "" || event.InvolvedObject.APIVersion != "coordination.k8s.io/v1" {
				t.Errorf("an event of the wrong object: %+v", event)
			}
		}
		for _, leader := range leaders {
			if !slices.Contains(said, leader+" became leader") {
				return strings.Join(said, "\n"), false
			}
		}
		return "", true
	})
}

// killHost ends a host as a power cut would, and starts it again when the test ends.
func killHost(t *testing.T, host, survivor string) {
	t.Helper()
	if out, err := try(t, survivor, "", "lab", "kill", "--name", labName, host); err != nil {
		t.Fatalf("kill %s: %v: %s", host, err, out)
	}
	t.Cleanup(func() {
		if out, err := try(t, survivor, "", "lab", "start", "--name", labName, host); err != nil {
			t.Fatalf("start %s: %v: %s", host, err, out)
		}
		if out, err := try(t, host, "", "kubectl", "wait", "--for=condition=Ready", "nodes", "--all", "--timeout=90s"); err != nil {
			t.Errorf("%s is not back: %v: %s", host, err, out)
		}
	})
}

// leaseRecord is every state of the lease that a watch has shown.
type leaseRecord struct {
	mu     sync.Mutex
	states []coordinationv1.LeaseSpec
}

// recordLease watches the lease from now on, across the death of the member that serves the watch.
func recordLease(t *testing.T, client kubernetes.Interface, namespace string) *leaseRecord {
	t.Helper()
	leases := client.CoordinationV1().Leases(namespace)
	list, err := leases.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	watcher, err := watch.NewRetryWatcherWithContext(t.Context(), list.ResourceVersion, &cache.ListWatch{
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (apiwatch.Interface, error) {
			return leases.Watch(ctx, options)
		},
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return leases.List(ctx, options)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	record := &leaseRecord{}
	go func() {
		for event := range watcher.ResultChan() {
			if lease, ok := event.Object.(*coordinationv1.Lease); ok && event.Type != apiwatch.Deleted {
				record.mu.Lock()
				record.states = append(record.states, lease.Spec)
				record.mu.Unlock()
			}
		}
	}()
	t.Cleanup(watcher.Stop)
	return record
}

// check fails the test when the watch has not shown all the leaders, and the first giving the lease back; when a candidate took the
// lease of another that had neither given it back nor let it run out; or when a change of the holder was not counted. Times are of the
// hosts' one clock.
func (r *leaseRecord) check(t *testing.T, leaders []string) {
	t.Helper()
	var states []coordinationv1.LeaseSpec
	eventually(t, "the watch to show what happened to the lease", func() (string, bool) {
		r.mu.Lock()
		states = slices.Clone(r.states)
		r.mu.Unlock()
		return fmt.Sprint(holders(states)), follow(holders(states), leaders[0], "", leaders[1], leaders[2])
	})
	for i := 1; i < len(states); i++ {
		before, after := states[i-1], states[i]
		last, now := ptr.Deref(before.HolderIdentity, ""), ptr.Deref(after.HolderIdentity, "")
		if now == "" || now == last {
			continue
		}
		if *after.LeaseTransitions != *before.LeaseTransitions+1 {
			t.Errorf("%s took over from %q as transition %d after %d", now, last, *after.LeaseTransitions, *before.LeaseTransitions)
		}
		if idle := after.AcquireTime.Sub(before.RenewTime.Time); last != "" && idle < leaseDuration {
			t.Errorf("%s took the lease of %s only %v after its last renewal", now, last, idle)
		}
	}
}

// follow tells whether the names are in the list in this order. Others may stand between them: a busy machine may cost a leader the lead.
func follow(list []string, names ...string) bool {
	for _, name := range list {
		if len(names) > 0 && name == names[0] {
			names = names[1:]
		}
	}
	return len(names) == 0
}

// holders lists who held the lease, one after the other.
func holders(states []coordinationv1.LeaseSpec) (names []string) {
	for i := range states {
		if name := ptr.Deref(states[i].HolderIdentity, ""); i == 0 || name != names[len(names)-1] {
			names = append(names, name)
		}
	}
	return names
}
