// Package security puts authentication, authorization, admission and service-account tokens together, as a member serves
// them and as tests of the API use them. It makes no decisions of its own.
//
// [New] returns the function that api.Config.Security takes; what that returns lives as long as the server.
package security

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/client-go/kubernetes"

	"github.com/podvine/podvine/agent/api"
	"github.com/podvine/podvine/agent/api/admission"
	"github.com/podvine/podvine/agent/api/auth"
	"github.com/podvine/podvine/agent/api/auth/bootstrap"
	"github.com/podvine/podvine/agent/api/auth/tokens"
	"github.com/podvine/podvine/agent/pki"
)

// frontProxyUser is the common name of the certificate that aggregated API servers are shown.
const frontProxyUser = "front-proxy-client"

// Config is what the parts need. PKI and ClusterDomain are required.
type Config struct {
	PKI           *pki.PKI
	ClusterDomain string
	// TolerationSeconds is what pods tolerate a node that is not ready or unreachable when they say nothing; 0 is the
	// default of the admission plug-in.
	TolerationSeconds int64
	// Routes are further paths outside of /api and /apis.
	Routes map[string]http.Handler
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// New returns the builder of a server's security.
func New(config Config) func(api.Access) (api.Security, error) {
	return func(access api.Access) (api.Security, error) {
		s, err := build(config, access)
		if err != nil {
			return api.Security{}, fmt.Errorf("build security: %w", err)
		}
		return s, nil
	}
}

func build(config Config, access api.Access) (api.Security, error) {
	if config.PKI == nil || config.ClusterDomain == "" {
		return api.Security{}, errors.New("keys and the cluster's domain are needed")
	}
	issuer := "https://kubernetes.default.svc." + config.ClusterDomain
	audiences := []string{issuer}
	live := tokens.Live{Client: access.Client}
	core := access.Informers.Core().V1()
	validator, err := tokens.NewValidator(tokens.ValidatorConfig{
		Issuers: []string{issuer}, Audiences: audiences, Keys: config.PKI.Tokens(), Now: config.Now,
		Objects: tokens.Cached{Live: live, ServiceAccounts: core.ServiceAccounts().Lister(), Pods: core.Pods().Lister(), Nodes: core.Nodes().Lister()},
	})
	if err != nil {
		return api.Security{}, err
	}
	tokenIssuer, err := tokens.NewIssuer(tokens.IssuerConfig{Issuer: issuer, Audiences: audiences, Keys: config.PKI.Tokens(), Objects: live, Now: config.Now})
	if err != nil {
		return api.Security{}, err
	}
	frontProxy := auth.FrontProxy(config.PKI.FrontProxyCA(), frontProxyUser)
	authenticates, err := auth.NewAuthenticator(auth.AuthenticatorConfig{
		ClientCA: config.PKI.ClusterCA(), FrontProxy: frontProxy, Tokens: []authenticator.Token{validator},
	})
	if err != nil {
		return api.Security{}, err
	}
	authorizes, err := auth.NewAuthorizer(auth.AuthorizerConfig{Informers: access.Informers})
	if err != nil {
		return api.Security{}, err
	}
	admits, err := admission.New(admission.Config{
		Client: access.Client, Informers: access.Informers, Authorizer: authorizes.Authorizer, TolerationSeconds: config.TolerationSeconds,
	})
	if err != nil {
		return api.Security{}, err
	}
	routes, err := config.routes(issuer)
	if err != nil {
		return api.Security{}, err
	}
	return api.Security{
		Authenticator: authenticates, Audiences: audiences, RequestHeader: frontProxy,
		Authorizer: authorizes.Authorizer, RuleResolver: authorizes.Resolver,
		Admission: admits, Tokens: tokens.NewREST(tokenIssuer), Routes: routes,
	}, nil
}

// routes adds the documents by which others verify this cluster's tokens.
func (c Config) routes(issuer string) (map[string]http.Handler, error) {
	keys := func() []tokens.VerifyingKey {
		var all []tokens.VerifyingKey
		for _, key := range c.PKI.Tokens().PublicKeys() {
			all = append(all, tokens.VerifyingKey(key))
		}
		return slices.Clip(all)
	}
	discovery, err := tokens.NewDiscovery(issuer, issuer+tokens.KeySetPath, keys)
	if err != nil {
		return nil, err
	}
	routes := map[string]http.Handler{
		tokens.ConfigurationPath: http.HandlerFunc(discovery.ServeConfiguration),
		tokens.KeySetPath:        http.HandlerFunc(discovery.ServeKeySet),
	}
	for path, handler := range c.Routes {
		routes[path] = handler
	}
	return routes, nil
}

// Bootstrap makes the default roles and bindings, and what is missing of them.
func Bootstrap() api.BootstrapHook {
	return api.BootstrapHook{Name: "rbac/bootstrap-roles", Run: func(hook api.HookContext) error {
		client, err := kubernetes.NewForConfig(hook.LoopbackClientConfig)
		if err != nil {
			return err
		}
		return retry(hook, func(ctx context.Context) error { return bootstrap.Reconcile(ctx, client) })
	}}
}

// retry calls again until it succeeds or the server ends: right after the start there may be no quorum yet.
func retry(ctx context.Context, call func(context.Context) error) error {
	const pause = 200 * time.Millisecond
	for {
		err := call(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(pause):
		}
	}
}
