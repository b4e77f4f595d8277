package agent

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authuser "k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/api"
	"github.com/podvine/podvine/agent/control"
	"github.com/podvine/podvine/agent/control/scheduler"
)

// batchBinder hands the scheduler's placements to the API's registry, a batch at a time.
type batchBinder struct{ server *api.Server }

// Bind implements scheduler.Binder.
func (b batchBinder) Bind(ctx context.Context, bindings []scheduler.Binding) []error {
	objects := make([]*corev1.Binding, len(bindings))
	for i, binding := range bindings {
		objects[i] = &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Namespace: binding.Pod.Namespace, Name: binding.Pod.Name, UID: binding.Pod.UID},
			Target:     corev1.ObjectReference{Kind: "Node", Name: binding.Node}}
	}
	name, groups := control.User(control.NameScheduler)
	as := &authuser.DefaultInfo{Name: name, Groups: append(groups, authuser.AllAuthenticated)}
	return b.server.Bind(ctx, as, objects)
}

// budgets is the informer of disruption budgets, nil if the API does not serve them.
func (n *node) budgets() cache.SharedIndexInformer {
	if !n.api.Serves(policyv1.SchemeGroupVersion.WithResource("poddisruptionbudgets")) {
		return nil
	}
	return n.informers.Policy().V1().PodDisruptionBudgets().Informer()
}
