package nodes

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/workloads/dependents"
	"github.com/podvine/podvine/agent/phase"
)

const (
	// DefaultEndedPods is how many ended pods the cluster keeps, as Kubernetes does.
	DefaultEndedPods = 12_500
	// historyKey is the only key of the history loop.
	historyKey = "ended"
	// historyDelaySeconds gathers the ends of many pods into one look.
	historyDelaySeconds = 20
)

// podsOf are the pods that a node's change concerns: all of them when its taints or readiness changed or it went.
func (l *Loop) podsOf(old, new *v1.Node) []string {
	switch {
	case old == nil && len(new.Spec.Taints) == 0:
		return nil
	case old != nil && new != nil && isReady(old) == isReady(new) && slices.EqualFunc(old.Spec.Taints, new.Spec.Taints, sameTaint):
		return nil
	}
	if new == nil {
		new = old
	}
	keys, err := l.podIndex.IndexKeys(podsByNode, new.Name)
	if err != nil {
		l.cfg.Logger.Error("list pods of node", "node", new.Name, "err", err)
	}
	return keys
}

func sameTaint(a, b v1.Taint) bool {
	return a.Key == b.Key && a.Value == b.Value && a.Effect == b.Effect && a.TimeAdded.Equal(b.TimeAdded)
}

func (l *Loop) reconcilePod(ctx context.Context, key string) (time.Duration, error) {
	namespace, name, err := loop.SplitKey(key)
	if err != nil {
		return 0, err
	}
	pod, err := l.podLister.Pods(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		l.mu.Lock()
		delete(l.pending, key)
		l.mu.Unlock()
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	now := time.Now()
	view := PodView{Pod: pod, Released: l.cfg.Released != nil && l.cfg.Released(pod.Spec.NodeName)}
	view.Node, view.Missing = l.nodeOf(pod, now)
	l.mu.Lock()
	view.Pending = l.pending[key]
	l.mu.Unlock()
	verdict := DecidePod(view, now)
	l.note(pod, verdict, now)
	switch verdict.Action {
	case Evict:
		err = l.evict(ctx, pod)
	case Confirm:
		err = l.confirm(ctx, pod)
	case Remove:
		if err = fail(ctx, l.cfg.Collector, pod); err == nil {
			err = remove(ctx, l.cfg.Collector, pod)
		}
	case Keep:
	}
	return verdict.Again, err
}

// nodeOf finds the pod's node, or since when it has been missing.
func (l *Loop) nodeOf(pod *v1.Pod, now time.Time) (*v1.Node, time.Time) {
	if pod.Spec.NodeName == "" {
		return nil, time.Time{}
	}
	node, err := l.nodeLister.Get(pod.Spec.NodeName)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		delete(l.missing, pod.Spec.NodeName)
		return node, time.Time{}
	}
	since, ok := l.missing[pod.Spec.NodeName]
	if !ok {
		since = now
		l.missing[pod.Spec.NodeName] = now
	}
	return nil, since
}

// note keeps since when an eviction has been due, and tells when it is called off.
func (l *Loop) note(pod *v1.Pod, verdict PodVerdict, now time.Time) {
	l.mu.Lock()
	_, was := l.pending[loop.Key(pod)]
	switch {
	case !verdict.Pending:
		delete(l.pending, loop.Key(pod))
	case !was:
		l.pending[loop.Key(pod)] = now
	}
	l.mu.Unlock()
	if was && !verdict.Pending && verdict.Action == Keep && pod.DeletionTimestamp == nil {
		l.recorder.Eventf(pod, v1.EventTypeNormal, "TaintManagerEviction", "Cancelling deletion of Pod %s/%s", pod.Namespace, pod.Name)
	}
}

func (l *Loop) evict(ctx context.Context, pod *v1.Pod) error {
	l.recorder.Eventf(pod, v1.EventTypeNormal, "TaintManagerEviction", "Marking for deletion Pod %s/%s", pod.Namespace, pod.Name)
	status := v1.PodStatus{Conditions: disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint")}
	if err := patchStatus(ctx, l.cfg.Client, pod, status); err != nil {
		return err
	}
	options := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}
	return dependents.Gone(l.cfg.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, options))
}

// confirm removes the pod when its node is not in the store either.
func (l *Loop) confirm(ctx context.Context, pod *v1.Pod) error {
	_, err := l.cfg.Collector.CoreV1().Nodes().Get(ctx, pod.Spec.NodeName, metav1.GetOptions{})
	switch {
	case err == nil:
		return fmt.Errorf("node %s is there but not shown yet", pod.Spec.NodeName)
	case !apierrors.IsNotFound(err):
		return err
	}
	if err := fail(ctx, l.cfg.Collector, pod, disrupted("DeletionByPodGC", "PodGC: node no longer exists")...); err != nil {
		return err
	}
	if err := remove(ctx, l.cfg.Collector, pod); err != nil {
		return err
	}
	if left, err := l.podIndex.IndexKeys(podsByNode, pod.Spec.NodeName); err == nil && len(left) <= 1 {
		l.mu.Lock()
		delete(l.missing, pod.Spec.NodeName) // nobody will ask for it again
		l.mu.Unlock()
	}
	return nil
}

func disrupted(reason, message string) []v1.PodCondition {
	return []v1.PodCondition{{Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: reason, Message: message, LastTransitionTime: metav1.Now()}}
}

// fail has a pod end that nobody else will end: whoever waits for its end, as a Job does, waits no longer. One that has ended stays as
// it is.
func fail(ctx context.Context, client kubernetes.Interface, pod *v1.Pod, conditions ...v1.PodCondition) error {
	if phase.Ended(pod.Status.Phase) {
		return nil
	}
	return patchStatus(ctx, client, pod, v1.PodStatus{Phase: v1.PodFailed, Conditions: conditions})
}

// patchStatus writes what is set of the status.
func patchStatus(ctx context.Context, client kubernetes.Interface, pod *v1.Pod, status v1.PodStatus) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": status})
	if err != nil {
		return fmt.Errorf("encode pod status: %w", err)
	}
	_, err = client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	return dependents.Gone(err)
}

// remove deletes without grace: there is no node agent that would confirm the end.
func remove(ctx context.Context, client kubernetes.Interface, pod *v1.Pod) error {
	options := metav1.NewDeleteOptions(0)
	options.Preconditions = metav1.NewUIDPreconditions(string(pod.UID))
	return dependents.Gone(client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, *options))
}

// endedPod asks for a look at the history a while after a pod's end.
func (l *Loop) endedPod(old, new *v1.Pod) []string {
	if new != nil && phase.Ended(new.Status.Phase) && (old == nil || !phase.Ended(old.Status.Phase)) {
		l.history.TriggerAfter(historyKey, historyDelaySeconds*time.Second)
	}
	return nil
}

func (l *Loop) reconcileHistory(ctx context.Context, _ string) (time.Duration, error) {
	pods, err := l.podLister.List(labels.Everything())
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, pod := range Excess(pods, l.cfg.EndedPods) {
		errs = append(errs, remove(ctx, l.cfg.Collector, pod))
	}
	return 0, errors.Join(errs...)
}

// Excess are the ended pods beyond the number to keep: first those that their nodes evicted, which no controller looks at, and then
// the oldest. It is pure.
func Excess(pods []*v1.Pod, keep int) []*v1.Pod {
	var done []*v1.Pod
	for _, pod := range pods {
		if phase.Ended(pod.Status.Phase) && pod.DeletionTimestamp == nil {
			done = append(done, pod)
		}
	}
	if len(done) <= keep {
		return nil
	}
	slices.SortFunc(done, func(a, b *v1.Pod) int {
		return cmp.Or(-cmp.Compare(evicted(a), evicted(b)), a.CreationTimestamp.Time.Compare(b.CreationTimestamp.Time), cmp.Compare(a.UID, b.UID))
	})
	return done[:len(done)-keep]
}

// evicted is 1 for a pod that its node evicted because it was short of something.
func evicted(pod *v1.Pod) int {
	if pod.Status.Phase == v1.PodFailed && pod.Status.Reason == "Evicted" {
		return 1
	}
	return 0
}
