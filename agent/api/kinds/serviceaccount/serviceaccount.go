// Package serviceaccount is the kind ServiceAccount. It holds no state. Its token sub-resource is added by the server,
// which knows who signs tokens.
package serviceaccount

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
)

const (
	enforceMountableSecrets        = "kubernetes.io/enforce-mountable-secrets"
	enforceMountableSecretsWarning = "metadata.annotations[" + enforceMountableSecrets + "]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
)

// Resource returns the kind ServiceAccount.
func Resource() kinds.Resource {
	return &kinds.Kind[*corev1.ServiceAccount]{
		GroupVersion: corev1.SchemeGroupVersion,
		Kind:         "ServiceAccount", Resource: "serviceaccounts", Singular: "serviceaccount", ShortNames: []string{"sa"},
		Namespaced: true,
		New:        func() *corev1.ServiceAccount { return &corev1.ServiceAccount{} },
		NewList:    func() runtime.Object { return &corev1.ServiceAccountList{} },

		PrepareForCreate: func(_ context.Context, s *corev1.ServiceAccount) { keepSecretNames(s) },
		PrepareForUpdate: func(_ context.Context, s, _ *corev1.ServiceAccount) { keepSecretNames(s) },
		Validate:         func(_ context.Context, s *corev1.ServiceAccount) field.ErrorList { return validate(s) },
		ValidateUpdate: func(_ context.Context, s, old *corev1.ServiceAccount) field.ErrorList {
			return append(kinds.ValidateObjectMetaUpdate(&s.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata")), validate(s)...)
		},
		WarningsOnCreate: func(_ context.Context, s *corev1.ServiceAccount) []string { return warnings(s, nil) },
		WarningsOnUpdate: func(_ context.Context, s, old *corev1.ServiceAccount) []string { return warnings(s, old) },

		ReturnDeletedObject: true,
		Columns: []kinds.Column[*corev1.ServiceAccount]{
			kinds.NameColumn[*corev1.ServiceAccount](), kinds.AgeColumn[*corev1.ServiceAccount](),
		},
	}
}

// keepSecretNames drops all of a secret reference but its name: secrets are those of the account's namespace.
func keepSecretNames(s *corev1.ServiceAccount) {
	for i := range s.Secrets {
		s.Secrets[i] = corev1.ObjectReference{Name: s.Secrets[i].Name}
	}
}

func validate(s *corev1.ServiceAccount) field.ErrorList {
	return kinds.ValidateObjectMeta(&s.ObjectMeta, true, apivalidation.ValidateServiceAccountName, field.NewPath("metadata"))
}

func warnings(s, old *corev1.ServiceAccount) []string {
	if _, ok := s.Annotations[enforceMountableSecrets]; !ok {
		return nil
	}
	if old != nil {
		if _, had := old.Annotations[enforceMountableSecrets]; had {
			return nil
		}
	}
	return []string{enforceMountableSecretsWarning}
}
