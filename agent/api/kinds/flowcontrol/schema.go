package flowcontrol

import (
	"context"
	"fmt"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
)

// defaultPrecedence is that of a schema that names none.
const defaultPrecedence = 1000

// Schemas returns the kind FlowSchema.
func Schemas() kinds.Resource {
	type T = *flowcontrolv1.FlowSchema
	return &kinds.Kind[T]{
		GroupVersion: flowcontrolv1.SchemeGroupVersion,
		Kind:         "FlowSchema", Resource: "flowschemas", Singular: "flowschema",
		New:     func() T { return &flowcontrolv1.FlowSchema{} },
		NewList: func() runtime.Object { return &flowcontrolv1.FlowSchemaList{} },

		Default: func(s T) {
			if s.Spec.MatchingPrecedence == 0 {
				s.Spec.MatchingPrecedence = defaultPrecedence
			}
		},
		HasGeneration:    true,
		PrepareForCreate: func(_ context.Context, s T) { s.Status = flowcontrolv1.FlowSchemaStatus{} },
		Validate:         func(_ context.Context, s T) field.ErrorList { return validateSchema(s) },
		ValidateUpdate:   func(_ context.Context, s, _ T) field.ErrorList { return validateSchema(s) },

		Columns: []kinds.Column[T]{
			kinds.NameColumn[T](),
			{Name: "PriorityLevel", Cell: func(s T) any { return s.Spec.PriorityLevelConfiguration.Name }},
			{Name: "MatchingPrecedence", Cell: func(s T) any { return int64(s.Spec.MatchingPrecedence) }},
			{Name: "DistinguisherMethod", Cell: func(s T) any {
				if s.Spec.DistinguisherMethod == nil {
					return "<none>"
				}
				return string(s.Spec.DistinguisherMethod.Type)
			}},
			kinds.AgeColumn[T](),
			{Name: "MissingPL", Cell: missingLevel},
		},
		Status: &kinds.Status[T]{
			PrepareForUpdate: func(_ context.Context, s, old T) {
				managed := s.ManagedFields
				s.Spec, s.ObjectMeta = old.Spec, withVersion(old.ObjectMeta, s.ObjectMeta)
				s.ManagedFields = managed
			},
			ValidateUpdate: func(_ context.Context, s, _ T) field.ErrorList {
				types := make([]string, len(s.Status.Conditions))
				for i, c := range s.Status.Conditions {
					types[i] = string(c.Type)
				}
				return validateConditions(types, field.NewPath("status", "conditions"))
			},
			ResetFields: []string{"spec", "metadata"},
		},
	}
}

func missingLevel(s *flowcontrolv1.FlowSchema) any {
	for _, c := range s.Status.Conditions {
		if c.Type == flowcontrolv1.FlowSchemaConditionDangling {
			return string(c.Status)
		}
	}
	return "?"
}

func validateSchema(s *flowcontrolv1.FlowSchema) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&s.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	path := field.NewPath("spec")
	errs = append(errs, validatePrecedence(s, path.Child("matchingPrecedence"))...)
	if d := s.Spec.DistinguisherMethod; d != nil &&
		d.Type != flowcontrolv1.FlowDistinguisherMethodByNamespaceType && d.Type != flowcontrolv1.FlowDistinguisherMethodByUserType {
		errs = append(errs, field.NotSupported(path.Child("distinguisherMethod").Child("type"), d.Type,
			[]flowcontrolv1.FlowDistinguisherMethodType{flowcontrolv1.FlowDistinguisherMethodByNamespaceType, flowcontrolv1.FlowDistinguisherMethodByUserType}))
	}
	level := path.Child("priorityLevelConfiguration").Child("name")
	if name := s.Spec.PriorityLevelConfiguration.Name; name == "" {
		errs = append(errs, field.Required(level, "must reference a priority level"))
	} else {
		for _, message := range apivalidation.NameIsDNSSubdomain(name, false) {
			errs = append(errs, field.Invalid(level, name, message))
		}
	}
	for i := range s.Spec.Rules {
		errs = append(errs, validateRule(&s.Spec.Rules[i], path.Child("rules").Index(i))...)
	}
	return errs
}

func validatePrecedence(s *flowcontrolv1.FlowSchema, path *field.Path) (errs field.ErrorList) {
	precedence := s.Spec.MatchingPrecedence
	if precedence <= 0 {
		errs = append(errs, field.Invalid(path, precedence, "must be a positive value"))
	}
	if precedence > flowcontrolv1.FlowSchemaMaxMatchingPrecedence {
		errs = append(errs, field.Invalid(path, precedence, fmt.Sprintf("must not be greater than %v", flowcontrolv1.FlowSchemaMaxMatchingPrecedence)))
	}
	if precedence == 1 && s.Name != flowcontrolv1.FlowSchemaNameExempt {
		errs = append(errs, field.Invalid(path, precedence, "only the schema named 'exempt' may have matchingPrecedence 1"))
	}
	return errs
}

func validateRule(r *flowcontrolv1.PolicyRulesWithSubjects, path *field.Path) (errs field.ErrorList) {
	if len(r.Subjects) == 0 {
		errs = append(errs, field.Required(path.Child("subjects"), "subjects must contain at least one value"))
	}
	for i := range r.Subjects {
		errs = append(errs, validateSubject(&r.Subjects[i], path.Child("subjects").Index(i))...)
	}
	if len(r.ResourceRules) == 0 && len(r.NonResourceRules) == 0 {
		errs = append(errs, field.Required(path, "at least one of resourceRules and nonResourceRules has to be non-empty"))
	}
	for i := range r.ResourceRules {
		errs = append(errs, validateResourceRule(&r.ResourceRules[i], path.Child("resourceRules").Index(i))...)
	}
	for i := range r.NonResourceRules {
		errs = append(errs, validateNonResourceRule(&r.NonResourceRules[i], path.Child("nonResourceRules").Index(i))...)
	}
	return errs
}
