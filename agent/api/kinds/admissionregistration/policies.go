package admissionregistration

import (
	"context"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/agent/api/kinds"
)

const unset = "<unset>"

func validatingPolicies(v *validator) kinds.Resource {
	type policy = admissionv1.ValidatingAdmissionPolicy
	return &kinds.Kind[*policy]{
		GroupVersion: admissionv1.SchemeGroupVersion,
		Kind:         "ValidatingAdmissionPolicy", Resource: "validatingadmissionpolicies", Singular: "validatingadmissionpolicy",
		Categories: []string{"api-extensions"},
		New:        func() *policy { return &policy{} },
		NewList:    func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicyList{} },
		Default: func(p *policy) {
			setIfNil(&p.Spec.FailurePolicy, admissionv1.Fail)
			defaultMatch(p.Spec.MatchConstraints)
		},
		PrepareForCreate: func(_ context.Context, p *policy) { p.Status = admissionv1.ValidatingAdmissionPolicyStatus{} },
		HasGeneration:    true,
		Validate: func(ctx context.Context, p *policy) field.ErrorList {
			return append(v.validatingPolicy(p, nil), v.access.toKind(ctx, p.Spec.ParamKind)...)
		},
		ValidateUpdate: func(ctx context.Context, p, old *policy) field.ErrorList {
			errs := append(validateMetaUpdate(&p.ObjectMeta, &old.ObjectMeta), v.validatingPolicy(p, old)...)
			if !sameKind(p.Spec.ParamKind, old.Spec.ParamKind) {
				errs = append(errs, v.access.toKind(ctx, p.Spec.ParamKind)...)
			}
			return errs
		},
		ForbidUnconditionalUpdate: true,
		Columns: []kinds.Column[*policy]{
			kinds.NameColumn[*policy](),
			{Name: "Validations", Type: "integer", Description: "Validations indicates the number of validation rules defined in this configuration",
				Cell: func(p *policy) any { return int64(len(p.Spec.Validations)) }},
			{Name: "ParamKind", Description: "ParamKind specifies the kind of resources used to parameterize this policy",
				Cell: func(p *policy) any { return kindCell(p.Spec.ParamKind) }},
			kinds.AgeColumn[*policy](),
		},
		Status: &kinds.Status[*policy]{
			PrepareForUpdate: func(_ context.Context, p, old *policy) {
				p.Spec = old.Spec
				metav1.ResetObjectMetaForStatus(&p.ObjectMeta, &old.ObjectMeta)
			},
			ValidateUpdate: func(_ context.Context, p, old *policy) field.ErrorList {
				return append(apivalidation.ValidateObjectMetaUpdate(&p.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata")),
					validatePolicyStatus(&p.Status, field.NewPath("status"))...)
			},
			ResetFields: []string{"metadata", "spec"},
		},
		Extend: func(env kinds.Env, store, _ *genericregistry.Store, _ map[string]rest.Storage) error {
			v.access.authorizer, v.access.mapper = env.Authorizer, env.Mapper
			v.access.validating = policyGetter(store, func(o runtime.Object) *admissionv1.ParamKind { return o.(*policy).Spec.ParamKind })
			return nil
		},
	}
}

func mutatingPolicies(v *validator) kinds.Resource {
	type policy = admissionv1.MutatingAdmissionPolicy
	return &kinds.Kind[*policy]{
		GroupVersion: admissionv1.SchemeGroupVersion,
		Kind:         "MutatingAdmissionPolicy", Resource: "mutatingadmissionpolicies", Singular: "mutatingadmissionpolicy",
		Categories: []string{"api-extensions"},
		New:        func() *policy { return &policy{} },
		NewList:    func() runtime.Object { return &admissionv1.MutatingAdmissionPolicyList{} },
		Default: func(p *policy) {
			setIfNil(&p.Spec.FailurePolicy, admissionv1.Fail)
			defaultMatch(p.Spec.MatchConstraints)
		},
		HasGeneration: true,
		Validate: func(ctx context.Context, p *policy) field.ErrorList {
			return append(v.mutatingPolicy(p, nil), v.access.toKind(ctx, p.Spec.ParamKind)...)
		},
		ValidateUpdate: func(ctx context.Context, p, old *policy) field.ErrorList {
			errs := append(validateMetaUpdate(&p.ObjectMeta, &old.ObjectMeta), v.mutatingPolicy(p, old)...)
			if !sameKind(p.Spec.ParamKind, old.Spec.ParamKind) {
				errs = append(errs, v.access.toKind(ctx, p.Spec.ParamKind)...)
			}
			return errs
		},
		ForbidUnconditionalUpdate: true,
		Columns: []kinds.Column[*policy]{
			kinds.NameColumn[*policy](),
			{Name: "Mutations", Type: "integer", Description: "Mutation indicates the number of mutations rules defined in this configuration",
				Cell: func(p *policy) any { return int64(len(p.Spec.Mutations)) }},
			{Name: "ParamKind", Description: "ParamKind specifies the kind of resources used to parameterize this policy",
				Cell: func(p *policy) any { return kindCell(p.Spec.ParamKind) }},
			kinds.AgeColumn[*policy](),
		},
		Extend: func(env kinds.Env, store, _ *genericregistry.Store, _ map[string]rest.Storage) error {
			v.access.authorizer, v.access.mapper = env.Authorizer, env.Mapper
			v.access.mutating = policyGetter(store, func(o runtime.Object) *admissionv1.ParamKind { return o.(*policy).Spec.ParamKind })
			return nil
		},
	}
}

func validatingBindings(v *validator) kinds.Resource {
	type binding = admissionv1.ValidatingAdmissionPolicyBinding
	return &kinds.Kind[*binding]{
		GroupVersion: admissionv1.SchemeGroupVersion,
		Kind:         "ValidatingAdmissionPolicyBinding", Resource: "validatingadmissionpolicybindings", Singular: "validatingadmissionpolicybinding",
		Categories:    []string{"api-extensions"},
		New:           func() *binding { return &binding{} },
		NewList:       func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicyBindingList{} },
		Default:       func(b *binding) { defaultMatch(b.Spec.MatchResources) },
		HasGeneration: true,
		Validate: func(ctx context.Context, b *binding) field.ErrorList {
			return append(validateValidatingBinding(b), v.access.toParams(ctx, b.Spec.PolicyName, b.Spec.ParamRef, v.access.validating)...)
		},
		ValidateUpdate: func(ctx context.Context, b, old *binding) field.ErrorList {
			errs := append(validateMetaUpdate(&b.ObjectMeta, &old.ObjectMeta), validateValidatingBinding(b)...)
			if !sameParams(b.Spec.PolicyName, old.Spec.PolicyName, b.Spec.ParamRef, old.Spec.ParamRef) {
				errs = append(errs, v.access.toParams(ctx, b.Spec.PolicyName, b.Spec.ParamRef, v.access.validating)...)
			}
			return errs
		},
		ForbidUnconditionalUpdate: true,
		Columns: bindingColumns(func(b *binding) (string, *admissionv1.ParamRef) { return b.Spec.PolicyName, b.Spec.ParamRef },
			"PolicyName indicates the policy definition which the policy binding binded to"),
	}
}

func mutatingBindings(v *validator) kinds.Resource {
	type binding = admissionv1.MutatingAdmissionPolicyBinding
	return &kinds.Kind[*binding]{
		GroupVersion: admissionv1.SchemeGroupVersion,
		Kind:         "MutatingAdmissionPolicyBinding", Resource: "mutatingadmissionpolicybindings", Singular: "mutatingadmissionpolicybinding",
		Categories:    []string{"api-extensions"},
		New:           func() *binding { return &binding{} },
		NewList:       func() runtime.Object { return &admissionv1.MutatingAdmissionPolicyBindingList{} },
		Default:       func(b *binding) { defaultMatch(b.Spec.MatchResources) },
		HasGeneration: true,
		Validate: func(ctx context.Context, b *binding) field.ErrorList {
			return append(validateMutatingBinding(b), v.access.toParams(ctx, b.Spec.PolicyName, b.Spec.ParamRef, v.access.mutating)...)
		},
		ValidateUpdate: func(ctx context.Context, b, old *binding) field.ErrorList {
			errs := append(validateMetaUpdate(&b.ObjectMeta, &old.ObjectMeta), validateMutatingBinding(b)...)
			if !sameParams(b.Spec.PolicyName, old.Spec.PolicyName, b.Spec.ParamRef, old.Spec.ParamRef) {
				errs = append(errs, v.access.toParams(ctx, b.Spec.PolicyName, b.Spec.ParamRef, v.access.mutating)...)
			}
			return errs
		},
		ForbidUnconditionalUpdate: true,
		Columns: bindingColumns(func(b *binding) (string, *admissionv1.ParamRef) { return b.Spec.PolicyName, b.Spec.ParamRef },
			"PolicyName indicates the policy definition which the policy binding binded to"),
	}
}

func bindingColumns[T kinds.Object](of func(T) (string, *admissionv1.ParamRef), description string) []kinds.Column[T] {
	return []kinds.Column[T]{
		kinds.NameColumn[T](),
		{Name: "PolicyName", Description: description, Cell: func(b T) any {
			policy, _ := of(b)
			return policy
		}},
		{Name: "ParamRef", Description: "ParamRef indicates the param resource which sets the configration param", Cell: func(b T) any {
			_, ref := of(b)
			return refCell(ref)
		}},
		kinds.AgeColumn[T](),
	}
}

func kindCell(kind *admissionv1.ParamKind) string {
	if kind == nil {
		return unset
	}
	return kind.APIVersion + "/" + kind.Kind
}

func refCell(ref *admissionv1.ParamRef) string {
	switch {
	case ref == nil:
		return unset
	case ref.Name != "" && ref.Namespace != "":
		return ref.Namespace + "/" + ref.Name
	case ref.Name != "":
		return ref.Name
	case ref.Selector != nil:
		return ref.Selector.String()
	}
	return unset
}

func defaultMatch(m *admissionv1.MatchResources) {
	if m == nil {
		return
	}
	setIfNil(&m.MatchPolicy, admissionv1.Equivalent)
	setIfNil(&m.NamespaceSelector, metav1.LabelSelector{})
	setIfNil(&m.ObjectSelector, metav1.LabelSelector{})
	for _, rules := range [][]admissionv1.NamedRuleWithOperations{m.ResourceRules, m.ExcludeResourceRules} {
		for i := range rules {
			setIfNil(&rules[i].Scope, admissionv1.AllScopes)
		}
	}
}
