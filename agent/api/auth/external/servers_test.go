package external

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// issuer is an issuer of tokens over HTTPS.
type issuer struct {
	*httptest.Server
	key *rsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	i := &issuer{key: key}
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Error(err)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys"})
	})
	mux.HandleFunc("/keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"keys": []any{map[string]any{"kty": "RSA", "kid": "k", "alg": "RS256", "use": "sig",
			"n": base64.RawURLEncoding.EncodeToString(key.N.Bytes()), "e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(key.E)).Bytes())}}})
	})
	i.Server = httptest.NewTLSServer(mux)
	t.Cleanup(i.Close)
	return i
}

// token has these claims beside the usual ones.
func (i *issuer) token(t *testing.T, claims map[string]any) string {
	t.Helper()
	all := map[string]any{"iss": i.URL, "aud": "podvine", "sub": "alice", "exp": time.Now().Add(time.Hour).Unix(), "groups": []string{"dev"}, "staff": true}
	for key, value := range claims {
		all[key] = value
	}
	body, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	signed := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"RS256","kid":"k"}`)) + "." + base64.RawURLEncoding.EncodeToString(body)
	sum := sha256.Sum256([]byte(signed))
	signature, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// configuration trusts the issuer for its staff, with that prefix of names.
func (i *issuer) configuration(prefix string) string {
	ca := strings.ReplaceAll(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.Certificate().Raw})), "\n", "\n      ")
	return fmt.Sprintf(`apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous: {enabled: true, conditions: [{path: /livez}]}
jwt:
- issuer:
    url: %s
    audiences: [podvine]
    certificateAuthority: |
      %s
  claimValidationRules: [{expression: 'claims.staff == true', message: staff only}]
  claimMappings:
    username: {claim: sub, prefix: %q}
    groups: {claim: groups, prefix: "oidc:"}
  userValidationRules: [{expression: "!user.username.startsWith('system:')", message: no system users}]
`, i.URL, ca, prefix)
}

func TestIssuers(t *testing.T) {
	i, stranger := newIssuer(t), newIssuer(t)
	path := write(t, filepath.Join(t.TempDir(), "authentication.yaml"), i.configuration("staff:"))
	e, _, log := start(t, Files{Authentication: path}, Usual{})
	if a := e.Anonymous(); a == nil || !a.Enabled || len(a.Conditions) != 1 || a.Conditions[0].Path != "/livez" {
		t.Errorf("anonymous requests: %+v", a)
	}
	named := func(name string) func() bool {
		return func() bool {
			who, err := ask(t, e, i.token(t, nil))
			return err == nil && who != nil && who.GetName() == name && slices.Equal(who.GetGroups(), []string{"oidc:dev"})
		}
	}
	until(t, "the issuer's keys are fetched", named("staff:alice"))
	for name, c := range map[string]struct {
		token   string
		refused string // "" is no opinion
	}{
		"for others":       {i.token(t, map[string]any{"aud": "other"}), "expected audience"},
		"expired":          {i.token(t, map[string]any{"exp": time.Now().Add(-time.Hour).Unix()}), "expired"},
		"not of the staff": {i.token(t, map[string]any{"staff": false}), "staff only"},
		"of a stranger":    {stranger.token(t, nil), ""},
		"badly signed":     {i.token(t, nil) + "AA", "verify"},
		"signed by another": {func() string {
			forged := *stranger
			forged.Server = i.Server
			return forged.token(t, nil)
		}(), "verify"},
	} {
		who, err := ask(t, e, c.token)
		if who != nil || (err == nil) != (c.refused == "") || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%s: %v, %v", name, who, err)
		}
	}
	write(t, path, i.configuration("system:"))
	until(t, "a changed file counts", func() bool {
		_, err := ask(t, e, i.token(t, nil))
		return err != nil && strings.Contains(err.Error(), "no system users")
	})
	write(t, path, i.configuration("all:"))
	until(t, "a changed file counts", named("all:alice"))
	write(t, path, "nonsense")
	until(t, "a bad file is named", func() bool { return log.count("stays in effect") == 1 })
	if !named("all:alice")() {
		t.Error("a bad file took the issuer away")
	}
}

func TestTokenWebhook(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		var review authenticationv1.TokenReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil || r.Header.Get("Authorization") != "Bearer t" {
			t.Errorf("%v, %v", err, r.Header)
		}
		if review.Spec.Token == "good" {
			review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: "carol", Groups: []string{"dev"}}}
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(&review); err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	e, _, _ := start(t, Files{TokenWebhook: kubeconfig(t, server)}, Usual{})
	for range 3 {
		if who, err := ask(t, e, "good"); err != nil || who == nil || who.GetName() != "carol" || !slices.Equal(who.GetGroups(), []string{"dev"}) {
			t.Fatalf("%v, %v", who, err)
		}
	}
	if who, err := ask(t, e, "bad"); err != nil || who != nil {
		t.Errorf("%v, %v", who, err)
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("asked %d times for two tokens", n)
	}
}

// newReviewer allows to create, denies to delete, and counts how often it is asked.
func newReviewer(t *testing.T, asked *atomic.Int32) *httptest.Server {
	t.Helper()
	return httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		var review authorizationv1.SubjectAccessReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		switch review.Spec.ResourceAttributes.Verb {
		case "create":
			review.Status.Allowed = true
		case "delete":
			review.Status.Denied, review.Status.Reason = true, "not on my watch"
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(&review); err != nil {
			t.Error(err)
		}
	}))
}

func TestAuthorizationWebhook(t *testing.T) {
	var asked atomic.Int32
	server := newReviewer(t, &asked)
	hook := func(policy string) string {
		return fmt.Sprintf(`apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers:
- type: Webhook
  name: shop
  webhook:
    timeout: 3s
    subjectAccessReviewVersion: v1
    matchConditionSubjectAccessReviewVersion: v1
    failurePolicy: %s
    connectionInfo: {type: KubeConfigFile, kubeConfigFile: %s}
    matchConditions: [{expression: "request.resourceAttributes.namespace == 'shop'"}]
- {type: RBAC, name: rbac}
`, policy, kubeconfig(t, server))
	}
	path := write(t, filepath.Join(t.TempDir(), "authorization.yaml"), hook("Deny"))
	_, decides, _ := start(t, Files{Authorization: path}, usualOf())
	decide := func(verb, namespace string, groups ...string) authorizer.Decision {
		decision, _, _ := decides.Authorize(t.Context(), authorizer.AttributesRecord{User: &user.DefaultInfo{Name: "u", Groups: groups},
			Verb: verb, Namespace: namespace, Resource: "pods", ResourceRequest: true})
		return decision
	}
	for _, c := range []struct {
		verb, namespace string
		groups          []string
		want            authorizer.Decision
	}{
		{"create", "shop", nil, authorizer.DecisionAllow},
		{"delete", "shop", nil, authorizer.DecisionDeny},
		{"delete", "shop", []string{"system:masters"}, authorizer.DecisionAllow},
		{"get", "shop", nil, authorizer.DecisionAllow}, // by RBAC: the webhook has no opinion
		{"create", "default", nil, authorizer.DecisionNoOpinion},
		{"list", "default", nil, authorizer.DecisionNoOpinion}, // the Node authorizer is not in the file
	} {
		if got := decide(c.verb, c.namespace, c.groups...); got != c.want {
			t.Errorf("%+v: %v", c, got)
		}
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("asked %d times: elsewhere it has no say", n)
	}
	server.Close()
	if got := decide("get", "shop", "uncached"); got != authorizer.DecisionDeny {
		t.Errorf("%v while the webhook is away", got)
	}
	write(t, path, hook("NoOpinion"))
	until(t, "a changed file counts", func() bool { return decide("get", "shop", "uncached") == authorizer.DecisionAllow })
	write(t, path, "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthorizationConfiguration\nauthorizers: [{type: Node, name: node}]")
	until(t, "a changed file counts", func() bool {
		return decide("list", "shop") == authorizer.DecisionAllow && decide("get", "shop") == authorizer.DecisionNoOpinion
	})
}
