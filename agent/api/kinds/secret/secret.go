// Package secret is the kind Secret. It holds no state. Encryption is the storage's business.
package secret

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
)

const (
	immutableMessage = "field is immutable when `immutable` is set"
	// redacted stands for contents in errors, which end up in logs.
	redacted = "<secret contents redacted>"
)

// Resource returns the kind Secret.
func Resource() kinds.Resource {
	return &kinds.Kind[*corev1.Secret]{
		GroupVersion: corev1.SchemeGroupVersion,
		Kind:         "Secret", Resource: "secrets", Singular: "secret",
		Namespaced: true,
		New:        func() *corev1.Secret { return &corev1.Secret{} },
		NewList:    func() runtime.Object { return &corev1.SecretList{} },

		Default:          setDefaults,
		Validate:         func(_ context.Context, s *corev1.Secret) field.ErrorList { return validate(s) },
		ValidateUpdate:   func(_ context.Context, s, old *corev1.Secret) field.ErrorList { return validateUpdate(s, old) },
		WarningsOnCreate: func(_ context.Context, s *corev1.Secret) []string { return warnings(s) },
		WarningsOnUpdate: func(_ context.Context, s, _ *corev1.Secret) []string { return warnings(s) },

		FieldLabels: []string{"type"},
		Fields:      func(s *corev1.Secret) fields.Set { return fields.Set{"type": string(s.Type)} },

		Columns: []kinds.Column[*corev1.Secret]{
			kinds.NameColumn[*corev1.Secret](),
			{Name: "Type", Description: corev1.Secret{}.SwaggerDoc()["type"], Cell: func(s *corev1.Secret) any { return string(s.Type) }},
			{Name: "Data", Description: corev1.Secret{}.SwaggerDoc()["data"], Cell: func(s *corev1.Secret) any { return int64(len(s.Data)) }},
			kinds.AgeColumn[*corev1.Secret](),
		},
	}
}

// setDefaults also folds the write-only stringData into data.
func setDefaults(s *corev1.Secret) {
	if len(s.StringData) > 0 && s.Data == nil {
		s.Data = make(map[string][]byte, len(s.StringData))
	}
	for key, value := range s.StringData {
		s.Data[key] = []byte(value)
	}
	s.StringData = nil
	if s.Type == "" {
		s.Type = corev1.SecretTypeOpaque
	}
}

func validate(s *corev1.Secret) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&s.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	data := field.NewPath("data")
	size := 0
	for key, value := range s.Data {
		for _, message := range validation.IsConfigMapKey(key) {
			errs = append(errs, field.Invalid(data.Key(key), key, message))
		}
		size += len(value)
	}
	if size > corev1.MaxSecretSize {
		errs = append(errs, field.TooLong(data, "", corev1.MaxSecretSize))
	}
	return append(errs, validateType(s, data)...)
}

// validateType reports what a secret of a well-known type lacks.
func validateType(s *corev1.Secret, data *field.Path) (errs field.ErrorList) {
	require := func(keys ...string) {
		for _, key := range keys {
			errs = append(errs, field.Required(data.Key(key), ""))
		}
	}
	has := func(key string) bool { _, ok := s.Data[key]; return ok }
	switch s.Type {
	case corev1.SecretTypeServiceAccountToken:
		if s.Annotations[corev1.ServiceAccountNameKey] == "" {
			errs = append(errs, field.Required(field.NewPath("metadata", "annotations").Key(corev1.ServiceAccountNameKey), ""))
		}
	case corev1.SecretTypeDockercfg:
		errs = validateJSON(s, corev1.DockerConfigKey, data)
	case corev1.SecretTypeDockerConfigJson:
		errs = validateJSON(s, corev1.DockerConfigJsonKey, data)
	case corev1.SecretTypeBasicAuth:
		if !has(corev1.BasicAuthUsernameKey) && !has(corev1.BasicAuthPasswordKey) {
			require(corev1.BasicAuthUsernameKey, corev1.BasicAuthPasswordKey)
		}
	case corev1.SecretTypeSSHAuth:
		if len(s.Data[corev1.SSHAuthPrivateKey]) == 0 {
			require(corev1.SSHAuthPrivateKey)
		}
	case corev1.SecretTypeTLS:
		for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
			if !has(key) {
				require(key)
			}
		}
	}
	return errs
}

func validateJSON(s *corev1.Secret, key string, data *field.Path) field.ErrorList {
	content, ok := s.Data[key]
	if !ok {
		return field.ErrorList{field.Required(data.Key(key), "")}
	}
	if err := json.Unmarshal(content, &map[string]any{}); err != nil {
		return field.ErrorList{field.Invalid(data.Key(key), redacted, err.Error())}
	}
	return nil
}

func validateUpdate(s, old *corev1.Secret) field.ErrorList {
	errs := kinds.ValidateObjectMetaUpdate(&s.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, apivalidation.ValidateImmutableField(s.Type, old.Type, field.NewPath("type"))...)
	if old.Immutable != nil && *old.Immutable {
		if s.Immutable == nil || !*s.Immutable {
			errs = append(errs, field.Forbidden(field.NewPath("immutable"), immutableMessage))
		}
		if !reflect.DeepEqual(s.Data, old.Data) {
			errs = append(errs, field.Forbidden(field.NewPath("data"), immutableMessage))
		}
	}
	return append(errs, validate(s)...)
}

// warnings tells when a TLS secret's key does not belong to its certificate.
func warnings(s *corev1.Secret) []string {
	if s.Type != corev1.SecretTypeTLS {
		return nil
	}
	if _, err := tls.X509KeyPair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey]); err != nil {
		return []string{err.Error()}
	}
	return nil
}
