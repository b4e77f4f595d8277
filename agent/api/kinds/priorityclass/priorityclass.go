// Package priorityclass is the kind PriorityClass, and the two classes that every cluster has. It holds no state.
package priorityclass

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/agent/api/kinds"
)

const (
	systemPrefix = "system-"
	// highestUserPriority is the largest value of a class that is not the system's.
	highestUserPriority = 1_000_000_000
	// lowestSystemPriority is where the system's own classes begin.
	lowestSystemPriority = 2 * highestUserPriority
)

// Resource returns the kind PriorityClass.
func Resource() kinds.Resource {
	return &kinds.Kind[*schedulingv1.PriorityClass]{
		GroupVersion: schedulingv1.SchemeGroupVersion,
		Kind:         "PriorityClass", Resource: "priorityclasses", Singular: "priorityclass", ShortNames: []string{"pc"},
		New:     func() *schedulingv1.PriorityClass { return &schedulingv1.PriorityClass{} },
		NewList: func() runtime.Object { return &schedulingv1.PriorityClassList{} },

		Default:          setDefaults,
		PrepareForCreate: func(_ context.Context, c *schedulingv1.PriorityClass) { c.Generation = 1 },
		Validate:         func(_ context.Context, c *schedulingv1.PriorityClass) field.ErrorList { return validate(c) },
		ValidateUpdate: func(_ context.Context, c, old *schedulingv1.PriorityClass) field.ErrorList {
			return validateUpdate(c, old)
		},

		Columns: []kinds.Column[*schedulingv1.PriorityClass]{
			kinds.NameColumn[*schedulingv1.PriorityClass](),
			{Name: "Value", Type: "integer", Description: schedulingv1.PriorityClass{}.SwaggerDoc()["value"],
				Cell: func(c *schedulingv1.PriorityClass) any { return int64(c.Value) }},
			{Name: "Global-Default", Type: "boolean", Description: schedulingv1.PriorityClass{}.SwaggerDoc()["globalDefault"],
				Cell: func(c *schedulingv1.PriorityClass) any { return c.GlobalDefault }},
			kinds.AgeColumn[*schedulingv1.PriorityClass](),
			{Name: "PreemptionPolicy", Description: schedulingv1.PriorityClass{}.SwaggerDoc()["preemptionPolicy"], Cell: policy},
		},
		Extend: func(_ kinds.Env, _, _ *genericregistry.Store, storage map[string]rest.Storage) error {
			storage["priorityclasses"] = &classREST{storage["priorityclasses"].(*kinds.REST)}
			return nil
		},
	}
}

// System returns the classes that every cluster has.
func System() []*schedulingv1.PriorityClass {
	preempt := corev1.PreemptLowerPriority
	class := func(name string, value int32, description string) *schedulingv1.PriorityClass {
		return &schedulingv1.PriorityClass{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Value: value, Description: description, PreemptionPolicy: &preempt}
	}
	return []*schedulingv1.PriorityClass{
		class("system-node-critical", lowestSystemPriority+1000,
			"Used for system critical pods that must not be moved from their current node."),
		class("system-cluster-critical", lowestSystemPriority,
			"Used for system critical pods that must run in the cluster, but can be moved to another node if necessary."),
	}
}

func policy(c *schedulingv1.PriorityClass) any {
	if c.PreemptionPolicy == nil {
		return ""
	}
	return string(*c.PreemptionPolicy)
}

func setDefaults(c *schedulingv1.PriorityClass) {
	if c.PreemptionPolicy == nil {
		preempt := corev1.PreemptLowerPriority
		c.PreemptionPolicy = &preempt
	}
}

func validate(c *schedulingv1.PriorityClass) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&c.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	if strings.HasPrefix(c.Name, systemPrefix) {
		if err := checkSystem(c); err != nil {
			errs = append(errs, field.Forbidden(field.NewPath("metadata", "name"),
				"priority class names with '"+systemPrefix+"' prefix are reserved for system use only. error: "+err.Error()))
		}
	} else if c.Value > highestUserPriority {
		errs = append(errs, field.Forbidden(field.NewPath("value"),
			fmt.Sprintf("maximum allowed value of a user defined priority is %v", highestUserPriority)))
	}
	if p := c.PreemptionPolicy; p != nil && *p != corev1.PreemptLowerPriority && *p != corev1.PreemptNever {
		path := field.NewPath("preemptionPolicy")
		if *p == "" {
			return append(errs, field.Required(path, ""))
		}
		errs = append(errs, field.NotSupported(path, *p, []corev1.PreemptionPolicy{corev1.PreemptLowerPriority, corev1.PreemptNever}))
	}
	return errs
}

// checkSystem says why a class with a system name is none of the system's.
func checkSystem(c *schedulingv1.PriorityClass) error {
	for _, s := range System() {
		if s.Name != c.Name {
			continue
		}
		if s.Value != c.Value {
			return fmt.Errorf("value of %v PriorityClass must be %v", s.Name, s.Value)
		}
		if s.GlobalDefault != c.GlobalDefault {
			return fmt.Errorf("globalDefault of %v PriorityClass must be %v", s.Name, s.GlobalDefault)
		}
		return nil
	}
	return fmt.Errorf("%v is not a known system priority class", c.Name)
}

func validateUpdate(c, old *schedulingv1.PriorityClass) field.ErrorList {
	errs := kinds.ValidateObjectMetaUpdate(&c.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))
	if c.Value != old.Value {
		errs = append(errs, field.Forbidden(field.NewPath("value"), "may not be changed in an update."))
	}
	return append(errs, apivalidation.ValidateImmutableField(c.PreemptionPolicy, old.PreemptionPolicy, field.NewPath("preemptionPolicy"))...)
}

// classREST refuses to delete the system's classes.
type classREST struct{ *kinds.REST }

// Delete implements rest.GracefulDeleter.
func (r *classREST) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	for _, s := range System() {
		if s.Name == name {
			return nil, false, apierrors.NewForbidden(schedulingv1.Resource("priorityclasses"), name,
				errors.New("this is a system priority class and cannot be deleted"))
		}
	}
	return r.REST.Delete(ctx, name, validate, options)
}
