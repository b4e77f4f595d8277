package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
)

// nodeTaints makes each new node not ready, so that nothing is placed there before it says that it is.
type nodeTaints struct{ *admission.Handler }

var _ admission.MutationInterface = (*nodeTaints)(nil)

func newNodeTaints() *nodeTaints { return &nodeTaints{admission.NewHandler(admission.Create)} }

// Admit adds the taint.
func (p *nodeTaints) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !concerns(a, nodes(), "") {
		return nil
	}
	node, err := object[*corev1.Node](a)
	if err != nil {
		return err
	}
	taint := corev1.Taint{Key: corev1.TaintNodeNotReady, Effect: corev1.TaintEffectNoSchedule}
	for i := range node.Spec.Taints {
		if node.Spec.Taints[i].MatchTaint(&taint) {
			return nil
		}
	}
	node.Spec.Taints = append(node.Spec.Taints, taint)
	return nil
}
