package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apiserver"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	genericapifilters "k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	registryrest "k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
	utilflowcontrol "k8s.io/apiserver/pkg/util/flowcontrol"
	"k8s.io/apiserver/pkg/util/notfoundhandler"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kube-aggregator/pkg/apiserver"

	"github.com/podvine/podvine/agent/api/chain"
	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/liveness"
	"github.com/podvine/podvine/consensus/kubestore"
)

func newLoopback() *loopback {
	return &loopback{
		requestInfo: genericapiserver.NewRequestInfoResolver(&genericapiserver.Config{
			LegacyAPIGroupPrefixes: sets.NewString(genericapiserver.DefaultLegacyAPIPrefix)}),
		longRunning: genericfilters.BasicLongRunningRequestCheck(
			sets.NewString("watch", "proxy"), sets.NewString("attach", "exec", "proxy", "log", "portforward")),
	}
}

// assemble builds the three servers, each handing what it does not know to the next: aggregator, core, custom resources.
func (s *Server) assemble(client kubernetes.Interface) error {
	generic, err := s.genericConfig(client)
	if err != nil {
		return err
	}
	extensions, err := s.newExtensions(generic)
	if err != nil {
		return fmt.Errorf("build server of custom resources: %w", err)
	}
	core, err := s.newCore(generic, extensions)
	if err != nil {
		return fmt.Errorf("build core server: %w", err)
	}
	s.aggregator, err = s.newAggregator(generic, core)
	if err != nil {
		return fmt.Errorf("build aggregator: %w", err)
	}
	if err := s.registerServices(extensions); err != nil {
		return fmt.Errorf("register API services: %w", err)
	}
	prepared, err := s.aggregator.PrepareRun()
	if err != nil {
		return fmt.Errorf("prepare server: %w", err)
	}
	s.loopback.serve(s.aggregator.GenericAPIServer.Handler)
	s.run = prepared.Run
	return nil
}

// genericConfig is what the three servers have in common.
func (s *Server) genericConfig(client kubernetes.Interface) (*genericapiserver.Config, error) {
	c := genericapiserver.NewConfig(s.codecs)
	c.EffectiveVersion = newVersion()
	c.SecureServing = &genericapiserver.SecureServingInfo{
		Listener: s.config.Listener, Cert: s.config.ServingCert, ClientCA: s.config.ClientCA}
	if s.config.ClientCA != nil && s.security.ClientCA != nil {
		c.SecureServing.ClientCA = dynamiccertificates.NewUnionCAContentProvider(s.config.ClientCA, s.security.ClientCA)
	}
	c.ExternalAddress = s.config.ExternalAddress
	if host, _, err := net.SplitHostPort(s.config.ExternalAddress); err == nil {
		c.PublicAddress = net.ParseIP(host)
	}
	c.LoopbackClientConfig = s.loopback.clientConfig(ownUser())
	c.Authentication.Authenticator = union.New(s.loopback, s.security.Authenticator)
	c.Authentication.APIAudiences = s.security.Audiences
	c.Authentication.RequestHeaderConfig = s.security.RequestHeader
	c.Authorization.Authorizer = s.security.Authorizer
	c.RuleResolver = s.security.RuleResolver
	c.AdmissionControl = s.security.Admission
	c.RequestInfoResolver = s.loopback.requestInfo
	c.LongRunningFunc = func(r *http.Request, info *request.RequestInfo) bool {
		return slices.Contains(s.security.LongRunning, info.Path) || s.loopback.longRunning(r, info)
	}
	c.AggregatedDiscoveryGroupManager = s.discovered.of(aggregated.NewResourceManager("apis")) // shared, or discovery loses groups
	c.RESTOptionsGetter = restOptions{s.config.Storage, c.StorageObjectCountTracker, nativeCodec(s.scheme, s.codecs, s.resources)}
	c.AddReadyzChecks(s.config.ReadyChecks...)
	c.BuildHandlerChainFunc = func(handler http.Handler, c *genericapiserver.Config) http.Handler {
		return chain.Build(withStorage(handler), c, &s.workers)
	}
	setLimits(c, s.config)
	c.FlowControl = utilflowcontrol.New(s.informers, client.FlowcontrolV1(), c.MaxRequestsInFlight+c.MaxMutatingRequestsInFlight)

	s.describe(c)
	if err := s.config.Audit.apply(c); err != nil {
		return nil, fmt.Errorf("configure audit: %w", err)
	}
	servePublic(c, s.config.Public)
	return c, nil
}

// withStorage tells the storage of a request what concerns it: admission may add to the transaction of a write, and a list that
// goes out in protobuf as it is may be written without making objects of it.
func withStorage(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPost, http.MethodPut, http.MethodPatch:
			r = r.WithContext(kubestore.WithLate(r.Context()))
		case http.MethodGet:
			if info, ok := request.RequestInfoFrom(r.Context()); ok && info.Verb == "list" && wantsProtobuf(r) {
				r = r.WithContext(kubestore.WithEncodedLists(r.Context()))
			}
		}
		handler.ServeHTTP(w, r)
	})
}

// wantsProtobuf tells whether the client prefers protobuf, and takes nothing that is made of objects, such as tables.
func wantsProtobuf(r *http.Request) bool {
	accept := r.Header.Values("Accept")
	return len(accept) == 1 && strings.HasPrefix(accept[0], runtime.ContentTypeProtobuf) && !strings.Contains(accept[0], ";")
}

func setLimits(c *genericapiserver.Config, config Config) {
	c.MaxRequestsInFlight, c.MaxMutatingRequestsInFlight = defaultRequestsInFlight, defaultMutatingRequestsInFlight
	if config.RequestsInFlight > 0 {
		c.MaxRequestsInFlight = config.RequestsInFlight
	}
	if config.MutatingRequestsInFlight > 0 {
		c.MaxMutatingRequestsInFlight = config.MutatingRequestsInFlight
	}
}

// delegateConfig is a copy of the common configuration for a server beside the core.
func (s *Server) delegateConfig(generic *genericapiserver.Config, options restOptions) *genericapiserver.RecommendedConfig {
	c := *generic
	c.PostStartHooks = map[string]genericapiserver.PostStartHookConfigEntry{}
	c.RESTOptionsGetter = options
	return &genericapiserver.RecommendedConfig{Config: c, SharedInformerFactory: s.informers}
}

func (s *Server) newExtensions(generic *genericapiserver.Config) (*apiextensions.CustomResourceDefinitions, error) {
	options := restOptions{s.config.Storage, generic.StorageObjectCountTracker, definitionCodec}
	config := apiextensions.Config{
		GenericConfig: s.delegateConfig(generic, options),
		ExtraConfig: apiextensions.ExtraConfig{
			CRDRESTOptionsGetter: restOptions{s.config.Storage, generic.StorageObjectCountTracker, customCodec},
			MasterCount:          1,
			ServiceResolver:      s.serviceResolver(),
			AuthResolverWrapper:  s.webhookAuthentication(),
		},
	}
	config.GenericConfig.MergedResourceConfig = apiextensions.DefaultAPIResourceConfigSource()
	return config.Complete().New(genericapiserver.NewEmptyDelegateWithCustomHandler(
		notfoundhandler.New(generic.Serializer, genericapifilters.NoMuxAndDiscoveryIncompleteKey)))
}

func (s *Server) newAggregator(generic *genericapiserver.Config, core *genericapiserver.GenericAPIServer) (*apiserver.APIAggregator, error) {
	options := restOptions{s.config.Storage, generic.StorageObjectCountTracker, serviceCodec}
	config := apiserver.Config{
		GenericConfig: s.delegateConfig(generic, options),
		ExtraConfig: apiserver.ExtraConfig{
			ProxyClientCertFile: s.config.ProxyClientCertFile,
			ProxyClientKeyFile:  s.config.ProxyClientKeyFile,
			ServiceResolver:     s.serviceResolver(),
		},
	}
	config.GenericConfig.MergedResourceConfig = apiserver.DefaultAPIResourceConfigSource()
	config.GenericConfig.SkipOpenAPIInstallation = true // the aggregator merges those of its delegates
	return config.Complete().NewWithDelegate(core)
}

func (s *Server) newCore(generic *genericapiserver.Config, next *apiextensions.CustomResourceDefinitions) (*genericapiserver.GenericAPIServer, error) {
	completed, document := generic.Complete(s.informers), generic.OpenAPIConfig
	generic.OpenAPIConfig = nil // keeps the core from building the document now, see serveOpenAPIV2
	core, err := completed.New("core", next.GenericAPIServer)
	generic.OpenAPIConfig = document
	if err != nil {
		return nil, err
	}
	core.Handler.GoRestfulContainer.Router(&router{})
	serveOpenAPIV2(core, document)
	groups, err := s.storages(generic)
	if err != nil {
		return nil, err
	}
	if legacy := groups[""]; legacy != nil {
		if err := core.InstallLegacyAPIGroup(genericapiserver.DefaultLegacyAPIPrefix, legacy); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		if name == "" {
			continue
		}
		if err := core.InstallAPIGroups(groups[name]); err != nil {
			return nil, err
		}
	}
	for path, handler := range s.security.Routes {
		core.Handler.NonGoRestfulMux.Handle(path, handler)
		// Below a path there is nothing, and clients of the API are told so as a Status.
		core.Handler.NonGoRestfulMux.UnlistedHandlePrefix(strings.TrimSuffix(path, "/")+"/", s.nothingHere())
	}
	return core, s.addHooks(core)
}

// nothingHere answers 404 with a Status.
func (s *Server) nothingHere() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		absent := apierrors.NewGenericServerResponse(http.StatusNotFound, strings.ToLower(r.Method), schema.GroupResource{}, "", "", 0, false)
		responsewriters.ErrorNegotiated(absent, s.codecs, schema.GroupVersion{Version: "v1"}, w, r)
	})
}

// storages installs every kind and returns the groups to serve.
func (s *Server) storages(generic *genericapiserver.Config) (map[string]*genericapiserver.APIGroupInfo, error) {
	env := kinds.Env{
		Scheme: s.scheme, RESTOptions: generic.RESTOptionsGetter, Authorizer: generic.Authorization.Authorizer,
		Mapper: s.mapper, Nodes: s.config.Nodes, Settings: s.config.Settings,
	}
	groups := map[string]*genericapiserver.APIGroupInfo{}
	env.Namespace = func(ctx context.Context, name string) (*corev1.Namespace, error) {
		namespaces, ok := groups[""].VersionedResourcesStorageMap["v1"]["namespaces"].(registryrest.Getter)
		if !ok {
			return nil, errors.New("namespaces are not served")
		}
		found, err := namespaces.Get(request.WithNamespace(ctx, ""), name, &metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return found.(*corev1.Namespace), nil
	}
	for _, r := range s.resources {
		version := r.GVR().GroupVersion()
		group := groups[version.Group]
		if group == nil {
			info := genericapiserver.NewDefaultAPIGroupInfo(version.Group, s.scheme, runtime.NewParameterCodec(s.scheme), s.codecs)
			group = &info
			groups[version.Group] = group
		}
		storage := group.VersionedResourcesStorageMap[version.Version]
		if storage == nil {
			storage = map[string]registryrest.Storage{}
			group.VersionedResourcesStorageMap[version.Version] = storage
		}
		if err := r.Install(env, storage); err != nil {
			return nil, err
		}
	}
	s.makeUpHeartbeats(groups)
	s.bindings, _ = groups[""].VersionedResourcesStorageMap["v1"]["pods/binding"].(batchBinder)
	if s.security.Tokens != nil {
		groups[""].VersionedResourcesStorageMap["v1"]["serviceaccounts/token"] = s.security.Tokens
	}
	return groups, nil
}

// makeUpHeartbeats replaces the storages of leases and nodes by those that show who lives.
func (s *Server) makeUpHeartbeats(groups map[string]*genericapiserver.APIGroupInfo) {
	if s.config.Alive == nil {
		return
	}
	core := groups[""].VersionedResourcesStorageMap["v1"]
	coordination := groups[coordinationv1.GroupName].VersionedResourcesStorageMap["v1"]
	nodes, ok := core["nodes"].(*kinds.REST)
	leases, both := coordination["leases"].(*kinds.REST)
	if ok && both {
		core["nodes"] = liveness.NewHeartbeats(nodes, s.config.Alive)
		coordination["leases"] = liveness.NewLeases(leases, nodes, s.config.Alive)
	}
}

// groupVersionName is the name of a group version's API service.
func groupVersionName(version schema.GroupVersion) string {
	return strings.Join([]string{version.Version, version.Group}, ".")
}
