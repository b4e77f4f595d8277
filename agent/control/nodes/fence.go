package nodes

import (
	"errors"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var (
	// ErrAlive says that a node must not be fenced because its pods may run.
	ErrAlive = errors.New("it is alive")
	// ErrReady says that the record of a node that gossip calls dead still says that it is ready: the death is too young, or
	// the node's agent answers the API though gossip does not hear it.
	ErrReady = errors.New("its record says that it is ready")
)

// Fence returns the taints of a node that is declared out of service: somebody vouches that it runs nothing any more, so
// that its pods, exclusive identities among them, are removed without its word. It is what Kubernetes calls a non-graceful
// shutdown, and the taint is Kubernetes'. alive is what gossip says. changed is false for a node that is fenced already. It
// is pure.
func Fence(node *v1.Node, alive bool, now time.Time) (taints []v1.Taint, changed bool, err error) {
	switch {
	case slices.ContainsFunc(node.Spec.Taints, fencing):
		return node.Spec.Taints, false, nil
	case alive:
		return nil, false, ErrAlive
	case isReady(node):
		return nil, false, ErrReady
	}
	fence := v1.Taint{Key: v1.TaintNodeOutOfService, Value: "nodeshutdown", Effect: v1.TaintEffectNoExecute, TimeAdded: &metav1.Time{Time: now}}
	return append(slices.Clone(node.Spec.Taints), fence), true, nil
}

// Unfence returns the taints of a node that may run pods again; changed is false for one that was not fenced. It is pure.
func Unfence(node *v1.Node) (taints []v1.Taint, changed bool) {
	taints = slices.DeleteFunc(slices.Clone(node.Spec.Taints), func(t v1.Taint) bool { return t.Key == v1.TaintNodeOutOfService })
	return taints, len(taints) != len(node.Spec.Taints)
}

// fencing tells whether the taint is the one that [Fence] sets; one of another effect evicts nobody.
func fencing(t v1.Taint) bool {
	return t.Key == v1.TaintNodeOutOfService && t.Effect == v1.TaintEffectNoExecute
}
