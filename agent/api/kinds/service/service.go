// Package service serves core/v1 Service: a stable address in front of pods.
//
// Beside defaults, validation, columns and the proxy sub-resource the package hands out what a service needs of the
// cluster: addresses of the service ranges, recorded as IPAddress objects, and node ports, recorded as RangeAllocation
// objects of one port each. Which ones a write claims and releases is a pure function of the service before and after
// it ([changeOf]); the records are created and deleted together with the service, so that no two services ever hold
// the same address or port. agent/control/addresses repairs what is lost all the same.
//
// Defaults, validation and planning are pure. Everything is safe for concurrent use.
// Inspect allocations with `kubectl get ipaddresses`; test with `go test ./agent/api/kinds/service`.
package service

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/agent/api/kinds"
)

// Resource returns the kind.
func Resource() kinds.Resource {
	return &kinds.Kind[*corev1.Service]{
		GroupVersion:        corev1.SchemeGroupVersion,
		Kind:                "Service",
		Resource:            "services",
		Singular:            "service",
		ShortNames:          []string{"svc"},
		Categories:          []string{"all"},
		Namespaced:          true,
		New:                 func() *corev1.Service { return &corev1.Service{} },
		NewList:             func() runtime.Object { return &corev1.ServiceList{} },
		Default:             setDefaults,
		PrepareForCreate:    func(_ context.Context, s *corev1.Service) { s.Status = corev1.ServiceStatus{} },
		PrepareForUpdate:    func(_ context.Context, s, old *corev1.Service) { dropTypeDependentFields(s, old) },
		Validate:            func(_ context.Context, s *corev1.Service) field.ErrorList { return validateService(s, nil) },
		ValidateUpdate:      func(_ context.Context, s, old *corev1.Service) field.ErrorList { return validateUpdate(s, old) },
		WarningsOnCreate:    func(_ context.Context, s *corev1.Service) []string { return warnings(s, nil) },
		WarningsOnUpdate:    func(_ context.Context, s, old *corev1.Service) []string { return warnings(s, old) },
		AllowCreateOnUpdate: true,
		ReturnDeletedObject: true,
		FieldLabels:         []string{"spec.clusterIP", "spec.type"},
		Fields: func(s *corev1.Service) fields.Set {
			return fields.Set{"spec.clusterIP": s.Spec.ClusterIP, "spec.type": string(s.Spec.Type)}
		},
		Status: &kinds.Status[*corev1.Service]{
			PrepareForUpdate: func(_ context.Context, s, old *corev1.Service) { s.Spec = old.Spec },
			ValidateUpdate: func(_ context.Context, s, old *corev1.Service) field.ErrorList {
				return validateStatusUpdate(s, old)
			},
		},
		Columns: columns(),
		Extend: func(env kinds.Env, store, _ *genericregistry.Store, storage map[string]rest.Storage) error {
			if err := extend(env, store, storage); err != nil {
				return err
			}
			proxy, err := newProxyREST(env, store)
			if err != nil {
				return err
			}
			storage["services/proxy"] = proxy
			return nil
		},
	}
}
