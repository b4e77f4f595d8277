package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	authuser "k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	kubectldrain "k8s.io/kubectl/pkg/drain"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/pki"
	"github.com/podvine/podvine/consensus"
	"github.com/podvine/podvine/consensus/quorum"
)

// maxEvictions bounds the pods that one call of a node that leaves has evicted; it calls again.
const maxEvictions = 50

// leavePhase is what a node that leaves asks a replica for. Each may be repeated.
type leavePhase string

const (
	leaveAsk    leavePhase = "ask"    // whether the others can go on without it
	leaveDrain  leavePhase = "drain"  // to take new pods from it, and to move away those that are there
	leaveQuorum leavePhase = "quorum" // whether its replica is in the quorum still
	leaveForget leavePhase = "forget" // to delete its Node object and its pods: it runs none any more
)

// leaveCall is about the caller itself.
type leaveCall struct {
	Phase   leavePhase   `json:"phase"`
	Request LeaveRequest `json:"request,omitzero"`
}

type leaveAnswer struct {
	// Refusal is why the node must not leave.
	Refusal string `json:"refusal,omitempty"`
	// Pods are those that are left, Warnings what kubectl says of others.
	Pods     []string `json:"pods,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
	// Replica says that the quorum counts on the node's replica.
	Replica bool `json:"replica,omitempty"`
}

// takeLeave helps another node to leave.
func (n *node) takeLeave(ctx context.Context, caller pki.NodeIdentity, asked leaveCall) (leaveAnswer, error) {
	client := n.client(authuser.APIServerUser, authuser.SystemPrivilegedGroup)
	switch asked.Phase {
	case leaveAsk:
		if err := quorum.MayLeave(n.leadersView(ctx), n.quorumMembers(), time.Now(), caller.ID); err != nil {
			return leaveAnswer{Refusal: err.Error()}, nil
		}
		return leaveAnswer{}, nil
	case leaveDrain:
		own, err := ownNode(ctx, client, caller)
		if err != nil || own == nil {
			return leaveAnswer{}, err
		}
		return drainNode(ctx, client, own, asked.Request)
	case leaveQuorum:
		return leaveAnswer{Replica: n.inQuorum(ctx, caller.ID)}, nil
	case leaveForget:
		if n.inQuorum(ctx, caller.ID) {
			return leaveAnswer{Refusal: "its replica is in the quorum still"}, nil
		}
		return leaveAnswer{}, n.forgetNode(ctx, client, caller)
	}
	return leaveAnswer{}, fmt.Errorf("%q is no part of leaving", asked.Phase)
}

// leadersView is the quorum as the leader sees it; whoever has it from the leader counts as that.
func (n *node) leadersView(ctx context.Context) consensus.View {
	if _, lost := n.replica.QuorumLost(); lost {
		return consensus.View{}
	}
	return n.replica.View(ctx)
}

func (n *node) inQuorum(ctx context.Context, id string) bool {
	view := n.leadersView(ctx)
	return view.Leader == "" || slices.ContainsFunc(view.Servers, func(s consensus.Server) bool { return s.ID == id })
}

// ownNode is the Node object of the caller, nil when there is none or another machine has its name now.
func ownNode(ctx context.Context, client kubernetes.Interface, caller pki.NodeIdentity) (*corev1.Node, error) {
	object, err := client.CoreV1().Nodes().Get(ctx, caller.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("look for node %s: %w", caller.Name, err)
	case object.Annotations[NodeIDAnnotation] != caller.ID:
		return nil, nil
	}
	return object, nil
}

// drainNode does what `kubectl cordon` and, of `kubectl drain`, what does not wait do. The pods of DaemonSets and of files stay and are not
// told of.
func drainNode(ctx context.Context, client kubernetes.Interface, own *corev1.Node, wanted LeaveRequest) (answered leaveAnswer, err error) {
	helper := &kubectldrain.Helper{
		Ctx: ctx, Client: client, Force: wanted.Force || wanted.KeepPods, DeleteEmptyDirData: wanted.DeleteEmptyDirData || wanted.KeepPods,
		IgnoreAllDaemonSets: true, GracePeriodSeconds: -1, Out: io.Discard, ErrOut: io.Discard,
	}
	if err := kubectldrain.RunCordonOrUncordon(helper, own, true); err != nil {
		return leaveAnswer{}, fmt.Errorf("cordon node %s: %w", own.Name, err)
	}
	list, errs := helper.GetPodsForDeletion(own.Name)
	if len(errs) > 0 {
		// kubectl's words name its own flag, which is ours, too.
		return leaveAnswer{Refusal: errors.Join(errs...).Error()}, nil
	}
	evicted := 0
	for _, pod := range list.Pods() {
		answered.Pods = append(answered.Pods, pod.Namespace+"/"+pod.Name)
		if wanted.KeepPods || pod.DeletionTimestamp != nil || evicted == maxEvictions {
			continue
		}
		evicted++
		switch err := helper.EvictPod(pod, policyv1.SchemeGroupVersion); {
		case err == nil, apierrors.IsNotFound(err):
		case apierrors.IsTooManyRequests(err): // a disruption budget: again, later
			answered.Warnings = append(answered.Warnings, fmt.Sprintf("pod %s/%s waits: %v", pod.Namespace, pod.Name, err))
		default:
			return answered, fmt.Errorf("evict pod %s/%s: %w", pod.Namespace, pod.Name, err)
		}
	}
	slices.Sort(answered.Pods)
	return answered, nil
}

// forgetNode deletes what the cluster has of a machine that has left and runs nothing any more.
func (n *node) forgetNode(ctx context.Context, client kubernetes.Interface, caller pki.NodeIdentity) error {
	own, err := ownNode(ctx, client, caller)
	if err != nil {
		return err
	}
	if own != nil {
		if err := deleteNode(ctx, client, own); err != nil {
			return err
		}
	}
	if caller.Replica {
		if err := n.rotateAtLeader(ctx, heldKeys()); err != nil {
			return fmt.Errorf("rotate the keys that node %s has known: %w", caller.Name, err)
		}
	}
	if err := n.mesh.Forget(caller.ID); err != nil {
		n.log.Warn("forget a node that has left", "node", caller.Name, "error", err) // gossip does by itself after a while
	}
	n.log.Info("a node has left the cluster", "node", caller.Name, "id", caller.ID)
	return nil
}

// deleteNode deletes the Node first, so that nothing makes pods for it anew, and then the pods, which have ended with their machine.
func deleteNode(ctx context.Context, client kubernetes.Interface, own *corev1.Node) error {
	precondition := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &own.UID}}
	if err := client.CoreV1().Nodes().Delete(ctx, own.Name, precondition); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete node %s: %w", own.Name, err)
	}
	pods, err := client.CoreV1().Pods(metav1.NamespaceAll).List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", own.Name).String()})
	if err != nil {
		return fmt.Errorf("list the pods of node %s: %w", own.Name, err)
	}
	var failed []string
	for i := range pods.Items {
		pod := &pods.Items[i]
		err := client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: ptr.To(int64(0)), Preconditions: &metav1.Preconditions{UID: &pod.UID}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			failed = append(failed, fmt.Sprintf("%s/%s: %v", pod.Namespace, pod.Name, err))
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("delete the pods of node %s: %s", own.Name, strings.Join(failed, "; "))
	}
	return nil
}
