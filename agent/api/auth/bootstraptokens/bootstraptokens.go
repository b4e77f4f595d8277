// Package bootstraptokens authenticates bearers of bootstrap tokens, the Secrets bootstrap-token-ID in kube-system, by
// Kubernetes' rules: the Secret is of the type for it, has not expired, and is meant for authentication. The bearer is
// system:bootstrap:ID in the group system:bootstrappers and those that the Secret adds.
//
// Role: a token of that form is looked up when it is shown, so that a deleted one counts no more; nothing is kept.
// Safe for concurrent use.
package bootstraptokens

import (
	"context"
	"crypto/subtle"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"
	bootstraputil "k8s.io/cluster-bootstrap/token/util"
	bootstrapsecrets "k8s.io/cluster-bootstrap/util/secrets"
)

// Authenticator checks bootstrap tokens against the Secrets that Client reads.
type Authenticator struct{ Client kubernetes.Interface }

var _ authenticator.Token = Authenticator{}

// AuthenticateToken implements authenticator.Token. It has no opinion on a token that is not one of these, or is not valid.
func (a Authenticator) AuthenticateToken(ctx context.Context, token string) (*authenticator.Response, bool, error) {
	if !bootstraputil.IsValidBootstrapToken(token) {
		return nil, false, nil
	}
	id, secret, _ := strings.Cut(token, ".")
	object, err := a.Client.CoreV1().Secrets(metav1.NamespaceSystem).Get(ctx, bootstraputil.BootstrapTokenSecretName(id), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("look up bootstrap token %s: %w", id, err)
	}
	bearer, ok := admit(object, id, secret, time.Now())
	if !ok {
		return nil, false, nil
	}
	return &authenticator.Response{User: bearer}, true, nil
}

// admit says who the bearer is. It is pure.
func admit(object *corev1.Secret, id, secret string, now time.Time) (*user.DefaultInfo, bool) {
	get := func(key string) string { return bootstrapsecrets.GetData(object, key) }
	known := subtle.ConstantTimeCompare([]byte(get(bootstrapapi.BootstrapTokenSecretKey)), []byte(secret)) == 1
	if object.DeletionTimestamp != nil || object.Type != bootstrapapi.SecretTypeBootstrapToken || !known || get(bootstrapapi.BootstrapTokenIDKey) != id ||
		bootstrapsecrets.HasExpired(object, now) || get(bootstrapapi.BootstrapTokenUsageAuthentication) != "true" {
		return nil, false
	}
	groups, err := bootstrapsecrets.GetGroups(object)
	if err != nil {
		return nil, false // a group that no bootstrap token may have
	}
	return &user.DefaultInfo{Name: bootstrapapi.BootstrapUserPrefix + id, Groups: groups}, true
}
