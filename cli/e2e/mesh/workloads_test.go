package mesh

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// workloadLimit bounds one wait for a workload: several at a time share the machine.
const workloadLimit = 90 * time.Second

// TestWorkloads goes through what Kubernetes' pages on workloads and scheduling promise, page by page, with kubectl. The pages are
// told at the same time, each in a namespace of its own.
func TestWorkloads(t *testing.T) {
	healthy(t)
	run(t, "h1", "kubectl", "wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")
	type page struct {
		name string
		tell func(*work)
	}
	for _, page := range []page{{"pending", pendingPage}, {"taints", taintsPage}, {"budget", budgetPage}} { // they change a node for all
		t.Run(page.name, func(t *testing.T) { page.tell(newWork(t, "work-"+page.name)) })
	}
	for _, page := range []page{
		{"cronjob", cronJobPage}, {"cronjob-late", lateCronPage}, // the first waits for a minute to be over
		{"deployment", deploymentPage}, {"deployment-pause", pausePage}, {"deployment-scale", proportionPage},
		{"replicaset", replicaSetPage}, {"replicationcontroller", replicationControllerPage},
		{"statefulset", statefulSetPage}, {"statefulset-partition", partitionPage}, {"daemonset", daemonSetPage},
		{"job", jobPage}, {"job-fails", failingJobsPage}, {"job-policies", jobPoliciesPage},
		{"garbage", garbagePage}, {"init", initPage}, {"sidecar", sidecarPage},
		{"assign", assignPage}, {"affinity", affinityPage}, {"spread", spreadPage}, {"priority", priorityPage},
		{"overlap", overlapPage}, {"never", neverPage}, {"lying", lyingPage},
	} {
		t.Run(page.name, func(t *testing.T) {
			t.Parallel()
			page.tell(newWork(t, "work-"+page.name))
		})
	}
}

// work is a page's namespace.
type work struct {
	*testing.T
	namespace string
	client    kubernetes.Interface
}

func newWork(t *testing.T, namespace string) *work {
	t.Helper()
	client, _ := clientOf(t, "h1")
	w := &work{t, namespace, client}
	run(t, "h1", "kubectl", "create", "namespace", namespace)
	t.Cleanup(func() { run(t, "h1", "kubectl", "delete", "namespace", namespace, "--wait=false") })
	return w
}

func (w *work) arguments(args []string) []string {
	return append([]string{"kubectl", "--namespace", w.namespace}, args...)
}

// do runs kubectl, which must succeed.
func (w *work) do(args ...string) string {
	w.Helper()
	return run(w, "h1", w.arguments(args)...)
}

// fails runs kubectl, which must not.
func (w *work) fails(args ...string) string {
	w.Helper()
	out, err := try(w, "h1", "", w.arguments(args)...)
	if err == nil {
		w.Errorf("kubectl %s went through:\n%s", strings.Join(args, " "), out)
	}
	return out
}

// apply gives a manifest to kubectl. A warning would say that something does nothing.
func (w *work) apply(manifest string) {
	w.Helper()
	out, err := try(w, "h1", manifest, w.arguments([]string{"apply", "-f", "-"})...)
	if err != nil {
		w.Fatalf("kubectl apply: %v\n%s", err, out)
	}
	if strings.Contains(out, "Warning") {
		w.Errorf("warns of what works:\n%s", out)
	}
}

// rolledOut waits for a roll-out.
func (w *work) rolledOut(object string) {
	w.Helper()
	w.wants(w.do("rollout", "status", object, "--timeout=80s"), "")
}

// wants fails unless the text has every part.
func (w *work) wants(text string, parts ...string) {
	w.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			w.Errorf("%q is missing in:\n%s", part, text)
		}
	}
}

// until waits until kubectl prints what is wanted, spaces apart.
func (w *work) until(want string, args ...string) {
	w.Helper()
	eventually(w, workloadLimit, fmt.Sprintf("%q of kubectl %s", want, strings.Join(args, " ")), func() (string, bool) {
		out, err := try(w, "h1", "", w.arguments(args)...)
		return fmt.Sprint(out, err), err == nil && strings.Join(strings.Fields(out), " ") == want
	})
}

// untilHas waits until kubectl prints every part.
func (w *work) untilHas(args []string, parts ...string) {
	w.Helper()
	eventually(w, workloadLimit, fmt.Sprintf("%q in kubectl %s", parts, strings.Join(args, " ")), func() (string, bool) {
		out, err := try(w, "h1", "", w.arguments(args)...)
		for _, part := range parts {
			if err != nil || !strings.Contains(out, part) {
				return fmt.Sprint(out, err), false
			}
		}
		return out, true
	})
}

// pods are those that the selector matches, by name; those that are leaving are left out.
func (w *work) pods(selector string) []corev1.Pod {
	w.Helper()
	list, err := w.client.CoreV1().Pods(w.namespace).List(w.Context(), metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		w.Fatal(err)
	}
	var stay []corev1.Pod
	for _, pod := range list.Items {
		if pod.DeletionTimestamp == nil {
			stay = append(stay, pod)
		}
	}
	return stay
}

// untilPods waits for a condition of the pods that the selector matches.
func (w *work) untilPods(what, selector string, condition func([]corev1.Pod) bool) {
	w.Helper()
	eventually(w, workloadLimit, what, func() (string, bool) {
		pods := w.pods(selector)
		return told(pods), condition(pods)
	})
}

// told is what a reader of a failed test needs of pods.
func told(pods []corev1.Pod) string {
	var out strings.Builder
	for _, p := range pods {
		fmt.Fprintf(&out, "%s on %q: %s, ready %v, %s\n", p.Name, p.Spec.NodeName, p.Status.Phase, isReady(p), p.Status.Reason)
	}
	return out.String()
}

func isReady(pod corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// ready tells whether there are so many pods, all of them ready.
func ready(count int) func([]corev1.Pod) bool {
	return func(pods []corev1.Pod) bool {
		for _, p := range pods {
			if !isReady(p) {
				return false
			}
		}
		return len(pods) == count
	}
}

// onNodes counts pods by node.
func onNodes(pods []corev1.Pod) map[string]int {
	count := map[string]int{}
	for _, p := range pods {
		count[p.Spec.NodeName]++
	}
	return count
}

// withApp is a pod's specification of the sample with further fields.
func withApp(fields string) string {
	return `{terminationGracePeriodSeconds: 1, ` + fields + `containers: [{name: app, image: "` + appImage + `"}]}`
}

// withExit is a pod's specification that ends with the code after a while.
func withExit(code, after, fields string) string {
	return `{terminationGracePeriodSeconds: 1, restartPolicy: Never, ` + fields + `containers: [{name: app, image: "` + appImage +
		`", command: [/app, exit, "` + code + `", "` + after + `"]}]}`
}

// replicated is the manifest of a Deployment or a ReplicaSet.
func replicated(kind, name string, replicas int, fields, spec string) string {
	return fmt.Sprintf(`
apiVersion: apps/v1
kind: %s
metadata: {name: %s, labels: {app: %[2]s}}
spec: {replicas: %[3]d, selector: {matchLabels: {app: %[2]s}}, %[4]s template: {metadata: {labels: {app: %[2]s}}, spec: %[5]s}}
---`, kind, name, replicas, fields, spec)
}

// labelled gives nodes a label and takes it back when the test ends.
func (w *work) labelled(label string, nodes ...string) {
	w.Helper()
	key, _, _ := strings.Cut(label, "=")
	w.Cleanup(func() { w.do(append(append([]string{"label", "node"}, nodes...), key+"-")...) })
	w.do(append(append([]string{"label", "node"}, nodes...), label)...)
}

// tainted puts a taint, key=value:effect, on a node; what it returns takes all taints of the key away, as does the end of the test.
func (w *work) tainted(node, taint string) (mend func()) {
	w.Helper()
	key, _, _ := strings.Cut(taint, "=")
	mend = sync.OnceFunc(func() { w.do("taint", "node", node, key+"-") })
	w.Cleanup(mend)
	w.do("taint", "node", node, taint)
	return mend
}

// watched collects what `kubectl get --watch` prints until the returned function ends it.
func (w *work) watched(args ...string) (end func() string) {
	w.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(w.Context()))
	c := cluster.Command(ctx, "h1", w.arguments(args)...)
	var out strings.Builder
	c.Stdout = &out
	if err := c.Start(); err != nil {
		stop()
		w.Fatal(err)
	}
	return func() string {
		stop()
		_ = c.Wait() // it was ended
		return out.String()
	}
}
