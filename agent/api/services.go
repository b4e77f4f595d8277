package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	"k8s.io/apiextensions-apiserver/pkg/apihelpers"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apiserver"
	apiextensionsclient "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregatorclient "k8s.io/kube-aggregator/pkg/client/clientset_generated/clientset"
	apiregistrationlisters "k8s.io/kube-aggregator/pkg/client/listers/apiregistration/v1"
	"k8s.io/kube-aggregator/pkg/controllers/autoregister"
)

const (
	// registrationWorkers sync API services at a time.
	registrationWorkers = 5
	// Custom groups come after all built-in ones, their versions in an order of their own.
	customGroupPriority, customVersionPriority = 1000, 100
)

// groupPriorities order discovery and decide which group answers for a short name, as on Kubernetes.
func groupPriorities() map[schema.GroupVersion]struct{ group, version int32 } {
	return map[schema.GroupVersion]struct{ group, version int32 }{
		{Version: "v1"}:                                        {18000, 1},
		{Group: "apps", Version: "v1"}:                         {17800, 15},
		{Group: "events.k8s.io", Version: "v1"}:                {17750, 15},
		{Group: "authentication.k8s.io", Version: "v1"}:        {17700, 15},
		{Group: "authorization.k8s.io", Version: "v1"}:         {17600, 15},
		{Group: "autoscaling", Version: "v1"}:                  {17500, 15},
		{Group: "autoscaling", Version: "v2"}:                  {17500, 30},
		{Group: "batch", Version: "v1"}:                        {17400, 15},
		{Group: "certificates.k8s.io", Version: "v1"}:          {17300, 15},
		{Group: "networking.k8s.io", Version: "v1"}:            {17200, 15},
		{Group: "policy", Version: "v1"}:                       {17100, 15},
		{Group: "policy", Version: "v1beta1"}:                  {17100, 9},
		{Group: "rbac.authorization.k8s.io", Version: "v1"}:    {17000, 15},
		{Group: "storage.k8s.io", Version: "v1"}:               {16800, 15},
		{Group: "apiextensions.k8s.io", Version: "v1"}:         {16700, 15},
		{Group: "admissionregistration.k8s.io", Version: "v1"}: {16700, 15},
		{Group: "scheduling.k8s.io", Version: "v1"}:            {16600, 15},
		{Group: "coordination.k8s.io", Version: "v1"}:          {16500, 15},
		{Group: "node.k8s.io", Version: "v1"}:                  {16300, 15},
		{Group: "discovery.k8s.io", Version: "v1"}:             {16200, 15},
		{Group: "flowcontrol.apiserver.k8s.io", Version: "v1"}: {16100, 21},
		{Group: "resource.k8s.io", Version: "v1"}:              {16200, 21},
		{Group: "storagemigration.k8s.io", Version: "v1"}:      {15800, 15},
	}
}

func apiService(version schema.GroupVersion, group, priority int32) *apiregistrationv1.APIService {
	return &apiregistrationv1.APIService{
		ObjectMeta: metav1.ObjectMeta{Name: groupVersionName(version)},
		Spec: apiregistrationv1.APIServiceSpec{
			Group: version.Group, Version: version.Version, GroupPriorityMinimum: group, VersionPriority: priority},
	}
}

// localGroups are the group versions of built-in kinds, and that of custom resource definitions.
func (s *Server) localGroups() []schema.GroupVersion {
	seen := map[schema.GroupVersion]bool{apiextensionsv1.SchemeGroupVersion: true}
	groups := []schema.GroupVersion{apiextensionsv1.SchemeGroupVersion}
	for _, r := range s.resources {
		if version := r.GVR().GroupVersion(); !seen[version] {
			seen[version] = true
			groups = append(groups, version)
		}
	}
	return groups
}

// registerServices keeps an API service for each local group version and for each served version of a custom
// resource, and removes that of a version that is gone.
func (s *Server) registerServices(extensions *apiextensions.CustomResourceDefinitions) error {
	client, err := aggregatorclient.NewForConfig(s.aggregator.GenericAPIServer.LoopbackClientConfig)
	if err != nil {
		return err
	}
	services := s.aggregator.APIRegistrationInformers.Apiregistration().V1().APIServices()
	register := autoregister.NewAutoRegisterController(services, client.ApiregistrationV1())
	priorities := groupPriorities()
	var names []string
	for _, version := range s.localGroups() {
		p, ok := priorities[version]
		if !ok {
			return fmt.Errorf("group version %s has no priority", version)
		}
		service := apiService(version, p.group, p.version)
		names = append(names, service.Name)
		register.AddAPIServiceToSyncOnStart(service)
	}
	definitions := extensions.Informers.Apiextensions().V1().CustomResourceDefinitions()
	custom := &customGroups{register: register, lister: func() ([]*apiextensionsv1.CustomResourceDefinition, error) {
		return definitions.Lister().List(labels.Everything())
	}}
	registration, err := definitions.Informer().AddEventHandler(custom)
	if err != nil {
		return err
	}
	if err := s.tellKinds(services.Informer(), definitions.Informer()); err != nil {
		return err
	}
	server := s.aggregator.GenericAPIServer
	extended, err := apiextensionsclient.NewForConfig(server.LoopbackClientConfig)
	if err != nil {
		return err
	}
	check := &readyServices{names: names, lister: services.Lister(), discovery: client.Discovery().RESTClient(), definitions: extended}
	if err := server.AddReadyzChecks(check); err != nil {
		return err
	}
	return server.AddPostStartHook("kube-apiserver-autoregistration", func(hook genericapiserver.PostStartHookContext) error {
		go func() {
			// Before the definitions are known, the services of stored custom groups would look superfluous.
			if cache.WaitForCacheSync(hook.Done(), registration.HasSynced) {
				register.Run(registrationWorkers, hook.Done())
			}
		}()
		return nil
	})
}

// tellKinds has changes told of the objects from which discovery is made.
func (s *Server) tellKinds(informers ...cache.SharedIndexInformer) error {
	if s.config.KindsChanged == nil {
		return nil
	}
	for _, informer := range informers {
		_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { s.config.KindsChanged() },
			UpdateFunc: func(old, changed any) {
				before, _ := old.(metav1.Object)
				after, _ := changed.(metav1.Object)
				if before == nil || after == nil || before.GetResourceVersion() != after.GetResourceVersion() { // not a resync
					s.config.KindsChanged()
				}
			},
			DeleteFunc: func(any) { s.config.KindsChanged() },
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// readyServices is ready when discovery shows all groups: those of built-in kinds, and those of the custom resources that
// were there when this server started. It looks at what clients are served, because informers that have synced say nothing
// on a replica whose records were still to come.
type readyServices struct {
	names       []string
	lister      apiregistrationlisters.APIServiceLister
	discovery   rest.Interface
	definitions apiextensionsclient.Interface
	ready       atomic.Bool // once complete, later changes are the business of the availability conditions
}

// Name implements healthz.HealthChecker.
func (*readyServices) Name() string { return "autoregister-completion" }

// Check implements healthz.HealthChecker.
func (c *readyServices) Check(r *http.Request) error {
	if c.ready.Load() {
		return nil
	}
	var missing []error
	for _, name := range c.names {
		service, err := c.lister.Get(name)
		if err != nil || !available(service) {
			missing = append(missing, fmt.Errorf("missing APIService %s", name))
		}
	}
	if err := errors.Join(missing...); err != nil {
		return err
	}
	definitions, err := c.definitions.ApiextensionsV1().CustomResourceDefinitions().List(r.Context(), metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list definitions of custom resources: %w", err)
	}
	const form = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	raw, err := c.discovery.Get().AbsPath("/apis").SetHeader("Accept", form).Do(r.Context()).Raw()
	if err != nil {
		return fmt.Errorf("discover: %w", err)
	}
	var shown apidiscoveryv2.APIGroupDiscoveryList
	if err := json.Unmarshal(raw, &shown); err != nil {
		return fmt.Errorf("discover: %w", err)
	}
	elsewhere := func(version schema.GroupVersion) bool { // another server answers for the group
		service, err := c.lister.Get(groupVersionName(version))
		return err == nil && service.Spec.Service != nil
	}
	if err := undiscovered(definitions.Items, &shown, elsewhere); err != nil {
		return err
	}
	c.ready.Store(true)
	return nil
}

// undiscovered names an established custom resource that is served here and that discovery does not show. It is pure.
func undiscovered(definitions []apiextensionsv1.CustomResourceDefinition, shown *apidiscoveryv2.APIGroupDiscoveryList, elsewhere func(schema.GroupVersion) bool) error {
	found := map[schema.GroupVersionResource]bool{}
	for _, group := range shown.Items {
		for _, version := range group.Versions {
			for _, resource := range version.Resources {
				found[schema.GroupVersionResource{Group: group.Name, Version: version.Version, Resource: resource.Resource}] = true
			}
		}
	}
	for i := range definitions {
		d := &definitions[i]
		if !apihelpers.IsCRDConditionTrue(d, apiextensionsv1.Established) || d.DeletionTimestamp != nil {
			continue
		}
		for _, v := range d.Spec.Versions {
			version := schema.GroupVersion{Group: d.Spec.Group, Version: v.Name}
			if v.Served && !found[version.WithResource(d.Spec.Names.Plural)] && !elsewhere(version) {
				return fmt.Errorf("missing in discovery: %s of %s", d.Spec.Names.Plural, version)
			}
		}
	}
	return nil
}

func available(service *apiregistrationv1.APIService) bool {
	for _, c := range service.Status.Conditions {
		if c.Type == apiregistrationv1.Available {
			return c.Status == apiregistrationv1.ConditionTrue
		}
	}
	return false
}

// customGroups tells the registration which versions of custom groups are served. It handles events of definitions,
// one at a time as informers deliver them.
type customGroups struct {
	register autoregister.AutoAPIServiceRegistration
	lister   func() ([]*apiextensionsv1.CustomResourceDefinition, error)
}

// OnAdd implements cache.ResourceEventHandler.
func (g *customGroups) OnAdd(obj any, _ bool) { g.sync(obj) }

// OnUpdate implements cache.ResourceEventHandler.
func (g *customGroups) OnUpdate(old, obj any) {
	g.sync(old)
	g.sync(obj)
}

// OnDelete implements cache.ResourceEventHandler.
func (g *customGroups) OnDelete(obj any) {
	if gone, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	g.sync(obj)
}

// sync decides for each version of a definition's group anew, from all definitions.
func (g *customGroups) sync(obj any) {
	changed, ok := obj.(*apiextensionsv1.CustomResourceDefinition)
	if !ok {
		return
	}
	all, err := g.lister()
	if err != nil {
		return // a lister over a cache has no errors
	}
	served := map[schema.GroupVersion]bool{}
	for _, definition := range all {
		for _, v := range definition.Spec.Versions {
			if v.Served {
				served[schema.GroupVersion{Group: definition.Spec.Group, Version: v.Name}] = true
			}
		}
	}
	for _, v := range changed.Spec.Versions {
		version := schema.GroupVersion{Group: changed.Spec.Group, Version: v.Name}
		if served[version] {
			g.register.AddAPIServiceToSync(apiService(version, customGroupPriority, customVersionPriority))
		} else {
			g.register.RemoveAPIServiceToSync(groupVersionName(version))
		}
	}
}
