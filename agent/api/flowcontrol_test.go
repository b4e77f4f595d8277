package api

import (
	"testing"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/client-go/kubernetes/fake"
)

// TestEnsureFlowControl holds whose the configurations are: https://kubernetes.io/docs/concepts/cluster-administration/flow-control/
// under "Maintenance of the mandatory and suggested configuration objects".
func TestEnsureFlowControl(t *testing.T) {
	const theirs = 7
	suggested, mandatory := bootstrap.SuggestedPriorityLevelConfigurationWorkloadLow, bootstrap.MandatoryPriorityLevelConfigurationCatchAll
	for _, c := range []struct {
		name       string
		level      *flowcontrolv1.PriorityLevelConfiguration
		annotation string
		generation int64
		restored   bool
		wants      string // the annotation afterwards
	}{
		{"mandatory, changed", mandatory, "", 2, true, "true"},
		{"mandatory, claimed by the user", mandatory, "false", 2, true, "true"},
		{"suggested, of an older version", suggested, "", 1, true, "true"},
		{"suggested, changed", suggested, "", 2, false, "false"},
		{"suggested, given back", suggested, "true", 2, true, "true"},
		{"suggested, claimed", suggested, "false", 1, false, "false"},
	} {
		t.Run(c.name, func(t *testing.T) {
			have := c.level.DeepCopy()
			have.Annotations = nil
			have.Generation, have.Spec.Limited.NominalConcurrencyShares = c.generation, new(int32(theirs))
			if c.annotation != "" {
				metav1.SetMetaDataAnnotation(&have.ObjectMeta, flowcontrolv1.AutoUpdateAnnotationKey, c.annotation)
			}
			client := fake.NewClientset(have).FlowcontrolV1()
			if err := ensureFlowControl(t.Context(), client); err != nil {
				t.Fatal(err)
			}
			got, err := client.PriorityLevelConfigurations().Get(t.Context(), have.Name, metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if restored := *got.Spec.Limited.NominalConcurrencyShares != theirs; restored != c.restored {
				t.Errorf("restored is %v", restored)
			}
			if annotation := got.Annotations[flowcontrolv1.AutoUpdateAnnotationKey]; annotation != c.wants {
				t.Errorf("the annotation is %q; want %q", annotation, c.wants)
			}
			schemas, err := client.FlowSchemas().List(t.Context(), metav1.ListOptions{})
			if err != nil || len(schemas.Items) != len(bootstrap.MandatoryFlowSchemas)+len(bootstrap.SuggestedFlowSchemas) {
				t.Errorf("%d flow schemas were made, %v", len(schemas.Items), err)
			}
		})
	}
}
