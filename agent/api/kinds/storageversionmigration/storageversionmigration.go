// Package storageversionmigration is the kind StorageVersionMigration: a wish that all objects of a resource be written
// anew in the version that is stored today. Nothing migrates: built-in kinds have one stored version. All is pure functions and
// safe for concurrent use. Test with `go test ./agent/api/kinds/storageversionmigration`.
package storageversionmigration

import (
	"context"
	"strconv"

	migrationv1 "k8s.io/api/storagemigration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podspec"
)

// Resource returns the kind.
func Resource() kinds.Resource {
	type T = *migrationv1.StorageVersionMigration
	return &kinds.Kind[T]{
		GroupVersion: migrationv1.SchemeGroupVersion,
		Kind:         "StorageVersionMigration", Resource: "storageversionmigrations", Singular: "storageversionmigration",
		New:     func() T { return &migrationv1.StorageVersionMigration{} },
		NewList: func() runtime.Object { return &migrationv1.StorageVersionMigrationList{} },

		PrepareForCreate: func(_ context.Context, m T) { m.Status = migrationv1.StorageVersionMigrationStatus{} },
		Validate:         func(_ context.Context, m T) field.ErrorList { return validate(m) },
		ValidateUpdate: func(_ context.Context, m, old T) field.ErrorList {
			errs := append(kinds.ValidateObjectMetaUpdate(&m.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata")), validate(m)...)
			if !equality.Semantic.DeepEqual(m.Spec, old.Spec) {
				errs = append(errs, field.Invalid(field.NewPath("spec"), podspec.InternalView(m.Spec), apivalidation.FieldImmutableErrorMsg))
			}
			return errs
		},
		ForbidUnconditionalUpdate: true,
		Columns: []kinds.Column[T]{
			{Name: "Name", Description: kinds.NameColumn[T]().Description, Cell: func(m T) any { return m.Name }},
			{Name: "Resource", Description: migrationv1.StorageVersionMigrationSpec{}.SwaggerDoc()["resource"], Cell: func(m T) any {
				return schema.GroupResource(m.Spec.Resource).String()
			}},
			{Name: "Status", Description: migrationv1.StorageVersionMigrationStatus{}.SwaggerDoc()["conditions"], Cell: func(m T) any { return state(m.Status.Conditions) }},
		},
		Status: &kinds.Status[T]{
			PrepareForUpdate: func(_ context.Context, m, old T) {
				metav1.ResetObjectMetaForStatus(m, old)
				m.Spec = old.Spec
			},
			ValidateUpdate: func(_ context.Context, m, old T) field.ErrorList {
				errs := kinds.ValidateObjectMetaUpdate(&m.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
				return append(errs, validateStatus(&m.Status, &old.Status, field.NewPath("status"))...)
			},
			ResetFields: []string{"spec", "metadata"},
		},
	}
}

func state(conditions []metav1.Condition) string {
	for _, t := range []migrationv1.MigrationConditionType{migrationv1.MigrationSucceeded, migrationv1.MigrationFailed, migrationv1.MigrationRunning} {
		if apimeta.IsStatusConditionTrue(conditions, string(t)) {
			return string(t)
		}
	}
	return "Unknown"
}

func validate(m *migrationv1.StorageVersionMigration) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&m.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	at, resource := field.NewPath("spec", "resource"), m.Spec.Resource
	if resource.Resource == "" {
		errs = append(errs, field.Required(at.Child("resource"), "resource is required to be set"))
	} else {
		for _, message := range validation.IsDNS1035Label(resource.Resource) {
			errs = append(errs, field.Invalid(at.Child("resource"), resource.Resource, message))
		}
	}
	if resource.Group != "" {
		for _, message := range validation.IsDNS1123Subdomain(resource.Group) {
			errs = append(errs, field.Invalid(at.Child("group"), resource.Group, message))
		}
	}
	return errs
}

func validateStatus(status, old *migrationv1.StorageVersionMigrationStatus, at *field.Path) field.ErrorList {
	errs := metav1validation.ValidateConditions(status.Conditions, at.Child("conditions"))
	own := at.Child("resourceVersion")
	if v := status.ResourceVersion; v != "" {
		if n, err := strconv.ParseUint(v, 10, 64); err != nil || n == 0 || strconv.FormatUint(n, 10) != v {
			errs = append(errs, field.Invalid(own, v, "resource version is not well formed: "+v))
		}
	}
	if old.ResourceVersion != "" && old.ResourceVersion != status.ResourceVersion {
		errs = append(errs, field.Invalid(own, status.ResourceVersion, apivalidation.FieldImmutableErrorMsg))
	}
	is := func(conditions []metav1.Condition, t migrationv1.MigrationConditionType) bool {
		return apimeta.IsStatusConditionTrue(conditions, string(t))
	}
	succeeded, failed := is(status.Conditions, migrationv1.MigrationSucceeded), is(status.Conditions, migrationv1.MigrationFailed)
	if succeeded && failed {
		errs = append(errs, field.Invalid(at.Child("conditions"), podspec.InternalView(status.Conditions), "Both success and failed conditions cannot be true at the same time"))
	}
	if (succeeded || failed) && is(status.Conditions, migrationv1.MigrationRunning) {
		errs = append(errs, field.Invalid(at.Child("conditions"), podspec.InternalView(status.Conditions), "Running condition cannot be true when success or failed condition is true"))
	}
	for _, t := range []migrationv1.MigrationConditionType{migrationv1.MigrationSucceeded, migrationv1.MigrationFailed} {
		if is(old.Conditions, t) && !is(status.Conditions, t) {
			errs = append(errs, field.Invalid(at.Child("conditions"), podspec.InternalView(status.Conditions), string(t)+" condition cannot be set to false once it is true"))
		}
	}
	return errs
}
