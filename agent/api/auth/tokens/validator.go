package tokens

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hashicorp/golang-lru/v2"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/token/jwt"
)

const (
	// leewaySeconds is how far the clocks of issuer and verifier may differ, and how long an object that is being
	// deleted still backs its tokens.
	leewaySeconds = 60
	// cachedTokens bounds the tokens whose signature is known to be good; the oldest is checked again.
	cachedTokens = 8192
)

// ValidatorConfig says which tokens are good. All fields but Now are required.
type ValidatorConfig struct {
	// Issuers are the accepted values of "iss", the current one first.
	Issuers []string
	// Audiences are those of the API server, for requests that name none.
	Audiences []string
	Keys      Keys
	Objects   Objects
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Validator authenticates service-account tokens.
type Validator struct {
	config   ValidatorConfig
	verified *lru.Cache[[sha256.Size]byte, *claims]
}

var _ authenticator.Token = (*Validator)(nil)

// NewValidator checks the configuration.
func NewValidator(config ValidatorConfig) (*Validator, error) {
	if len(config.Issuers) == 0 || len(config.Audiences) == 0 || config.Keys == nil || config.Objects == nil {
		return nil, errors.New("make token validator: issuers, audiences, keys and objects are needed")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	cache, err := lru.New[[sha256.Size]byte, *claims](cachedTokens)
	if err != nil {
		return nil, fmt.Errorf("make token cache: %w", err)
	}
	return &Validator{config: config, verified: cache}, nil
}

// AuthenticateToken says whose token it is. A token of another issuer is none of its business (false without an error).
func (v *Validator) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	c, ours, err := v.claims(token)
	if err != nil || !ours {
		return nil, false, err
	}
	requested, ok := authenticator.AudiencesFrom(ctx)
	if !ok {
		requested = v.config.Audiences
	}
	held := authenticator.Audiences(c.Audience)
	if len(held) == 0 {
		held = v.config.Audiences
	}
	audiences := held.Intersect(requested)
	if len(audiences) == 0 {
		return nil, false, fmt.Errorf("token audiences %q is invalid for the target audiences %q", []string(held), []string(requested))
	}
	info, err := v.check(ctx, c)
	if err != nil {
		return nil, false, err
	}
	return &authenticator.Response{User: info.UserInfo(), Audiences: audiences}, true, nil
}

// claims returns the claims of a token of ours whose signature is good.
func (v *Validator) claims(token string) (c *claims, ours bool, err error) {
	if len(token) > maxTokenBytes {
		return nil, false, nil
	}
	sum := sha256.Sum256([]byte(token))
	if c, ok := v.verified.Get(sum); ok {
		return c, true, nil
	}
	head, parsed, err := parts(token)
	if err != nil || !slices.Contains(v.config.Issuers, parsed.Issuer) {
		return nil, false, nil //nolint:nilerr // somebody else's token
	}
	if err := verify(v.config.Keys, token, head); err != nil {
		return nil, false, err
	}
	v.verified.Add(sum, &parsed)
	return &parsed, true, nil
}

// check says whether a token that is well signed holds now.
func (v *Validator) check(ctx context.Context, c *claims) (*serviceaccount.ServiceAccountInfo, error) {
	now := v.config.Now()
	switch {
	case c.Expiry == 0 || now.Unix() > c.Expiry+leewaySeconds:
		return nil, errors.New("service account token has expired")
	case now.Unix() < c.NotBefore-leewaySeconds:
		return nil, errors.New("service account token is not valid yet")
	case c.IssuedAt-leewaySeconds > now.Unix():
		return nil, errors.New("service account token is issued in the future")
	}
	k := c.Kubernetes
	if k.Namespace == "" || k.ServiceAccount.Name == "" || c.Subject != serviceaccount.MakeUsername(k.Namespace, k.ServiceAccount.Name) {
		return nil, errors.New("service account token claims could not be validated")
	}
	info := &serviceaccount.ServiceAccountInfo{
		Namespace: k.Namespace, Name: k.ServiceAccount.Name, UID: string(k.ServiceAccount.UID), CredentialID: jwt.CredentialIDForJTI(c.ID),
	}
	if err := v.checkObjects(ctx, k, now); err != nil {
		return nil, err
	}
	if k.Pod != nil {
		info.PodName, info.PodUID = k.Pod.Name, string(k.Pod.UID)
	}
	if k.Node != nil {
		info.NodeName, info.NodeUID = k.Node.Name, string(k.Node.UID)
	}
	if k.WarnAfter != 0 && now.Unix() > k.WarnAfter {
		audit.AddAuditAnnotation(ctx, "authentication.k8s.io/stale-token", fmt.Sprintf("subject: %s, seconds after warning threshold: %d", c.Subject, now.Unix()-k.WarnAfter))
	}
	return info, nil
}

// checkObjects looks whether everything that the token is bound to is still there, and is the same.
func (v *Validator) checkObjects(ctx context.Context, k boundClaims, now time.Time) error {
	account, err := v.config.Objects.ServiceAccount(ctx, k.Namespace, k.ServiceAccount.Name)
	if err := alive("service account", k.ServiceAccount, account, err, now); err != nil {
		return err
	}
	if k.Secret != nil {
		secret, err := v.config.Objects.Secret(ctx, k.Namespace, k.Secret.Name)
		if err := alive("secret", *k.Secret, secret, err, now); err != nil {
			return err
		}
	}
	if k.Pod != nil {
		pod, err := v.config.Objects.Pod(ctx, k.Namespace, k.Pod.Name)
		if err := alive("pod", *k.Pod, pod, err, now); err != nil {
			return err
		}
	}
	if k.Node != nil && k.Pod == nil {
		node, err := v.config.Objects.Node(ctx, k.Node.Name)
		if err := alive("node", *k.Node, node, err, now); err != nil {
			return err
		}
	}
	return nil
}

// alive says why an object no longer backs the tokens that are bound to it.
func alive(what string, ref reference, obj metav1.Object, err error, now time.Time) error {
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%s %q of the token not found: the token has been invalidated", what, ref.Name)
	}
	if err != nil {
		return fmt.Errorf("look up %s of the token: %w", what, err)
	}
	if uid := obj.GetUID(); uid != ref.UID {
		return mismatch(what, uid, ref.UID)
	}
	if gone := obj.GetDeletionTimestamp(); gone != nil && gone.Time.Before(now.Add(-leewaySeconds*time.Second)) {
		return fmt.Errorf("%s %q of the token has been deleted", what, ref.Name)
	}
	return nil
}

func mismatch(what string, have, want types.UID) error {
	return fmt.Errorf("%s UID (%s) does not match claim (%s)", what, have, want)
}
