// Package openapi holds the generated OpenAPI definitions of the published Kubernetes types that the API serves.
//
// The definitions are functions without state; nothing is built before [Definitions] is called. Regenerate with
// go generate after a change of the k8s.io/api version or of the list of packages below.
package openapi

import (
	apiextensions "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	aggregator "k8s.io/kube-aggregator/pkg/generated/openapi"
	"k8s.io/kube-openapi/pkg/common"
)

//go:generate go run k8s.io/kube-openapi/cmd/openapi-gen@v0.0.0-20260721132016-d427ff9ee9ad --go-header-file header.txt --output-dir . --output-pkg github.com/podvine/podvine/agent/api/openapi --output-file zz_generated.openapi.go --report-filename /dev/null k8s.io/api/core/v1 k8s.io/api/admissionregistration/v1 k8s.io/api/apps/v1 k8s.io/api/authentication/v1 k8s.io/api/authorization/v1 k8s.io/api/autoscaling/v1 k8s.io/api/autoscaling/v2 k8s.io/api/certificates/v1 k8s.io/api/batch/v1 k8s.io/api/coordination/v1 k8s.io/api/discovery/v1 k8s.io/api/events/v1 k8s.io/api/flowcontrol/v1 k8s.io/api/networking/v1 k8s.io/api/node/v1 k8s.io/api/policy/v1 k8s.io/api/rbac/v1 k8s.io/api/resource/v1 k8s.io/api/scheduling/v1 k8s.io/api/scheduling/v1alpha3 k8s.io/api/storage/v1 k8s.io/api/storagemigration/v1 k8s.io/apimachinery/pkg/api/resource k8s.io/apimachinery/pkg/apis/meta/v1 k8s.io/apimachinery/pkg/runtime k8s.io/apimachinery/pkg/util/intstr k8s.io/apimachinery/pkg/version github.com/podvine/podvine/agent/api/kinds/podsecuritypolicy

// Definitions returns the definitions of the served types, of custom resource definitions and of API services.
func Definitions(ref common.ReferenceCallback) map[string]common.OpenAPIDefinition {
	all := GetOpenAPIDefinitions(ref)
	for _, definitions := range []common.GetOpenAPIDefinitions{apiextensions.GetOpenAPIDefinitions, aggregator.GetOpenAPIDefinitions} {
		for name, definition := range definitions(ref) {
			if _, ok := all[name]; !ok {
				all[name] = definition
			}
		}
	}
	return all
}
