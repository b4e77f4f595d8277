package admission

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	mutatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/mutating"
	validatingpolicy "k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	webhookinitializer "k8s.io/apiserver/pkg/admission/plugin/webhook/initializer"
	mutatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	validatingwebhook "k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/component-base/compatibility"
)

// Extensions are what webhooks and policies need beyond the other plug-ins. All fields are required.
type Extensions struct {
	// Dynamic is a client like Config.Client, for parameters of any kind.
	Dynamic dynamic.Interface
	// Mapper finds the resource of a kind of parameters.
	Mapper meta.RESTMapper
	// Services finds where the service behind a webhook listens.
	Services webhook.ServiceResolver
	// Authentication says how the API shows itself to webhooks.
	Authentication webhook.AuthenticationInfoResolverWrapper
	// Version is the version of Kubernetes that is served.
	Version compatibility.EffectiveVersion
}

// extensions are the plug-ins by which users extend admission: the library's, in Kubernetes' order.
type extensions struct {
	plugins []Named
	// policies are made ready by start, because that starts goroutines.
	policies []admission.InitializationValidator
	factory  *steadyFactory
	ended    chan struct{}
}

// policyPlugin is the half of a policy plug-in that both kinds have.
type policyPlugin interface {
	admission.InitializationValidator
	SetReadyFunc(admission.ReadyFunc)
}

func newExtensions(config Config) (*extensions, error) {
	x := &extensions{factory: &steadyFactory{SharedInformerFactory: config.Informers}, ended: make(chan struct{})}
	mutatingPolicies, err := mutatingpolicy.NewPlugin(nil)
	if err != nil {
		return nil, fmt.Errorf("make mutating policies: %w", err)
	}
	validatingPolicies, err := validatingpolicy.NewPlugin(nil)
	if err != nil {
		return nil, fmt.Errorf("make validating policies: %w", err)
	}
	e := config.Extensions
	all := admission.PluginInitializers{
		initializer.New(config.Client, e.Dynamic, x.factory, config.Authorizer, utilfeature.DefaultFeatureGate, e.Version, x.ended, e.Mapper),
		webhookinitializer.NewPluginInitializer(e.Authentication, e.Services),
	}
	initialize := func(plugin admission.Interface) {
		if wants, ok := plugin.(initializer.WantsExcludedAdmissionResources); ok {
			wants.SetExcludedAdmissionResources(virtual())
		}
		all.Initialize(plugin)
	}
	initialize(mutatingPolicies)
	initialize(validatingPolicies)
	client, err := newQuietClient(config.Client, config.Informers, x.ended)
	if err != nil {
		return nil, err
	}
	mutatingPolicies.SetExternalKubeClientSet(client)
	for _, policies := range []policyPlugin{mutatingPolicies, validatingPolicies} {
		policies.SetReadyFunc(func() bool { return false })
		x.policies = append(x.policies, policies)
	}
	x.link(config.Informers, mutatingPolicies, validatingPolicies, initialize)
	return x, nil
}

// link puts the four plug-ins into Kubernetes' order.
func (x *extensions) link(factory informers.SharedInformerFactory, mutatingPolicies admission.MutationInterface,
	validatingPolicies admission.ValidationInterface, initialize func(admission.Interface)) {
	all := []admission.Operation{admission.Connect, admission.Create, admission.Delete, admission.Update}
	registrations := factory.Admissionregistration().V1()
	x.plugins = []Named{
		{mutatingpolicy.PluginName, &mutators{whenConfigured(registrations.MutatingAdmissionPolicies().Informer(),
			func() (admission.MutationInterface, error) { return mutatingPolicies, nil }, admission.Create, admission.Update, admission.Connect)}},
		{mutatingwebhook.PluginName, &mutators{whenConfigured(registrations.MutatingWebhookConfigurations().Informer(),
			func() (admission.MutationInterface, error) {
				plugin, err := mutatingwebhook.NewMutatingWebhook(nil)
				if err != nil {
					return nil, err
				}
				initialize(plugin)
				return plugin, plugin.ValidateInitialization()
			}, all...)}},
		{validatingpolicy.PluginName, &validators{whenConfigured(registrations.ValidatingAdmissionPolicies().Informer(),
			func() (admission.ValidationInterface, error) { return validatingPolicies, nil }, all...)}},
		{validatingwebhook.PluginName, &validators{whenConfigured(registrations.ValidatingWebhookConfigurations().Informer(),
			func() (admission.ValidationInterface, error) {
				plugin, err := validatingwebhook.NewValidatingAdmissionWebhook(nil)
				if err != nil {
					return nil, err
				}
				initialize(plugin)
				return plugin, plugin.ValidateInitialization()
			}, all...)}},
	}
}

// start makes the policies ready. Their goroutines end with ctx.
func (x *extensions) start(ctx context.Context) error {
	context.AfterFunc(ctx, func() { close(x.ended) })
	x.factory.ended = ctx.Done()
	for _, policies := range x.policies {
		if err := policies.ValidateInitialization(); err != nil {
			return fmt.Errorf("start admission policies: %w", err)
		}
	}
	return nil
}

// steadyFactory starts informers for as long as the server lives: the library would end the informer of a built-in kind,
// which others share, with the last policy that has parameters of that kind.
type steadyFactory struct {
	informers.SharedInformerFactory
	ended <-chan struct{}
}

// Start implements informers.SharedInformerFactory.
func (f *steadyFactory) Start(<-chan struct{}) { f.SharedInformerFactory.Start(f.ended) }

// virtual are the resources that are answered and never stored, in the path of each request's own authorization.
func virtual() []schema.GroupResource {
	return []schema.GroupResource{
		{Group: "authentication.k8s.io", Resource: "selfsubjectreviews"},
		{Group: "authentication.k8s.io", Resource: "tokenreviews"},
		{Group: "authorization.k8s.io", Resource: "localsubjectaccessreviews"},
		{Group: "authorization.k8s.io", Resource: "selfsubjectaccessreviews"},
		{Group: "authorization.k8s.io", Resource: "selfsubjectrulesreviews"},
		{Group: "authorization.k8s.io", Resource: "subjectaccessreviews"},
	}
}
