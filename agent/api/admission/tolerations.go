package admission

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
)

// tolerations lets each pod stay for a while on a node that is not ready or unreachable.
type tolerations struct {
	*admission.Handler
	seconds func() int64
}

var _ admission.MutationInterface = (*tolerations)(nil)

func newTolerations(seconds func() int64) *tolerations {
	return &tolerations{admission.NewHandler(admission.Create, admission.Update), seconds}
}

// Admit adds a toleration for each of the two taints that the pod says nothing about.
func (p *tolerations) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !concerns(a, pods(), "") {
		return nil
	}
	pod, err := object[*corev1.Pod](a)
	if err != nil {
		return err
	}
	for _, taint := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		if !tolerates(pod.Spec.Tolerations, taint) {
			seconds := p.seconds()
			pod.Spec.Tolerations = append(pod.Spec.Tolerations, corev1.Toleration{
				Key: taint, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds,
			})
		}
	}
	return nil
}

func tolerates(list []corev1.Toleration, taint string) bool {
	for _, t := range list {
		if (t.Key == taint || t.Key == "") && (t.Effect == corev1.TaintEffectNoExecute || t.Effect == "") {
			return true
		}
	}
	return false
}
