package api

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/kube-aggregator/pkg/apiserver"

	"github.com/podvine/podvine/agent/api/chain"
	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/podsecuritypolicy"
	"github.com/podvine/podvine/agent/api/kinds/reviews"
)

// mapperPeriod is how long the mapper may take what it has read for current; it reads when it is asked.
const mapperPeriod = 30 * time.Second

// Server is a built API server. Its methods may be called at any time from any goroutine; Run only once.
type Server struct {
	config     Config
	resources  []kinds.Resource
	scheme     *runtime.Scheme
	codecs     serializer.CodecFactory
	loopback   *loopback
	informers  *directInformers
	mapper     *restmapper.DeferredDiscoveryRESTMapper
	security   Security
	aggregator *apiserver.APIAggregator
	workers    chain.Workers
	discovered *discovered
	bindings   batchBinder
	run        func(context.Context) error
}

// New builds the server: scheme, stores, routes, discovery and OpenAPI. Nothing runs before Run, but the listener
// queues connections already.
func New(config Config) (*Server, error) {
	if err := config.validate(); err != nil {
		return nil, err
	}
	if config.Nodes == nil {
		config.Nodes = noNodes{}
	}
	s := &Server{config: config, loopback: newLoopback(), discovered: newDiscovered()}
	s.resources = Resources(func() reviews.Access {
		return reviews.Access{Authenticator: s.security.Authenticator, Audiences: s.security.Audiences, RuleResolver: s.security.RuleResolver}
	})
	if config.Settings.PodSecurityPolicies {
		s.resources = append(s.resources, podsecuritypolicy.Resource())
	}
	var err error
	if s.scheme, err = kinds.NewScheme(s.resources); err != nil {
		return nil, fmt.Errorf("build scheme: %w", err)
	}
	s.codecs = serializer.NewCodecFactory(s.scheme)
	clientConfig := s.loopback.clientConfig(ownUser())
	client, err := kubernetes.NewForConfig(clientConfig)
	if err != nil {
		return nil, fmt.Errorf("build client: %w", err)
	}
	if s.informers, err = newDirectInformers(client, config.ListerWatcher, s.scheme, s.resources); err != nil {
		return nil, fmt.Errorf("build informers: %w", err)
	}
	s.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	s.discovered.listen(s.mapper.Reset)
	s.security, err = config.Security(Access{
		Client: client, ClientConfig: clientConfig, Informers: s.informers, Mapper: s.mapper, Serves: s.Serves,
		Services: s.serviceResolver(), WebhookAuthentication: s.webhookAuthentication(), Version: newVersion(),
	})
	if err != nil {
		return nil, fmt.Errorf("build security: %w", err)
	}
	if err := s.assemble(client); err != nil {
		return nil, err
	}
	return s, nil
}

// Run serves until the context ends, then drains requests and returns. Every goroutine ends with the context too.
func (s *Server) Run(ctx context.Context) error {
	defer s.workers.Close()
	var group sync.WaitGroup
	defer group.Wait()
	if s.security.Wait != nil {
		defer s.security.Wait()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // before all that is waited for
	if s.security.Start != nil {
		if err := s.security.Start(ctx); err != nil {
			return fmt.Errorf("start security: %w", err)
		}
	}
	group.Go(func() { wait.UntilWithContext(ctx, func(context.Context) { s.mapper.Reset() }, mapperPeriod) })
	group.Go(func() { s.discovered.run(ctx) })
	return s.run(ctx)
}

// ClientConfig returns the configuration of a client whose requests go to the handler chain directly, as that user:
// authorization, admission, priority and audit apply, TLS and TCP do not. Upgraded connections (exec) do not work.
func (s *Server) ClientConfig(as user.Info) *rest.Config { return s.loopback.clientConfig(as) }

// Informers returns the factory whose informers read the storage itself. What listers and events return is shared with
// everyone and must not be changed. The server starts what is asked for before Run; start the rest with its Start.
func (s *Server) Informers() informers.SharedInformerFactory { return s.informers }

// Serves tells whether a resource is one of the built-in kinds.
func (s *Server) Serves(resource schema.GroupVersionResource) bool {
	return slices.ContainsFunc(s.resources, func(r kinds.Resource) bool { return r.GVR() == resource })
}

// OnKindsChanged has f called a moment after discovery has changed: a custom resource or an API service came, went, or answers
// again. It is called by one goroutine, while the server runs, and must not take long.
func (s *Server) OnKindsChanged(f func()) { s.discovered.listen(f) }

// Scheme returns the scheme of the built-in kinds.
func (s *Server) Scheme() *runtime.Scheme { return s.scheme }

// ownUser is the server itself.
func ownUser() user.Info {
	return &user.DefaultInfo{Name: user.APIServerUser, Groups: []string{user.AllAuthenticated, user.SystemPrivilegedGroup}}
}
