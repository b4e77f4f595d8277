// Package configmap is the kind ConfigMap. It holds no state.
package configmap

import (
	"context"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
)

const immutableMessage = "field is immutable when `immutable` is set"

// Resource returns the kind ConfigMap.
func Resource() kinds.Resource {
	return &kinds.Kind[*corev1.ConfigMap]{
		GroupVersion: corev1.SchemeGroupVersion,
		Kind:         "ConfigMap", Resource: "configmaps", Singular: "configmap", ShortNames: []string{"cm"},
		Namespaced: true,
		New:        func() *corev1.ConfigMap { return &corev1.ConfigMap{} },
		NewList:    func() runtime.Object { return &corev1.ConfigMapList{} },

		Validate:       func(_ context.Context, c *corev1.ConfigMap) field.ErrorList { return validate(c) },
		ValidateUpdate: func(_ context.Context, c, old *corev1.ConfigMap) field.ErrorList { return validateUpdate(c, old) },

		Columns: []kinds.Column[*corev1.ConfigMap]{
			kinds.NameColumn[*corev1.ConfigMap](),
			{Name: "Data", Description: corev1.ConfigMap{}.SwaggerDoc()["data"], Cell: func(c *corev1.ConfigMap) any {
				return int64(len(c.Data) + len(c.BinaryData))
			}},
			kinds.AgeColumn[*corev1.ConfigMap](),
		},
	}
}

func validate(c *corev1.ConfigMap) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&c.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	size := 0
	for key, value := range c.Data {
		path := field.NewPath("data").Key(key)
		errs = append(errs, validateKey(key, path)...)
		if _, ok := c.BinaryData[key]; ok {
			errs = append(errs, field.Invalid(path, key, "duplicate of key present in binaryData"))
		}
		size += len(value)
	}
	for key, value := range c.BinaryData {
		errs = append(errs, validateKey(key, field.NewPath("binaryData").Key(key))...)
		size += len(value)
	}
	if size > corev1.MaxSecretSize {
		errs = append(errs, field.TooLong(field.NewPath(""), "", corev1.MaxSecretSize)) // the whole object
	}
	return errs
}

func validateKey(key string, path *field.Path) (errs field.ErrorList) {
	for _, message := range validation.IsConfigMapKey(key) {
		errs = append(errs, field.Invalid(path, key, message))
	}
	return errs
}

func validateUpdate(c, old *corev1.ConfigMap) field.ErrorList {
	errs := kinds.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	if old.Immutable != nil && *old.Immutable {
		if c.Immutable == nil || !*c.Immutable {
			errs = append(errs, field.Forbidden(field.NewPath("immutable"), immutableMessage))
		}
		if !reflect.DeepEqual(c.Data, old.Data) {
			errs = append(errs, field.Forbidden(field.NewPath("data"), immutableMessage))
		}
		if !reflect.DeepEqual(c.BinaryData, old.BinaryData) {
			errs = append(errs, field.Forbidden(field.NewPath("binaryData"), immutableMessage))
		}
	}
	return append(errs, validate(c)...)
}
