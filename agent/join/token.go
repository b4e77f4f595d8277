package join

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// TokenVariable is the environment variable that holds a token for an agent, for those who would keep it off the command line.
const TokenVariable = "PODVINE_JOIN_TOKEN"

// Token lets a machine join. As text it is ID.SECRET.CAHASH: the first two are a bootstrap token as Kubernetes has them,
// the third is the SHA-256 of the cluster's CA certificate, by which the machine knows the cluster before it says the secret.
type Token struct {
	ID, Secret string
	// CAHash is in hexadecimal.
	CAHash string
}

var tokenPattern = regexp.MustCompile(`^([a-z0-9]{6})\.([a-z0-9]{16})\.([0-9a-f]{64})$`)

// String is the token as a user copies it. It holds the secret.
func (t Token) String() string { return t.ID + "." + t.Secret + "." + t.CAHash }

// ParseToken reads what [Token.String] wrote. Its errors hold nothing of the text.
func ParseToken(text string) (Token, error) {
	parts := tokenPattern.FindStringSubmatch(strings.TrimSpace(text))
	if parts == nil {
		return Token{}, errors.New("read token: it is not of the form ID.SECRET.HASH, as `podvine token create` prints it")
	}
	return Token{ID: parts[1], Secret: parts[2], CAHash: parts[3]}, nil
}

// tokenAlphabet has 32 characters, so that a byte's low five bits choose one evenly.
const tokenAlphabet = "abcdefghijkmnpqrstuvwxyz23456789"

// NewToken makes a token for the cluster of that CA certificate.
func NewToken(caPEM []byte) (Token, error) {
	hash, err := HashCA(caPEM)
	if err != nil {
		return Token{}, err
	}
	random := make([]byte, 22)
	rand.Read(random) // never fails, see crypto/rand
	for i, b := range random {
		random[i] = tokenAlphabet[int(b)%len(tokenAlphabet)]
	}
	return Token{ID: string(random[:6]), Secret: string(random[6:]), CAHash: hash}, nil
}

// HashCA is how a token names a cluster.
func HashCA(caPEM []byte) (string, error) {
	block, _ := pem.Decode(caPEM)
	if block == nil {
		return "", errors.New("hash the cluster's CA: there is no certificate in PEM")
	}
	sum := sha256.Sum256(block.Bytes)
	return hex.EncodeToString(sum[:]), nil
}

// The Secret that holds a token is a bootstrap token of Kubernetes, with a usage of its own.
const (
	secretPrefix   = "bootstrap-token-"
	secretType     = "bootstrap.kubernetes.io/token"
	keyID          = "token-id"
	keySecret      = "token-secret"
	keyExpiration  = "expiration"
	keyDescription = "description"
	keyUsage       = "usage-podvine-join"
)

// SecretName is the name, in kube-system, of the Secret that holds the token.
func SecretName(id string) string { return secretPrefix + id }

// Object is the Secret that makes the token valid until then.
func (t Token) Object(expires time.Time, description string) *corev1.Secret {
	data := map[string][]byte{
		keyID: []byte(t.ID), keySecret: []byte(t.Secret), keyExpiration: []byte(expires.UTC().Format(time.RFC3339)), keyUsage: []byte("true"),
	}
	if description != "" {
		data[keyDescription] = []byte(description)
	}
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: SecretName(t.ID), Namespace: metav1.NamespaceSystem}, Type: secretType, Data: data}
}

// CreateToken makes a token for the cluster of that CA certificate, valid until then.
func CreateToken(ctx context.Context, client kubernetes.Interface, caPEM []byte, expires time.Time, description string) (Token, error) {
	token, err := NewToken(caPEM)
	if err != nil {
		return Token{}, err
	}
	if _, err := client.CoreV1().Secrets(metav1.NamespaceSystem).Create(ctx, token.Object(expires, description), metav1.CreateOptions{}); err != nil {
		return Token{}, fmt.Errorf("make token: %w", err)
	}
	return token, nil
}

// Grant is what a Secret says of a token.
type Grant struct {
	ID, Description string
	Expires         time.Time

	secret []byte
}

// GrantOf reads a token's Secret; ok is false for any other Secret.
func GrantOf(secret *corev1.Secret) (grant Grant, ok bool) {
	if secret.Type != secretType || string(secret.Data[keyUsage]) != "true" || secret.Name != SecretName(string(secret.Data[keyID])) {
		return Grant{}, false
	}
	expires, err := time.Parse(time.RFC3339, string(secret.Data[keyExpiration]))
	if err != nil {
		return Grant{}, false // without a readable end it is no valid token
	}
	return Grant{ID: string(secret.Data[keyID]), Description: string(secret.Data[keyDescription]), Expires: expires, secret: secret.Data[keySecret]}, true
}

// admits compares in constant time.
func (g Grant) admits(secret string) bool {
	return len(g.secret) > 0 && subtle.ConstantTimeCompare(g.secret, []byte(secret)) == 1
}

// Expired tells whether the token's time is over.
func (g Grant) Expired(now time.Time) bool { return !now.Before(g.Expires) }

// Format for errors and logs: never the secret.
func (t Token) Format(state fmt.State, _ rune) { fmt.Fprintf(state, "token %s", t.ID) }
