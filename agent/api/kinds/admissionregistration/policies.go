package admissionregistration

import (
	"context"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
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
			return append(errs, v.access.toChangedKind(ctx, p.Spec.ParamKind, old.Spec.ParamKind)...)
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
			return append(errs, v.access.toChangedKind(ctx, p.Spec.ParamKind, old.Spec.ParamKind)...)
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
	k := bindings(v, validateValidatingBinding, func(b *binding) *admissionv1.MatchResources { return b.Spec.MatchResources },
		func(b *binding) (string, *admissionv1.ParamRef) { return b.Spec.PolicyName, b.Spec.ParamRef }, &v.access.validating)
	k.Kind, k.Resource, k.Singular = "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", "validatingadmissionpolicybinding"
	k.New = func() *binding { return &binding{} }
	k.NewList = func() runtime.Object { return &admissionv1.ValidatingAdmissionPolicyBindingList{} }
	return k
}

func mutatingBindings(v *validator) kinds.Resource {
	type binding = admissionv1.MutatingAdmissionPolicyBinding
	k := bindings(v, validateMutatingBinding, func(b *binding) *admissionv1.MatchResources { return b.Spec.MatchResources },
		func(b *binding) (string, *admissionv1.ParamRef) { return b.Spec.PolicyName, b.Spec.ParamRef }, &v.access.mutating)
	k.Kind, k.Resource, k.Singular = "MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings", "mutatingadmissionpolicybinding"
	k.New = func() *binding { return &binding{} }
	k.NewList = func() runtime.Object { return &admissionv1.MutatingAdmissionPolicyBindingList{} }
	return k
}

// bindings are what the two kinds have in common. kindOf tells, once the policies are installed, what parameters theirs have.
func bindings[T kinds.Object](v *validator, check func(T) field.ErrorList, match func(T) *admissionv1.MatchResources,
	of func(T) (policy string, parameters *admissionv1.ParamRef), kindOf *func(context.Context, string) *admissionv1.ParamKind) *kinds.Kind[T] {
	mayRead := func(ctx context.Context, b T) field.ErrorList {
		policy, parameters := of(b)
		return v.access.toParams(ctx, policy, parameters, *kindOf)
	}
	return &kinds.Kind[T]{
		GroupVersion:  admissionv1.SchemeGroupVersion,
		Categories:    []string{"api-extensions"},
		Default:       func(b T) { defaultMatch(match(b)) },
		HasGeneration: true,
		Validate:      func(ctx context.Context, b T) field.ErrorList { return append(check(b), mayRead(ctx, b)...) },
		ValidateUpdate: func(ctx context.Context, b, old T) field.ErrorList {
			errs := append(apivalidation.ValidateObjectMetaAccessorUpdate(b, old, field.NewPath("metadata")), check(b)...)
			policy, parameters := of(b)
			oldPolicy, oldParameters := of(old)
			if policy != oldPolicy || !equality.Semantic.DeepEqual(parameters, oldParameters) {
				errs = append(errs, mayRead(ctx, b)...)
			}
			return errs
		},
		ForbidUnconditionalUpdate: true,
		Columns:                   bindingColumns(of, "PolicyName indicates the policy definition which the policy binding binded to"),
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
