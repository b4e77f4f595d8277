// Package controllerrevision serves apps/v1 ControllerRevision: a snapshot of what a workload looked like, for rolling
// back. Its data never changes. Everything is a pure function and safe for concurrent use. Test with
// `go test ./agent/api/kinds/controllerrevision`.
package controllerrevision

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
)

// Resource returns the kind.
func Resource() kinds.Resource {
	return &kinds.Kind[*appsv1.ControllerRevision]{
		GroupVersion:   appsv1.SchemeGroupVersion,
		Kind:           "ControllerRevision",
		Resource:       "controllerrevisions",
		Singular:       "controllerrevision",
		Namespaced:     true,
		New:            func() *appsv1.ControllerRevision { return &appsv1.ControllerRevision{} },
		NewList:        func() runtime.Object { return &appsv1.ControllerRevisionList{} },
		Validate:       validate,
		ValidateUpdate: validateUpdate,
		Columns:        columns(),
	}
}

// empty says whether the snapshot holds nothing.
func empty(data *runtime.RawExtension) bool {
	return data.Object == nil && (len(data.Raw) == 0 || bytes.Equal(bytes.TrimSpace(data.Raw), []byte("null")))
}

func validateData(r *appsv1.ControllerRevision) field.ErrorList {
	errs := apivalidation.ValidateNonnegativeField(r.Revision, field.NewPath("revision"))
	if empty(&r.Data) {
		errs = append(errs, field.Required(field.NewPath("data"), "data is mandatory"))
	}
	return errs
}

func validate(_ context.Context, r *appsv1.ControllerRevision) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&r.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	return append(errs, validateData(r)...)
}

func validateUpdate(_ context.Context, r, old *appsv1.ControllerRevision) field.ErrorList {
	errs := kinds.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	errs = append(errs, apivalidation.ValidateNonnegativeField(r.Revision, field.NewPath("revision"))...)
	if !sameData(&r.Data, &old.Data) {
		errs = append(errs, field.Invalid(field.NewPath("data"), &r.Data, apivalidation.FieldImmutableErrorMsg))
	}
	return errs
}

// sameData compares two snapshots by what they say, not by how it is written.
func sameData(a, b *runtime.RawExtension) bool {
	x, errX := decode(a)
	y, errY := decode(b)
	if errX != nil || errY != nil {
		return bytes.Equal(a.Raw, b.Raw)
	}
	return equality.Semantic.DeepEqual(x, y)
}

func decode(data *runtime.RawExtension) (any, error) {
	raw, err := json.Marshal(data)
	if err != nil {
		return nil, err
	}
	var v any
	return v, json.Unmarshal(raw, &v)
}

func columns() []kinds.Column[*appsv1.ControllerRevision] {
	return []kinds.Column[*appsv1.ControllerRevision]{
		kinds.NameColumn[*appsv1.ControllerRevision](),
		{Name: "Controller", Description: "Controller of the object", Cell: func(r *appsv1.ControllerRevision) any { return controller(r) }},
		{Name: "Revision", Description: appsv1.ControllerRevision{}.SwaggerDoc()["revision"], Cell: func(r *appsv1.ControllerRevision) any { return r.Revision }},
		kinds.AgeColumn[*appsv1.ControllerRevision](),
	}
}

// controller names the owner as "kind.group/name".
func controller(r *appsv1.ControllerRevision) string {
	ref := metav1.GetControllerOf(r)
	if ref == nil {
		return "<none>"
	}
	group, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return ref.Name
	}
	kind := strings.ToLower(ref.Kind)
	if group.Group != "" {
		kind += "." + group.Group
	}
	return kind + "/" + ref.Name
}
