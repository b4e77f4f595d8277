package external

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/apis/apiserver/install"
	"k8s.io/apiserver/pkg/apis/apiserver/validation"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	authenticationcel "k8s.io/apiserver/pkg/authentication/cel"
	tokencache "k8s.io/apiserver/pkg/authentication/token/cache"
	"k8s.io/apiserver/pkg/authentication/token/tokenfile"
	tokenunion "k8s.io/apiserver/pkg/authentication/token/union"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/apiserver/pkg/util/webhook"
	"k8s.io/apiserver/plugin/pkg/authenticator/token/oidc"
	tokenwebhook "k8s.io/apiserver/plugin/pkg/authenticator/token/webhook"
)

const (
	// healthySeconds is how long the issuers of a changed file have to answer before the file counts as bad.
	healthySeconds = 10
	healthyPoll    = 100 * time.Millisecond
)

// parseAuthentication reads an AuthenticationConfiguration of any version; an unknown field is an error.
func parseAuthentication(content []byte) (*apiserver.AuthenticationConfiguration, error) {
	scheme := runtime.NewScheme()
	install.Install(scheme)
	decoded, err := runtime.Decode(serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDecoder(), content)
	if err != nil {
		return nil, err
	}
	configuration, ok := decoded.(*apiserver.AuthenticationConfiguration)
	if !ok {
		return nil, fmt.Errorf("it holds a %T, not an AuthenticationConfiguration", decoded)
	}
	return configuration, nil
}

func (e *External) parseIssuers(content []byte) (*apiserver.AuthenticationConfiguration, authenticationcel.Compiler, error) {
	configuration, err := parseAuthentication(content)
	if err != nil {
		return nil, nil, err
	}
	compiler := authenticationcel.NewDefaultCompiler()
	errs := validation.ValidateAuthenticationConfiguration(compiler, configuration, []string{e.config.Issuer})
	return configuration, compiler, errs.ToAggregate()
}

func (e *External) checkIssuers(content []byte) error {
	configuration, _, err := e.parseIssuers(content)
	if err == nil {
		e.anonymous = configuration.Anonymous
	}
	return err
}

// buildIssuers makes an authenticator of the tokens of every issuer. At the start it does not wait for them: a member starts
// also while an issuer is away.
func (e *External) buildIssuers(ctx context.Context, content []byte, first bool) (authenticator.Token, error) {
	configuration, compiler, err := e.parseIssuers(content)
	if err != nil {
		return nil, err
	}
	var tokens []authenticator.Token
	var healthy []func() error
	for _, issuer := range configuration.JWT {
		options := oidc.Options{
			JWTAuthenticator: issuer, Compiler: compiler, SupportedSigningAlgs: oidc.AllValidSigningAlgorithms(), DisallowedIssuers: []string{e.config.Issuer},
			APIServerID: e.config.ServerID,
		}
		if ca := issuer.Issuer.CertificateAuthority; ca != "" {
			provider, err := dynamiccertificates.NewStaticCAContent("oidc-authenticator", []byte(ca))
			if err != nil {
				return nil, fmt.Errorf("read the authority of issuer %s: %w", issuer.Issuer.URL, err)
			}
			options.CAContentProvider = provider
		}
		made, err := oidc.New(ctx, options)
		if err != nil {
			return nil, fmt.Errorf("trust issuer %s: %w", issuer.Issuer.URL, err)
		}
		tokens, healthy = append(tokens, made), append(healthy, made.HealthCheck)
	}
	if !first {
		if err := awaitHealthy(ctx, healthy); err != nil {
			return nil, err
		}
	}
	return authenticator.WrapAudienceAgnosticToken(e.config.Audiences, tokenunion.New(tokens...)), nil
}

func awaitHealthy(ctx context.Context, healthy []func() error) error {
	var problem error
	err := wait.PollUntilContextTimeout(ctx, healthyPoll, healthySeconds*time.Second, true, func(context.Context) (bool, error) {
		problem = nil
		for _, check := range healthy {
			problem = errors.Join(problem, check())
		}
		return problem == nil, nil
	})
	return errors.Join(err, problem)
}

// buildStatic reads the file of tokens by its path: the library does.
func (e *External) buildStatic(context.Context, []byte, bool) (authenticator.Token, error) {
	tokens, err := tokenfile.NewCSV(e.config.Files.Tokens)
	if err != nil {
		return nil, err
	}
	return authenticator.WrapAudienceAgnosticToken(e.config.Audiences, tokens), nil
}

func (e *External) buildWebhook(context.Context, []byte, bool) (authenticator.Token, error) {
	files := e.config.Files
	config, err := webhook.LoadKubeconfig(files.TokenWebhook, nil)
	if err != nil {
		return nil, err
	}
	asked, err := tokenwebhook.New(config, files.TokenWebhookVersion, e.config.Audiences, *tokenwebhook.DefaultRetryBackoff())
	if err != nil {
		return nil, err
	}
	return tokencache.New(asked, false, files.TokenWebhookCache, files.TokenWebhookCache), nil
}
