// Package nodeauth is the Node authorizer: it lets a node's agent (user system:node:NAME in group system:nodes) do what
// an agent must, and read secrets, config maps, claims, volumes and tokens only where a pod on that node needs them.
//
// A graph of who uses what is kept from informers of pods, volumes and attachments; until they have synced the
// authorizer knows fewer relations and allows less, never more. Safe for concurrent use.
package nodeauth

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/api/auth/rbac"
)

// userStart begins the names of nodes' users.
const userStart = "system:node:"

// NodeName returns the node that a user is; node is true for members of system:nodes, also where the name is not one of a node.
func NodeName(u user.Info) (name string, node bool) {
	if u == nil || !strings.HasPrefix(u.GetName(), userStart) || !slices.Contains(u.GetGroups(), user.NodesGroup) {
		return "", false
	}
	return strings.TrimPrefix(u.GetName(), userStart), true
}

// Informers are what the graph is built from. Volumes and Attachments may be nil where the kinds are not served.
type Informers struct {
	Pods, Volumes, Attachments cache.SharedIndexInformer
}

// Authorizer decides for nodes and has no opinion about others.
type Authorizer struct {
	graph *graph
	rules []rbacv1.PolicyRule
}

var _ authorizer.Authorizer = (*Authorizer)(nil)

// New decides by what informers tell and, for everything that is not a matter of relations, by rules (those of the
// ClusterRole system:node).
func New(informers Informers, rules []rbacv1.PolicyRule) (*Authorizer, error) {
	a := &Authorizer{graph: newGraph(), rules: rules}
	if err := watch(informers.Pods, a.graph.setPod, func(p *corev1.Pod) { a.graph.withdraw(podKey(p)) }); err != nil {
		return nil, err
	}
	if err := watch(informers.Volumes, a.graph.setVolume, func(v *corev1.PersistentVolume) { a.graph.withdraw(volumeKey(v)) }); err != nil {
		return nil, err
	}
	if err := watch(informers.Attachments, a.graph.setAttachment, func(v *storagev1.VolumeAttachment) { a.graph.withdraw(attachmentKey(v)) }); err != nil {
		return nil, err
	}
	return a, nil
}

func watch[T any](informer cache.SharedIndexInformer, set, gone func(T)) error {
	if informer == nil {
		return nil
	}
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if o, ok := obj.(T); ok {
				set(o)
			}
		},
		UpdateFunc: func(_, obj any) {
			if o, ok := obj.(T); ok {
				set(o)
			}
		},
		DeleteFunc: func(obj any) {
			if last, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				obj = last.Obj
			}
			if o, ok := obj.(T); ok {
				gone(o)
			}
		},
	})
	if err != nil {
		return fmt.Errorf("watch for the node authorizer: %w", err)
	}
	return nil
}

// ConditionsAwareAuthorize is Authorize: there are no conditions.
func (a *Authorizer) ConditionsAwareAuthorize(ctx context.Context, attrs authorizer.Attributes) authorizer.ConditionsAwareDecision {
	return authorizer.ConditionsAwareDecisionFromParts(a.Authorize(ctx, attrs))
}

// EvaluateConditions refuses: no decision of this authorizer has any.
func (a *Authorizer) EvaluateConditions(context.Context, authorizer.ConditionsAwareDecision, authorizer.ConditionsData) (authorizer.Decision, string, error) {
	return authorizer.DecisionDeny, "", authorizer.ErrorConditionEvaluationNotSupported
}

// Authorize allows what the node may, and has no opinion about the rest.
func (a *Authorizer) Authorize(_ context.Context, attrs authorizer.Attributes) (authorizer.Decision, string, error) {
	node, ok := NodeName(attrs.GetUser())
	if !ok {
		return authorizer.DecisionNoOpinion, "", nil
	}
	if node == "" {
		return authorizer.DecisionNoOpinion, fmt.Sprintf("unknown node for user %q", attrs.GetUser().GetName()), nil
	}
	if attrs.IsResourceRequest() {
		if decide := special(attrs); decide != nil {
			allowed, reason := decide(a, node, attrs)
			if allowed {
				return authorizer.DecisionAllow, "", nil
			}
			return authorizer.DecisionNoOpinion, reason, nil
		}
	}
	if rbac.AnyAllows(attrs, a.rules) {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

type decider func(a *Authorizer, node string, attrs authorizer.Attributes) (allowed bool, reason string)

// special is the decider of a resource to which access is subdivided, nil for others.
func special(attrs authorizer.Attributes) decider {
	switch (schema.GroupResource{Group: attrs.GetAPIGroup(), Resource: attrs.GetResource()}) {
	case schema.GroupResource{Resource: "secrets"}:
		return related(secrets).read
	case schema.GroupResource{Resource: "configmaps"}:
		return related(configMaps).read
	case schema.GroupResource{Resource: "persistentvolumeclaims"}:
		if attrs.GetSubresource() == "status" {
			return related(claims).updateStatus
		}
		return related(claims).get
	case schema.GroupResource{Resource: "persistentvolumes"}:
		return related(volumes).get
	case schema.GroupResource{Resource: "serviceaccounts"}:
		return account
	case schema.GroupResource{Resource: "nodes"}:
		return ownNode
	case schema.GroupResource{Resource: "pods"}:
		return pod
	case schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceclaims"}:
		return related(resourceClaims).get
	case schema.GroupResource{Group: "resource.k8s.io", Resource: "resourceslices"}:
		return slice
	case schema.GroupResource{Group: "storage.k8s.io", Resource: "volumeattachments"}:
		return related(attachments).get
	case schema.GroupResource{Group: "storage.k8s.io", Resource: "csinodes"}:
		return storageNode
	case schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}:
		return lease
	case schema.GroupResource{Group: "certificates.k8s.io", Resource: "podcertificaterequests"}:
		return certificateRequest
	}
	return nil
}

// related decides by the graph.
type related kind

func (k related) decide(a *Authorizer, node string, attrs authorizer.Attributes) (bool, string) {
	if attrs.GetName() == "" {
		return false, "No Object name found"
	}
	if !a.graph.needs(node, key{kind(k), attrs.GetNamespace(), attrs.GetName()}) {
		return false, fmt.Sprintf("no relationship found between node '%s' and this object", node)
	}
	return true, ""
}

func (k related) get(a *Authorizer, node string, attrs authorizer.Attributes) (bool, string) {
	if attrs.GetVerb() != "get" {
		return false, "can only get individual resources of this type"
	}
	if attrs.GetSubresource() != "" {
		return false, "cannot get subresource"
	}
	return k.decide(a, node, attrs)
}

func (k related) read(a *Authorizer, node string, attrs authorizer.Attributes) (bool, string) {
	if !reads(attrs.GetVerb()) {
		return false, "can only read resources of this type"
	}
	if attrs.GetSubresource() != "" {
		return false, "cannot read subresource"
	}
	if attrs.GetNamespace() == "" {
		return false, "can only read namespaced object of this type"
	}
	return k.decide(a, node, attrs)
}

func (k related) updateStatus(a *Authorizer, node string, attrs authorizer.Attributes) (bool, string) {
	if !slices.Contains([]string{"get", "update", "patch"}, attrs.GetVerb()) {
		return false, "can only get/update/patch this type"
	}
	return k.decide(a, node, attrs)
}

func reads(verb string) bool { return verb == "get" || verb == "list" || verb == "watch" }

// selectsNode says that a list is limited, by a field, to the node.
func selectsNode(attrs authorizer.Attributes, field, node string) bool {
	requirements, err := attrs.GetFieldSelector()
	if err != nil {
		return false
	}
	for _, r := range requirements {
		if r.Field == field && (r.Operator == selection.Equals || r.Operator == selection.DoubleEquals) && r.Value == node {
			return true
		}
	}
	return false
}
