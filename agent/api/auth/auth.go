// Package auth puts together who may speak to the API and what they may do: one authenticator of requests and one
// authorizer, in the order and with the answers of Kubernetes.
//
// The pieces are in the packages below: tokens (service-account tokens), bootstraptokens, rbac, nodeauth (the Node
// authorizer), external (what files of configuration add) and bootstrap (the default roles). They meet here and in agent/api,
// nowhere else.
package auth

import (
	"errors"
	"fmt"
	"slices"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	"k8s.io/apiserver/pkg/authentication/request/bearertoken"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	requestunion "k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/request/websocket"
	"k8s.io/apiserver/pkg/authentication/request/x509"
	tokenunion "k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/authorization/union"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/informers"

	"github.com/podvine/podvine/agent/api/auth/bootstrap"
	"github.com/podvine/podvine/agent/api/auth/nodeauth"
	"github.com/podvine/podvine/agent/api/auth/rbac"
)

// AuthenticatorConfig says what proves an identity. Each part may be nil; without any, only anonymous requests come in.
type AuthenticatorConfig struct {
	// ClientCA verifies client certificates: the common name is the user, the organizations are the groups.
	ClientCA dynamiccertificates.CAContentProvider
	// FrontProxies trust identities in headers of requests that show a certificate of a front proxy.
	FrontProxies []*authenticatorfactory.RequestHeaderConfig
	// Tokens check bearer tokens, tried in this order.
	Tokens []authenticator.Token
	// Anonymous admits requests without any credentials; nil is Kubernetes' default, to admit them (RBAC grants them
	// little).
	Anonymous *apiserver.AnonymousAuthConfig
}

// NewAuthenticator tries front proxies, client certificates, tokens and, last, anonymity. A bad credential is refused
// and never falls back to anonymous.
func NewAuthenticator(config AuthenticatorConfig) (authenticator.Request, error) {
	var chain []authenticator.Request
	for _, f := range config.FrontProxies {
		chain = append(chain, headerrequest.NewDynamicVerifyOptionsSecure(f.CAContentProvider.VerifyOptions,
			f.AllowedClientNames, f.UsernameHeaders, f.UIDHeaders, f.GroupHeaders, f.ExtraHeaderPrefixes))
	}
	if config.ClientCA != nil {
		verified, err := rememberCertificates(x509.NewDynamic(config.ClientCA.VerifyOptions, x509.CommonNameUserConversion), time.Now)
		if err != nil {
			return nil, err
		}
		config.ClientCA.AddListener(verified)
		chain = append(chain, verified)
	}
	if len(config.Tokens) > 0 {
		tokens := tokenunion.New(config.Tokens...)
		chain = append(chain, bearertoken.New(tokens), websocket.NewProtocolAuthenticator(tokens))
	}
	anonymousConfig := config.Anonymous
	if anonymousConfig == nil {
		anonymousConfig = &apiserver.AnonymousAuthConfig{Enabled: true}
	}
	if len(chain) == 0 {
		if !anonymousConfig.Enabled {
			return nil, errors.New("make authenticator: nothing proves an identity, and anonymous requests are off")
		}
		return anonymous.NewAuthenticator(anonymousConfig.Conditions), nil
	}
	request := group.NewAuthenticatedGroupAdder(requestunion.New(chain...))
	if anonymousConfig.Enabled {
		request = requestunion.NewFailOnError(request, anonymous.NewAuthenticator(anonymousConfig.Conditions))
	}
	return request, nil
}

// FrontProxy is the usual front-proxy configuration, with Kubernetes' header names, for certificates of ca that name
// one of clients.
func FrontProxy(ca dynamiccertificates.CAContentProvider, clients ...string) *authenticatorfactory.RequestHeaderConfig {
	return &authenticatorfactory.RequestHeaderConfig{
		CAContentProvider:   ca,
		UsernameHeaders:     headerrequest.StaticStringSlice{"X-Remote-User"},
		UIDHeaders:          headerrequest.StaticStringSlice{"X-Remote-Uid"},
		GroupHeaders:        headerrequest.StaticStringSlice{"X-Remote-Group"},
		ExtraHeaderPrefixes: headerrequest.StaticStringSlice{"X-Remote-Extra-"},
		AllowedClientNames:  headerrequest.StaticStringSlice(clients),
	}
}

// AuthorizerConfig says what the authorizers read.
type AuthorizerConfig struct {
	// Informers must not have been started; the constructor adds indexes and handlers to those of RBAC, pods, volumes and
	// volume attachments (the last two only where WithVolumes is set: their kinds must be served).
	Informers   informers.SharedInformerFactory
	WithVolumes bool
	// More authorizers are asked after Node and RBAC.
	More []union.NamedAuthorizer
}

// Authorization is the authorizer and what else resolves from it.
type Authorization struct {
	// Authorizer asks: system:masters may everything, then Node, RBAC, and More.
	Authorizer authorizer.Authorizer
	// Resolver lists the rules of a user (SelfSubjectRulesReview).
	Resolver authorizer.RuleResolver
	// Rules resolve what users hold (escalation checks).
	Rules *rbac.Rules
	// Masters, Node and RBAC are the parts of Authorizer.
	Masters, Node, RBAC authorizer.Authorizer
}

// NewAuthorizer makes the authorizers.
func NewAuthorizer(config AuthorizerConfig) (*Authorization, error) {
	if config.Informers == nil {
		return nil, errors.New("make authorizer: informers are needed")
	}
	rules, err := rbac.NewRules(config.Informers.Rbac().V1())
	if err != nil {
		return nil, err
	}
	watched := nodeauth.Informers{Pods: config.Informers.Core().V1().Pods().Informer()}
	if config.WithVolumes {
		watched.Volumes = config.Informers.Core().V1().PersistentVolumes().Informer()
		watched.Attachments = config.Informers.Storage().V1().VolumeAttachments().Informer()
	}
	nodeRules, err := nodeRules()
	if err != nil {
		return nil, err
	}
	node, err := nodeauth.New(watched, nodeRules)
	if err != nil {
		return nil, err
	}
	byRole := rbac.NewAuthorizer(rules)
	masters := authorizerfactory.NewPrivilegedGroups(user.SystemPrivilegedGroup)
	all, err := union.New(append([]union.NamedAuthorizer{
		{AuthorizerName: "system:masters", Authorizer: masters},
		{AuthorizerName: "node", Authorizer: node},
		{AuthorizerName: "rbac", Authorizer: byRole},
	}, config.More...)...)
	if err != nil {
		return nil, fmt.Errorf("make authorizer: %w", err)
	}
	return &Authorization{Authorizer: all, Resolver: byRole, Rules: rules, Masters: masters, Node: node, RBAC: byRole}, nil
}

// nodeRules are those of the role system:node.
func nodeRules() ([]rbacv1.PolicyRule, error) {
	roles := bootstrap.Policy().ClusterRoles
	i := slices.IndexFunc(roles, func(r *rbacv1.ClusterRole) bool { return r.Name == "system:node" })
	if i < 0 {
		return nil, errors.New("make authorizer: the default roles lack system:node")
	}
	return roles[i].Rules, nil
}
