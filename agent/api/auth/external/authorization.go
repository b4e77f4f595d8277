package external

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/load"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	authorizationcel "k8s.io/apiserver/pkg/authorization/cel"
	"k8s.io/apiserver/pkg/authorization/union"
	"k8s.io/apiserver/pkg/util/webhook"
	authorizationwebhook "k8s.io/apiserver/plugin/pkg/authorizer/webhook"
	"k8s.io/apiserver/plugin/pkg/authorizer/webhook/metrics"
)

// Types of authorizers that a file may name.
const (
	typeNode        = "Node"
	typeRBAC        = "RBAC"
	typeAlwaysAllow = "AlwaysAllow"
	typeAlwaysDeny  = "AlwaysDeny"
)

// chain is the authorizers of a file, in its order.
type chain struct {
	authorizer authorizer.Authorizer
	rules      authorizer.RuleResolver
}

// Authorizer asks the authorizers that the file names now.
type Authorizer struct{ file *file[chain] }

var (
	_ authorizer.Authorizer   = (*Authorizer)(nil)
	_ authorizer.RuleResolver = (*Authorizer)(nil)
)

var errNotStarted = errors.New("authorization has not started yet")

// Authorize implements authorizer.Authorizer.
func (a *Authorizer) Authorize(ctx context.Context, attributes authorizer.Attributes) (authorizer.Decision, string, error) {
	current := a.file.current.Load()
	if current == nil {
		return authorizer.DecisionDeny, "", errNotStarted
	}
	return current.authorizer.Authorize(ctx, attributes)
}

// ConditionsAwareAuthorize implements authorizer.Authorizer.
func (a *Authorizer) ConditionsAwareAuthorize(ctx context.Context, attributes authorizer.Attributes) authorizer.ConditionsAwareDecision {
	current := a.file.current.Load()
	if current == nil {
		return authorizer.ConditionsAwareDecisionFromParts(authorizer.DecisionDeny, "", errNotStarted)
	}
	return current.authorizer.ConditionsAwareAuthorize(ctx, attributes)
}

// EvaluateConditions implements authorizer.Authorizer.
func (a *Authorizer) EvaluateConditions(ctx context.Context, decision authorizer.ConditionsAwareDecision, data authorizer.ConditionsData) (authorizer.Decision, string, error) {
	current := a.file.current.Load()
	if current == nil {
		return authorizer.DecisionDeny, "", errNotStarted
	}
	return current.authorizer.EvaluateConditions(ctx, decision, data)
}

// RulesFor implements authorizer.RuleResolver. What webhooks allow cannot be listed, and then the list says so.
func (a *Authorizer) RulesFor(ctx context.Context, who user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	current := a.file.current.Load()
	if current == nil {
		return nil, nil, true, errNotStarted
	}
	return current.rules.RulesFor(ctx, who, namespace)
}

func parseChain(content []byte) (*apiserver.AuthorizationConfiguration, authorizationcel.Compiler, error) {
	if len(content) == 0 {
		return nil, nil, errors.New("it is empty, and without authorizers nobody may do anything")
	}
	configuration, err := load.LoadFromData(content)
	if err != nil {
		return nil, nil, err
	}
	compiler := authorizationcel.NewDefaultCompiler()
	errs := validation.ValidateAuthorizationConfiguration(compiler, nil, configuration,
		sets.New(string(apiserver.TypeWebhook), typeNode, typeRBAC, typeAlwaysAllow, typeAlwaysDeny), sets.New(string(apiserver.TypeWebhook)))
	for i, a := range configuration.Authorizers {
		if a.Webhook != nil && a.Webhook.ConnectionInfo.Type == apiserver.AuthorizationWebhookConnectionInfoTypeInCluster {
			return nil, nil, fmt.Errorf("authorizers[%d].webhook.connectionInfo.type: InClusterConfig would have the server ask itself: use KubeConfigFile", i)
		}
	}
	return configuration, compiler, errs.ToAggregate()
}

func checkChain(content []byte) error {
	_, _, err := parseChain(content)
	return err
}

// buildChain makes the authorizers. Those that are webhooks are asked over connections of their own.
func (e *External) buildChain(_ context.Context, content []byte, _ bool) (chain, error) {
	configuration, compiler, err := parseChain(content)
	if err != nil {
		return chain{}, err
	}
	named := []union.NamedAuthorizer{{AuthorizerName: "system:masters", Authorizer: e.usual.Masters}}
	var rules []authorizer.RuleResolver
	for _, a := range configuration.Authorizers {
		var made authorizer.Authorizer
		switch a.Type {
		case typeNode:
			made = e.usual.Node
		case typeRBAC:
			made, rules = e.usual.RBAC, append(rules, e.usual.Rules)
		case typeAlwaysAllow:
			all := authorizerfactory.NewAlwaysAllowAuthorizer()
			made, rules = all, append(rules, all)
		case typeAlwaysDeny:
			none := authorizerfactory.NewAlwaysDenyAuthorizer()
			made, rules = none, append(rules, none)
		default:
			asked, err := newWebhook(a.Name, a.Webhook, compiler)
			if err != nil {
				return chain{}, fmt.Errorf("authorizer %s: %w", a.Name, err)
			}
			made, rules = asked, append(rules, asked)
		}
		named = append(named, union.NamedAuthorizer{AuthorizerName: a.Name, Authorizer: made})
	}
	all, err := union.New(named...)
	if err != nil {
		return chain{}, err
	}
	return chain{authorizer: all, rules: union.NewRuleResolvers(rules...)}, nil
}

func newWebhook(name string, w *apiserver.WebhookConfiguration, compiler authorizationcel.Compiler) (*authorizationwebhook.WebhookAuthorizer, error) {
	config, err := webhook.LoadKubeconfig(*w.ConnectionInfo.KubeConfigFile, nil)
	if err != nil {
		return nil, err
	}
	config.Timeout = w.Timeout.Duration
	onError := authorizer.DecisionNoOpinion
	if w.FailurePolicy == apiserver.FailurePolicyDeny {
		onError = authorizer.DecisionDeny
	}
	cached := func(ttl time.Duration, cache bool) time.Duration {
		if !cache {
			return 0
		}
		return ttl
	}
	return authorizationwebhook.New(config, w.SubjectAccessReviewVersion, cached(w.AuthorizedTTL.Duration, w.CacheAuthorizedRequests),
		cached(w.UnauthorizedTTL.Duration, w.CacheUnauthorizedRequests), *authorizationwebhook.DefaultRetryBackoff(), onError, w.MatchConditions, name,
		webhookMetrics{metrics.NoopRequestMetrics{}, metrics.NewWebhookMetrics(), authorizationcel.NewMatcherMetrics()}, compiler)
}

// webhookMetrics are those that kube-apiserver has of an authorizing webhook.
type webhookMetrics struct {
	metrics.RequestMetrics
	metrics.WebhookMetrics
	authorizationcel.MatcherMetrics
}
