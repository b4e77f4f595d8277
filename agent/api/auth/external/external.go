// Package external is what an administrator adds to the authentication and authorization of a member, in files as
// kube-apiserver reads them: OpenID Connect and other issuers of JWTs (AuthenticationConfiguration), a token webhook, a file of
// static tokens, and the authorizers with their order (AuthorizationConfiguration), webhooks among them.
//
// Role: [New] reads and checks every file, so that a bad one keeps the server from starting; [External.Start] puts them into
// effect and looks for changes every few seconds. A changed file that is bad, or whose issuers cannot be reached, is logged
// once and changes nothing.
//
// Ownership: the files are the administrator's. What Start starts ends with its context; [External.Wait] waits
// for that.
//
// Concurrency: [External.Tokens] and what [External.Authorization] returns may be used from any goroutine, also while files
// change.
package external

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// PollSeconds is how often files are looked at for changes.
const PollSeconds = 5

// Files name the files; an empty name is none.
type Files struct {
	// Authentication holds an AuthenticationConfiguration. Its anonymous part is read at the start only.
	Authentication string
	// Authorization holds an AuthorizationConfiguration.
	Authorization string
	// Tokens holds static tokens: lines of TOKEN,USER,UID,"GROUP,…".
	Tokens string
	// TokenWebhook is a kubeconfig that leads to a server of TokenReviews.
	TokenWebhook string
	// TokenWebhookVersion of authentication.k8s.io is v1 or v1beta1.
	TokenWebhookVersion string
	// TokenWebhookCache is how long its answers count.
	TokenWebhookCache time.Duration
}

// Config says whose files.
type Config struct {
	Files Files
	// Issuer is the issuer of the cluster's own tokens, which no file may name.
	Issuer string
	// Audiences of tokens that say none.
	Audiences authenticator.Audiences
	// ServerID tells members apart in metrics.
	ServerID string
	// Poll is the time between two looks at the files; 0 is [PollSeconds].
	Poll time.Duration
	Log  *slog.Logger
}

// External is what the files say. Make it with [New].
type External struct {
	config         Config
	authentication *file[authenticator.Token]
	tokens         *file[authenticator.Token]
	webhook        *file[authenticator.Token]
	authorization  *file[chain]
	anonymous      *apiserver.AnonymousAuthConfig
	usual          Usual
}

// New reads and checks the files.
func New(config Config) (*External, error) {
	if config.Log == nil {
		return nil, errors.New("configure access: no logger")
	}
	if config.Poll == 0 {
		config.Poll = PollSeconds * time.Second
	}
	e := &External{config: config}
	files := config.Files
	e.authentication = newFile(files.Authentication, config, e.buildIssuers)
	e.tokens = newFile(files.Tokens, config, e.buildStatic)
	e.webhook = newFile(files.TokenWebhook, config, e.buildWebhook)
	e.authorization = newFile(files.Authorization, config, e.buildChain)
	return e, errors.Join(
		e.authentication.check(e.checkIssuers), e.authorization.check(checkChain),
		e.tokens.check(e.checks(e.buildStatic)), e.webhook.check(e.checks(e.buildWebhook)))
}

// checks makes what starts nothing, and forgets it.
func (e *External) checks(build func(context.Context, []byte, bool) (authenticator.Token, error)) func([]byte) error {
	return func(content []byte) error {
		_, err := build(context.Background(), content, true)
		return err
	}
}

// Start puts the files into effect, or says which cannot be, and follows their changes until ctx ends.
func (e *External) Start(ctx context.Context) error {
	for _, start := range []func(context.Context) error{e.authentication.start, e.tokens.start, e.webhook.start, e.authorization.start} {
		if err := start(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Wait returns when no file is looked at any more. It is called after the context of Start has ended, also when Start failed.
func (e *External) Wait() {
	for _, f := range []*file[authenticator.Token]{e.authentication, e.tokens, e.webhook} {
		f.following.Wait()
	}
	e.authorization.following.Wait()
}

// Tokens check bearer tokens by the files; before Start they know none.
func (e *External) Tokens() []authenticator.Token {
	var tokens []authenticator.Token
	for _, f := range []*file[authenticator.Token]{e.tokens, e.authentication, e.webhook} {
		if f.path == "" {
			continue
		}
		tokens = append(tokens, authenticator.TokenFunc(func(ctx context.Context, token string) (*authenticator.Response, bool, error) {
			current := f.current.Load()
			if current == nil {
				return nil, false, nil
			}
			return (*current).AuthenticateToken(ctx, token)
		}))
	}
	return tokens
}

// Anonymous is what the files say of anonymous requests, nil where they say nothing.
func (e *External) Anonymous() *apiserver.AnonymousAuthConfig { return e.anonymous }

// Usual are the authorizers that every member has.
type Usual struct {
	// Masters is always asked first.
	Masters, Node, RBAC authorizer.Authorizer
	// Rules lists what RBAC allows.
	Rules authorizer.RuleResolver
}

// Authorization is the authorizer that the files ask for, around the usual ones; nil where they do not say. It denies
// everything before Start.
func (e *External) Authorization(usual Usual) *Authorizer {
	if e.authorization.path == "" {
		return nil
	}
	e.usual = usual
	return &Authorizer{e.authorization}
}
