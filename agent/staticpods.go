package agent

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

// completePod does for a static pod what the API does for others.
func completePod(p *corev1.Pod) error {
	podspec.DefaultPod(&p.Spec)
	if errs := podspec.Validate(&p.Spec, &p.ObjectMeta, field.NewPath("spec"), podspec.OptionsFor(nil, &p.ObjectMeta)); len(errs) > 0 {
		return fmt.Errorf("check static pod: %w", errs.ToAggregate())
	}
	return nil
}
