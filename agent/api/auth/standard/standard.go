// Package standard assembles Podvine's usual security for the API server: keys and certificates from agent/pki, the
// authenticators and authorizers of agent/api/auth, the chain of agent/api/admission, and the OpenID documents.
// [Config.Security] is what api.Config.Security wants. It starts nothing.
package standard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/union"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/api"
	podvineadmission "github.com/podvine/podvine/agent/api/admission"
	"github.com/podvine/podvine/agent/api/auth"
	"github.com/podvine/podvine/agent/api/auth/bootstraptokens"
	"github.com/podvine/podvine/agent/api/auth/external"
	"github.com/podvine/podvine/agent/api/auth/tokens"
	"github.com/podvine/podvine/agent/api/kinds/podsecuritypolicy"
	"github.com/podvine/podvine/agent/pki"
)

// Config says whose security. PKI, Issuer and KeySetURL are required.
type Config struct {
	PKI *pki.PKI
	// Issuer is the "iss" of service-account tokens and their default audience: https://kubernetes.default.svc.cluster.local.
	Issuer string
	// KeySetURL is where others read the keys of tokens: https://HOST:6443/openid/v1/jwks.
	KeySetURL string
	// TolerationSeconds is the eviction delay that admission writes, asked for each pod; nil is its default.
	TolerationSeconds func() int64
	// WithVolumes says that the kinds of storage are served.
	WithVolumes bool
	// External are files that add to authentication and authorization, ServerID tells members apart in metrics.
	External external.Files
	ServerID string
	// Log receives what changes of those files come to; nil is silent.
	Log *slog.Logger
	// FrontProxies are those that members trust; nil is the usual one alone.
	FrontProxies *FrontProxies
	// MoreTokens, MoreAuthorizers and MoreAdmission follow the usual ones.
	MoreTokens      []authenticator.Token
	MoreAuthorizers []union.NamedAuthorizer
	MoreAdmission   []podvineadmission.Named
}

// Security makes all of it.
func (c Config) Security(access api.Access) (api.Security, error) {
	if c.PKI == nil || c.Issuer == "" || c.KeySetURL == "" {
		return api.Security{}, errors.New("make security: PKI, issuer and key set address are needed")
	}
	issuer, validator, err := c.tokens(access)
	if err != nil {
		return api.Security{}, err
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	audiences := authenticator.Audiences{c.Issuer}
	files, err := external.New(external.Config{Files: c.External, Issuer: c.Issuer, Audiences: audiences, ServerID: c.ServerID, Log: c.Log})
	if err != nil {
		return api.Security{}, err
	}
	bearers := []authenticator.Token{validator, authenticator.WrapAudienceAgnosticToken(audiences, bootstraptokens.Authenticator{Client: access.Client})}
	proxies := c.FrontProxies
	if proxies == nil {
		if proxies, err = NewFrontProxies(c.PKI, RequestHeader{}); err != nil {
			return api.Security{}, err
		}
	}
	request, err := auth.NewAuthenticator(auth.AuthenticatorConfig{
		ClientCA: c.PKI.Cluster(), FrontProxies: proxies.each, Tokens: slices.Concat(bearers, files.Tokens(), c.MoreTokens), Anonymous: files.Anonymous(),
	})
	if err != nil {
		return api.Security{}, err
	}
	authorization, err := auth.NewAuthorizer(auth.AuthorizerConfig{Informers: access.Informers, WithVolumes: c.WithVolumes, More: c.MoreAuthorizers})
	if err != nil {
		return api.Security{}, err
	}
	decides, resolves := authorization.Authorizer, authorization.Resolver
	if arranged := files.Authorization(external.Usual{Masters: authorization.Masters, Node: authorization.Node, RBAC: authorization.RBAC, Rules: authorization.Resolver}); arranged != nil {
		decides, resolves = arranged, arranged
	}
	parameters, err := dynamic.NewForConfig(access.ClientConfig)
	if err != nil {
		return api.Security{}, fmt.Errorf("make security: %w", err)
	}
	chain, err := podvineadmission.New(podvineadmission.Config{
		Client: access.Client, Informers: access.Informers, Authorizer: decides,
		TolerationSeconds: c.TolerationSeconds, More: c.MoreAdmission, Serves: access.Serves, SecurityPolicies: securityPolicies(access),
		Extensions: &podvineadmission.Extensions{
			Dynamic: parameters, Mapper: access.Mapper, Services: access.Services, Authentication: access.WebhookAuthentication, Version: access.Version,
		},
	})
	if err != nil {
		return api.Security{}, err
	}
	discovery, err := tokens.NewDiscovery(c.Issuer, c.KeySetURL, c.keys)
	if err != nil {
		return api.Security{}, err
	}
	return api.Security{
		Authenticator: request, Audiences: audiences, RequestHeader: proxies.all, ClientCA: proxies.all.CAContentProvider,
		Authorizer: decides, RuleResolver: resolves, Admission: chain,
		Start:  func(ctx context.Context) error { return errors.Join(files.Start(ctx), chain.Start(ctx)) },
		Wait:   files.Wait,
		Tokens: tokens.NewREST(issuer),
		Routes: map[string]http.Handler{
			tokens.ConfigurationPath: http.HandlerFunc(discovery.ServeConfiguration),
			tokens.KeySetPath:        http.HandlerFunc(discovery.ServeKeySet),
		},
	}, nil
}

func (c Config) tokens(access api.Access) (*tokens.Issuer, *tokens.Validator, error) {
	live := tokens.Live{Client: access.Client}
	core := access.Informers.Core().V1()
	issuer, err := tokens.NewIssuer(tokens.IssuerConfig{
		Issuer: c.Issuer, Audiences: []string{c.Issuer}, Keys: c.PKI.Tokens(), Objects: live,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("make security: %w", err)
	}
	validator, err := tokens.NewValidator(tokens.ValidatorConfig{
		Issuers: []string{c.Issuer}, Audiences: []string{c.Issuer}, Keys: c.PKI.Tokens(),
		Objects: tokens.Cached{Live: live, ServiceAccounts: core.ServiceAccounts().Lister(), Pods: core.Pods().Lister(), Nodes: core.Nodes().Lister()},
	})
	if err != nil {
		return nil, nil, fmt.Errorf("make security: %w", err)
	}
	return issuer, validator, nil
}

func (c Config) keys() []tokens.VerifyingKey {
	var keys []tokens.VerifyingKey
	for _, k := range c.PKI.Tokens().PublicKeys() {
		keys = append(keys, tokens.VerifyingKey{ID: k.ID, Key: k.Key})
	}
	return keys
}

// securityPolicies returns the informer of PodSecurityPolicies, nil where they are not served. It reads the store: no published
// client knows the kind.
func securityPolicies(access api.Access) cache.SharedIndexInformer {
	if !access.Serves(podsecuritypolicy.GroupVersion().WithResource("podsecuritypolicies")) {
		return nil
	}
	return access.Informers.InformerFor(&podsecuritypolicy.PodSecurityPolicy{}, func(kubernetes.Interface, time.Duration) cache.SharedIndexInformer {
		unread := errors.New("security policies are read from the store, and there is none to read")
		return cache.NewSharedIndexInformer(&cache.ListWatch{
			ListWithContextFunc:  func(context.Context, metav1.ListOptions) (runtime.Object, error) { return nil, unread },
			WatchFuncWithContext: func(context.Context, metav1.ListOptions) (watch.Interface, error) { return nil, unread },
		}, &podsecuritypolicy.PodSecurityPolicy{}, 0, cache.Indexers{})
	})
}
