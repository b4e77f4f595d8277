package api

import (
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/podvine/podvine/agent/api/coverage"
	"github.com/podvine/podvine/agent/api/kinds/reviews"
)

// CoveragePage is docs/coverage.md as the kinds and gaps of this build make it.
func CoveragePage() string {
	served := []schema.GroupVersionKind{
		apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"),
		apiregistrationv1.SchemeGroupVersion.WithKind("APIService"),
	}
	for _, r := range Resources(func() reviews.Access { return reviews.Access{} }) {
		served = append(served, r.GVK())
	}
	return coverage.Page(served, scheme.Scheme)
}
