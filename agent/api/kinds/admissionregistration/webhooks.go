// Package admissionregistration is the kinds that extend admission: webhook configurations, and policies in CEL with their
// bindings. Expressions are compiled when they are written, with the environments that evaluate them later.
//
// The kinds share compilers, which are made at their first use and safe for concurrent use, and what tells who may read the
// parameters of a policy; beyond that they hold no state.
package admissionregistration

import (
	"context"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
)

const (
	defaultWebhookPort           = 443
	defaultWebhookTimeoutSeconds = 10
)

// Resources returns the six kinds.
func Resources() []kinds.Resource {
	v := &validator{cel: newCompilers(), access: &access{}}
	return []kinds.Resource{
		mutatingWebhooks(v), validatingWebhooks(v),
		validatingPolicies(v), validatingBindings(v), mutatingPolicies(v), mutatingBindings(v),
	}
}

func validatingWebhooks(v *validator) kinds.Resource {
	type configuration = admissionv1.ValidatingWebhookConfiguration
	return &kinds.Kind[*configuration]{
		GroupVersion: admissionv1.SchemeGroupVersion,
		Kind:         "ValidatingWebhookConfiguration", Resource: "validatingwebhookconfigurations", Singular: "validatingwebhookconfiguration",
		Categories: []string{"api-extensions"},
		New:        func() *configuration { return &configuration{} },
		NewList:    func() runtime.Object { return &admissionv1.ValidatingWebhookConfigurationList{} },
		Default: func(c *configuration) {
			for i := range c.Webhooks {
				w := &c.Webhooks[i]
				defaultHook(hookOf(w))
			}
		},
		PrepareForCreate: func(_ context.Context, c *configuration) { c.Generation = 1 },
		PrepareForUpdate: func(_ context.Context, c, old *configuration) {
			countGeneration(c, old, equality.Semantic.DeepEqual(c.Webhooks, old.Webhooks))
		},
		Validate: func(_ context.Context, c *configuration) field.ErrorList {
			return append(validateMeta(&c.ObjectMeta), v.hooks(validatingHooks(c), nil)...)
		},
		ValidateUpdate: func(_ context.Context, c, old *configuration) field.ErrorList {
			return append(validateMetaUpdate(&c.ObjectMeta, &old.ObjectMeta), v.hooks(validatingHooks(c), validatingHooks(old))...)
		},
		ForbidUnconditionalUpdate: true,
		Columns:                   webhookColumns(func(c *configuration) int { return len(c.Webhooks) }),
	}
}

func mutatingWebhooks(v *validator) kinds.Resource {
	type configuration = admissionv1.MutatingWebhookConfiguration
	return &kinds.Kind[*configuration]{
		GroupVersion: admissionv1.SchemeGroupVersion,
		Kind:         "MutatingWebhookConfiguration", Resource: "mutatingwebhookconfigurations", Singular: "mutatingwebhookconfiguration",
		Categories: []string{"api-extensions"},
		New:        func() *configuration { return &configuration{} },
		NewList:    func() runtime.Object { return &admissionv1.MutatingWebhookConfigurationList{} },
		Default: func(c *configuration) {
			for i := range c.Webhooks {
				w := &c.Webhooks[i]
				defaultHook(mutatingHookOf(w))
				setIfNil(&w.ReinvocationPolicy, admissionv1.NeverReinvocationPolicy)
			}
		},
		PrepareForCreate: func(_ context.Context, c *configuration) { c.Generation = 1 },
		PrepareForUpdate: func(_ context.Context, c, old *configuration) {
			countGeneration(c, old, equality.Semantic.DeepEqual(c.Webhooks, old.Webhooks))
		},
		Validate: func(_ context.Context, c *configuration) field.ErrorList {
			return append(validateMeta(&c.ObjectMeta), v.hooks(mutatingHooks(c), nil)...)
		},
		ValidateUpdate: func(_ context.Context, c, old *configuration) field.ErrorList {
			return append(validateMetaUpdate(&c.ObjectMeta, &old.ObjectMeta), v.hooks(mutatingHooks(c), mutatingHooks(old))...)
		},
		ForbidUnconditionalUpdate: true,
		Columns:                   webhookColumns(func(c *configuration) int { return len(c.Webhooks) }),
	}
}

func webhookColumns[T kinds.Object](count func(T) int) []kinds.Column[T] {
	return []kinds.Column[T]{
		kinds.NameColumn[T](),
		{Name: "Webhooks", Type: "integer", Description: "Webhooks indicates the number of webhooks defined in this configuration",
			Cell: func(c T) any { return int64(count(c)) }},
		kinds.AgeColumn[T](),
	}
}

// hook is what both kinds of webhooks have: pointers into the object.
type hook struct {
	name              string
	client            *admissionv1.WebhookClientConfig
	rules             []admissionv1.RuleWithOperations
	failure           **admissionv1.FailurePolicyType
	match             **admissionv1.MatchPolicyType
	namespaces        **metav1.LabelSelector
	objects           **metav1.LabelSelector
	sideEffects       *admissionv1.SideEffectClass
	timeout           **int32
	versions          []string
	conditions        []admissionv1.MatchCondition
	reinvocation      *admissionv1.ReinvocationPolicyType
	mayNameReinvoking bool
}

func hookOf(w *admissionv1.ValidatingWebhook) hook {
	return hook{name: w.Name, client: &w.ClientConfig, rules: w.Rules, failure: &w.FailurePolicy, match: &w.MatchPolicy,
		namespaces: &w.NamespaceSelector, objects: &w.ObjectSelector, sideEffects: w.SideEffects, timeout: &w.TimeoutSeconds,
		versions: w.AdmissionReviewVersions, conditions: w.MatchConditions}
}

func mutatingHookOf(w *admissionv1.MutatingWebhook) hook {
	return hook{name: w.Name, client: &w.ClientConfig, rules: w.Rules, failure: &w.FailurePolicy, match: &w.MatchPolicy,
		namespaces: &w.NamespaceSelector, objects: &w.ObjectSelector, sideEffects: w.SideEffects, timeout: &w.TimeoutSeconds,
		versions: w.AdmissionReviewVersions, conditions: w.MatchConditions, reinvocation: w.ReinvocationPolicy, mayNameReinvoking: true}
}

func validatingHooks(c *admissionv1.ValidatingWebhookConfiguration) []hook {
	hooks := make([]hook, len(c.Webhooks))
	for i := range c.Webhooks {
		hooks[i] = hookOf(&c.Webhooks[i])
	}
	return hooks
}

func mutatingHooks(c *admissionv1.MutatingWebhookConfiguration) []hook {
	hooks := make([]hook, len(c.Webhooks))
	for i := range c.Webhooks {
		hooks[i] = mutatingHookOf(&c.Webhooks[i])
	}
	return hooks
}

func defaultHook(h hook) {
	setIfNil(h.failure, admissionv1.Fail)
	setIfNil(h.match, admissionv1.Equivalent)
	setIfNil(h.namespaces, metav1.LabelSelector{})
	setIfNil(h.objects, metav1.LabelSelector{})
	setIfNil(h.timeout, defaultWebhookTimeoutSeconds)
	for i := range h.rules {
		setIfNil(&h.rules[i].Scope, admissionv1.AllScopes)
	}
	if h.client.Service != nil {
		setIfNil(&h.client.Service.Port, defaultWebhookPort)
	}
}

// setIfNil makes a pointer that is nil point to the value.
func setIfNil[T any](p **T, value T) {
	if *p == nil {
		*p = &value
	}
}

// countGeneration counts a change.
func countGeneration(obj, old metav1.Object, same bool) {
	obj.SetGeneration(old.GetGeneration())
	if !same {
		obj.SetGeneration(old.GetGeneration() + 1)
	}
}
