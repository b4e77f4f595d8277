// Package admission is the chain of checks and changes between authorization and storage, in the order and with the
// answers of kube-apiserver's default plug-ins.
//
// A plug-in here is a small struct over listers; none keeps state or goroutines of its own, all are safe for
// concurrent use. Look-ups ask the lister first and the API where the lister knows nothing yet, so that what was made
// a moment ago counts. Objects from listers are never changed.
package admission

import (
	"context"
	"errors"
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// DefaultTolerationSeconds is how long a pod stays by default on a node that is not ready or unreachable: Podvine's
// eviction delay.
const DefaultTolerationSeconds = 5

// Config says what the plug-ins read. Client, Informers and Authorizer are required.
type Config struct {
	// Client goes through the whole API in process, as a user who may read everything.
	Client kubernetes.Interface
	// Informers must not have been started; those of namespaces, service accounts, pods, nodes, priority classes and runtime classes are used.
	Informers  informers.SharedInformerFactory
	Authorizer authorizer.Authorizer
	// TolerationSeconds is what DefaultTolerationSeconds writes, asked for each pod; nil is [DefaultTolerationSeconds].
	TolerationSeconds func() int64
	// More plug-ins follow the usual ones and see what webhooks and policies have made of an object.
	More []Named
	// SecurityPolicies are the PodSecurityPolicies; nil admits pods without asking for any.
	SecurityPolicies cache.SharedIndexInformer
	// Serves tells whether a kind is served: plug-ins of others are left out. Nil serves none that is asked for.
	Serves func(schema.GroupVersionResource) bool
	// Extensions are what webhooks and policies need; nil leaves them out.
	Extensions *Extensions
}

// Chain is the finished chain.
type Chain struct {
	*again
	extensions *extensions
}

// Named is a plug-in under the name that metrics call it by: Kubernetes' where it is one of Kubernetes'.
type Named struct {
	Name   string
	Plugin admission.Interface
}

var (
	_ admission.MutationInterface   = (*Chain)(nil)
	_ admission.ValidationInterface = (*Chain)(nil)
)

// Start compiles policies and follows their changes until ctx ends. Before it, requests wait for policies.
func (c *Chain) Start(ctx context.Context) error {
	if c.extensions == nil {
		return nil
	}
	return c.extensions.start(ctx)
}

// New makes the chain.
func New(config Config) (*Chain, error) {
	if config.Client == nil || config.Informers == nil || config.Authorizer == nil {
		return nil, errors.New("make admission chain: client, informers and authorizer are needed")
	}
	if config.TolerationSeconds == nil {
		config.TolerationSeconds = func() int64 { return DefaultTolerationSeconds }
	}
	life, err := lifecycle.NewLifecycle(sets.New(metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic))
	if err != nil {
		return nil, fmt.Errorf("make admission chain: %w", err)
	}
	life.SetExternalKubeInformerFactory(config.Informers)
	life.SetExternalKubeClientSet(config.Client)
	if err := life.ValidateInitialization(); err != nil {
		return nil, fmt.Errorf("make admission chain: %w", err)
	}
	security, err := newPodSecurity(config.Client, config.Informers)
	if err != nil {
		return nil, err
	}
	usual := []Named{
		{lifecycle.PluginName, life},
		{"LimitRanger", newLimitRanger(config)},
		{"ServiceAccount", newServiceAccounts(config.Client, config.Informers)},
		{"NodeRestriction", newNodeRestriction(config.Client, config.Informers)},
		{"TaintNodesByCondition", newNodeTaints()},
		{"PodSecurity", security}, // before policies, so that it warns and audits also where those refuse
	}
	if config.SecurityPolicies != nil {
		usual = append(usual, Named{"PodSecurityPolicy", newSecurityPolicies(config.SecurityPolicies, config.Authorizer)})
	}
	usual = append(usual, []Named{
		{"Priority", newPriority(config.Client, config.Informers)},
		{"DefaultTolerationSeconds", newTolerations(config.TolerationSeconds)},
	}...)
	usual = append(usual, storagePlugins(config)...)
	usual = append(usual, Named{"RuntimeClass", newRuntimeClasses(config)})
	usual = append(usual, laterPlugins(config)...)
	usual = append(usual, Named{"PodTopologyLabels", newTopologyLabels(config)})
	chain := &Chain{}
	if config.Extensions != nil {
		if chain.extensions, err = newExtensions(config); err != nil {
			return nil, err
		}
		usual = append(usual, chain.extensions.plugins...)
	}
	usual = append(usual, Named{"ResourceQuota", newQuotas(config)})
	found, err := findHistograms()
	if err != nil {
		return nil, err
	}
	all, err := newSteps(append(usual, config.More...), found)
	if err != nil {
		return nil, err
	}
	chain.again, err = all.rerun()
	return chain, err
}

// storagePlugins are those of storage classes, once those are served.
func storagePlugins(config Config) []Named {
	if !config.serves(storagev1.SchemeGroupVersion.WithResource("storageclasses")) {
		return nil
	}
	return []Named{
		{"DefaultStorageClass", &claimClasses{newStorageClasses(config, admission.Create)}},
		{"PersistentVolumeClaimResize", &claimGrowth{newStorageClasses(config, admission.Update)}},
	}
}

// laterPlugins are those of certificates and ingresses, once their kinds are served.
func laterPlugins(config Config) (plugins []Named) {
	if config.serves(certificatesv1.SchemeGroupVersion.WithResource("certificatesigningrequests")) {
		asking := signers{admission.NewHandler(admission.Update), config.Authorizer}
		plugins = append(plugins, Named{"CertificateApproval", &approvals{asking}}, Named{"CertificateSigning", &signatures{asking}},
			Named{"ClusterTrustBundleAttest", &attestations{signers{admission.NewHandler(admission.Create, admission.Update), config.Authorizer}}},
			Named{"CertificateSubjectRestriction", &subjects{admission.NewHandler(admission.Create)}})
	}
	if config.serves(networkingv1.SchemeGroupVersion.WithResource("ingressclasses")) {
		plugins = append(plugins, Named{"DefaultIngressClass", newIngressClasses(config)})
	}
	return plugins
}

func (c *Config) serves(resource schema.GroupVersionResource) bool {
	return c.Serves != nil && c.Serves(resource)
}

// The resources that plug-ins here look at.
func pods() schema.GroupResource       { return schema.GroupResource{Resource: "pods"} }
func nodes() schema.GroupResource      { return schema.GroupResource{Resource: "nodes"} }
func namespaces() schema.GroupResource { return schema.GroupResource{Resource: "namespaces"} }
func accounts() schema.GroupResource   { return schema.GroupResource{Resource: "serviceaccounts"} }
func leases() schema.GroupResource {
	return schema.GroupResource{Group: "coordination.k8s.io", Resource: "leases"}
}
func storageNodes() schema.GroupResource {
	return schema.GroupResource{Group: "storage.k8s.io", Resource: "csinodes"}
}
func priorityClasses() schema.GroupResource {
	return schema.GroupResource{Group: "scheduling.k8s.io", Resource: "priorityclasses"}
}

// concerns says that a request is about a resource or, where not "", its sub-resource.
func concerns(a admission.Attributes, resource schema.GroupResource, subresource string) bool {
	return a.GetResource().GroupResource() == resource && a.GetSubresource() == subresource
}

// object returns the object of a request as what it must be.
func object[T any](a admission.Attributes) (T, error) {
	o, ok := a.GetObject().(T)
	if !ok {
		return o, unexpected(a.GetObject())
	}
	return o, nil
}

// oldObject returns the stored object of an update as what it must be.
func oldObject[T any](a admission.Attributes) (T, error) {
	o, ok := a.GetOldObject().(T)
	if !ok {
		return o, unexpected(a.GetOldObject())
	}
	return o, nil
}

func unexpected(o any) error { return apierrors.NewBadRequest(fmt.Sprintf("unexpected type %T", o)) }

// forbidden refuses a request.
func forbidden(a admission.Attributes, format string, args ...any) error {
	return admission.NewForbidden(a, fmt.Errorf(format, args...))
}
