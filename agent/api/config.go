// Package api serves the Kubernetes API of one member: aggregation, the built-in kinds and custom resources in one
// process, on the published libraries, over whatever storage it is given.
//
// Ownership: [New] builds the whole server without starting anything; [Server.Run] starts every goroutine, drains
// requests when its context ends, and leaves none that outlives the context. The listener belongs to the server from New on. Clients from
// [Server.ClientConfig] go through the complete handler chain without a socket; informers from [Server.Informers] read
// the storage itself and share its decoded objects, which nobody may change.
//
// To inspect it: /readyz?verbose, /metrics, /debug/pprof, /debug/api_priority_and_fairness.
package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/registry/generic"
	registryrest "k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/component-base/compatibility"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/liveness"
)

// Limits of the request handling; priority and fairness divides their sum.
const (
	defaultRequestsInFlight         = 400
	defaultMutatingRequestsInFlight = 200
	// deleteCollectionWorkers is how many objects one collection delete removes at a time.
	deleteCollectionWorkers = 4
)

// Config is everything that a Server needs. All fields are required unless they say otherwise.
type Config struct {
	// Listener accepts TCP connections; the server speaks TLS on it and closes it.
	Listener net.Listener
	// ServingCert is the server's certificate; it may change while the server runs.
	ServingCert dynamiccertificates.CertKeyContentProvider
	// ClientCA verifies client certificates at the handshake; nil asks for none.
	ClientCA dynamiccertificates.CAContentProvider
	// ExternalAddress is the host:port that discovery tells clients.
	ExternalAddress string
	// Storage opens the storage of each resource.
	Storage generic.StorageDecorator
	// ListerWatcher reads that storage for informers; nil makes them read through the client.
	ListerWatcher ListerWatcher
	// Nodes reaches the kubelet API of nodes; nil answers 503 for what needs a node.
	Nodes kinds.NodeConnector
	// Alive tells which nodes live, for their leases and heartbeats; nil makes none up.
	Alive liveness.Alive
	// Settings are the cluster settings.
	Settings kinds.Settings
	// Security makes authentication, authorization and admission. It is called once, before anything runs: the
	// client answers and the informers fill only after Run.
	Security func(Access) (Security, error)
	// Audit is the audit log; the zero value keeps none.
	Audit Audit
	// KindsChanged is called when a custom resource definition or an API service came, went or changed what it serves; nil means
	// that nobody asks. It must not block.
	KindsChanged func()
	// ProxyClientCertFile and ProxyClientKeyFile hold the front-proxy client certificate that aggregated API servers
	// are shown, both or neither.
	ProxyClientCertFile, ProxyClientKeyFile string
	// ClusterServices reaches services that back API services and webhooks through their cluster IP instead of one
	// of their endpoints.
	ClusterServices bool
	// KubernetesService tells the addresses and port under which members serve this API, for the service
	// default/kubernetes; nil leaves that service alone.
	KubernetesService *KubernetesService
	// RequestsInFlight and MutatingRequestsInFlight bound concurrent requests; 0 is Kubernetes' default (400, 200).
	RequestsInFlight, MutatingRequestsInFlight int
	// Public are handlers by their path that anybody may ask, without authentication or any other filter: they check
	// what they are sent, and bound it, themselves.
	Public map[string]http.Handler
	// Bootstrap are further hooks that run once after the start, with retries by themselves; readiness waits for them.
	Bootstrap []BootstrapHook
	// ReadyChecks are added to /readyz.
	ReadyChecks []healthz.HealthChecker
	// Log receives what the server itself has to say; the libraries log through klog.
	Log *slog.Logger
}

// Access is how security parts read the cluster.
type Access struct {
	// Client goes through the server's own chain as system:apiserver.
	Client kubernetes.Interface
	// ClientConfig is Client's configuration, for other client sets.
	ClientConfig *rest.Config
	// Informers read the storage; those asked for before Run are started by Run.
	Informers informers.SharedInformerFactory
	// Mapper finds the resource of a kind, built in or not; it answers after Run.
	Mapper meta.RESTMapper
	// Serves tells whether a resource is one of the built-in kinds.
	Serves func(schema.GroupVersionResource) bool
	// Services and WebhookAuthentication are how webhooks are reached, and what they are shown.
	Services              webhook.ServiceResolver
	WebhookAuthentication webhook.AuthenticationInfoResolverWrapper
	// Version is the version of Kubernetes that is served.
	Version compatibility.EffectiveVersion
}

// Security is who may do what.
type Security struct {
	// Authenticator identifies requests, anonymous ones included.
	Authenticator authenticator.Request
	// Audiences are those that tokens must be for; empty accepts all.
	Audiences authenticator.Audiences
	// RequestHeader says which headers name the user of a front proxy, so that they are removed; may be nil.
	RequestHeader *authenticatorfactory.RequestHeaderConfig
	// ClientCA are further authorities whose certificates are asked for at the handshake; may be nil.
	ClientCA dynamiccertificates.CAContentProvider
	// Authorizer decides, for the server's own clients (group system:masters) too.
	Authorizer authorizer.Authorizer
	// RuleResolver lists a user's rules; may be nil.
	RuleResolver authorizer.RuleResolver
	// Admission is the chain of plug-ins; nil admits everything.
	Admission admission.Interface
	// Start is called once by Run, before requests are served; what it starts ends with its context. It may be nil.
	Start func(ctx context.Context) error
	// Wait returns when what Start started has ended; it is called after Start, also when that failed. It may be nil.
	Wait func()
	// Tokens is the sub-resource serviceaccounts/token; nil leaves it out.
	Tokens registryrest.Storage
	// Routes are further handlers outside of /api and /apis by their path ("/openid/v1/jwks"); they are authorized as
	// non-resource requests.
	Routes map[string]http.Handler
	// LongRunning are those of the paths whose requests may take as long as they take.
	LongRunning []string
}

// HookContext is what a bootstrap hook gets: a context that ends with the server, and the configuration of a client in
// process that acts as system:apiserver.
type HookContext = genericapiserver.PostStartHookContext

// BootstrapHook makes objects that every cluster has.
type BootstrapHook struct {
	// Name appears in /readyz as poststarthook/Name.
	Name string
	// Run is called after the start; its context ends with the server. An error ends the server.
	Run func(hook HookContext) error
}

func (c *Config) validate() error {
	switch {
	case c.Listener == nil:
		return errors.New("configure API: no listener")
	case c.ServingCert == nil:
		return errors.New("configure API: no serving certificate")
	case c.Storage == nil:
		return errors.New("configure API: no storage")
	case c.Security == nil:
		return errors.New("configure API: no security")
	case c.Log == nil:
		return errors.New("configure API: no logger")
	}
	return nil
}
