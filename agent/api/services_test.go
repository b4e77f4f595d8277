package api

import (
	"testing"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestUndiscovered(t *testing.T) {
	definition := func(plural string, established apiextensionsv1.ConditionStatus, versions ...apiextensionsv1.CustomResourceDefinitionVersion) apiextensionsv1.CustomResourceDefinition {
		return apiextensionsv1.CustomResourceDefinition{
			Spec:   apiextensionsv1.CustomResourceDefinitionSpec{Group: "g", Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: plural}, Versions: versions},
			Status: apiextensionsv1.CustomResourceDefinitionStatus{Conditions: []apiextensionsv1.CustomResourceDefinitionCondition{{Type: apiextensionsv1.Established, Status: established}}},
		}
	}
	served := func(name string) apiextensionsv1.CustomResourceDefinitionVersion {
		return apiextensionsv1.CustomResourceDefinitionVersion{Name: name, Served: true}
	}
	leaving := definition("apples", apiextensionsv1.ConditionTrue, served("v1"))
	leaving.DeletionTimestamp = &metav1.Time{}
	shown := &apidiscoveryv2.APIGroupDiscoveryList{Items: []apidiscoveryv2.APIGroupDiscovery{{
		ObjectMeta: metav1.ObjectMeta{Name: "g"},
		Versions:   []apidiscoveryv2.APIVersionDiscovery{{Version: "v1", Resources: []apidiscoveryv2.APIResourceDiscovery{{Resource: "pears"}}}},
	}}}
	for _, test := range []struct {
		name       string
		definition apiextensionsv1.CustomResourceDefinition
		elsewhere  bool
		missing    bool
	}{
		{name: "shown", definition: definition("pears", apiextensionsv1.ConditionTrue, served("v1"))},
		{name: "its group is shown, it is not", definition: definition("apples", apiextensionsv1.ConditionTrue, served("v1")), missing: true},
		{name: "one version is not shown", definition: definition("pears", apiextensionsv1.ConditionTrue, served("v1"), served("v2")), missing: true},
		{name: "not served", definition: definition("pears", apiextensionsv1.ConditionTrue, served("v1"), apiextensionsv1.CustomResourceDefinitionVersion{Name: "v2"})},
		{name: "not established", definition: definition("apples", apiextensionsv1.ConditionFalse, served("v1"))},
		{name: "leaving", definition: leaving},
		{name: "served elsewhere", definition: definition("apples", apiextensionsv1.ConditionTrue, served("v1")), elsewhere: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := undiscovered([]apiextensionsv1.CustomResourceDefinition{test.definition}, shown, func(schema.GroupVersion) bool { return test.elsewhere })
			if (err != nil) != test.missing {
				t.Errorf("missing %t: %v", test.missing, err)
			}
		})
	}
}
