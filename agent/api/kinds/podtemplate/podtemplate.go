// Package podtemplate serves v1 PodTemplate: a pod template by itself. Everything is a pure function and safe for
// concurrent use. Test with `go test ./agent/api/kinds/podtemplate`.
package podtemplate

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

// Resource returns the kind.
func Resource() kinds.Resource {
	return &kinds.Kind[*corev1.PodTemplate]{
		GroupVersion: corev1.SchemeGroupVersion,
		Kind:         "PodTemplate",
		Resource:     "podtemplates",
		Singular:     "podtemplate",
		Namespaced:   true,
		New:          func() *corev1.PodTemplate { return &corev1.PodTemplate{} },
		NewList:      func() runtime.Object { return &corev1.PodTemplateList{} },
		Default:      func(t *corev1.PodTemplate) { podspec.DefaultTemplate(&t.Template) },
		PrepareForCreate: func(_ context.Context, t *corev1.PodTemplate) {
			t.Generation = 1
			podspec.DropDisabled(&t.Template.Spec)
		},
		PrepareForUpdate: prepareForUpdate,
		Validate: func(_ context.Context, t *corev1.PodTemplate) field.ErrorList {
			errs := kinds.ValidateObjectMeta(&t.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
			return append(errs, podspec.ValidateTemplate(&t.Template, field.NewPath("template"), podspec.Options{})...)
		},
		ValidateUpdate: func(_ context.Context, t, old *corev1.PodTemplate) field.ErrorList {
			errs := kinds.ValidateObjectMetaUpdate(&t.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
			opts := podspec.OptionsFor(&old.Template.Spec, &old.Template.ObjectMeta)
			return append(errs, podspec.ValidateTemplate(&t.Template, field.NewPath("template"), opts)...)
		},
		WarningsOnCreate: func(_ context.Context, t *corev1.PodTemplate) []string {
			return podspec.TemplateWarnings(&t.Template, nil, field.NewPath("template"))
		},
		WarningsOnUpdate: func(_ context.Context, t, old *corev1.PodTemplate) []string {
			return podspec.TemplateWarnings(&t.Template, &old.Template, field.NewPath("template"))
		},
		Columns: columns(),
	}
}

func prepareForUpdate(_ context.Context, t, old *corev1.PodTemplate) {
	podspec.DropDisabled(&t.Template.Spec)
	t.Generation = old.Generation
	if !equality.Semantic.DeepEqual(t.Template, old.Template) {
		t.Generation++
	}
}

func columns() []kinds.Column[*corev1.PodTemplate] {
	return []kinds.Column[*corev1.PodTemplate]{
		kinds.NameColumn[*corev1.PodTemplate](),
		{Name: "Containers", Description: "Names of each container in the template.", Cell: func(t *corev1.PodTemplate) any {
			names, _ := podspec.ContainerColumns(&t.Template.Spec)
			return names
		}},
		{Name: "Images", Description: "Images referenced by each container in the template.", Cell: func(t *corev1.PodTemplate) any {
			_, images := podspec.ContainerColumns(&t.Template.Spec)
			return images
		}},
		{Name: "Pod Labels", Description: "The labels for the pod template.", Cell: func(t *corev1.PodTemplate) any {
			if len(t.Template.Labels) == 0 {
				return "<none>"
			}
			return labels.Set(t.Template.Labels).String()
		}},
	}
}
