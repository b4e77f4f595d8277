package tokens

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/client-go/kubernetes/fake"
)

const testIssuer = "https://kubernetes.default.svc.cluster.local"

func testTime() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

// testKeys sign with one key and know it by one id.
type testKeys struct {
	id  string
	key crypto.Signer
}

func (k testKeys) SigningKey() (string, crypto.Signer) { return k.id, k.key }
func (k testKeys) PublicKey(id string) (crypto.PublicKey, bool) {
	return k.key.Public(), id == k.id
}

func rsaKeys(t *testing.T, id string) testKeys {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return testKeys{id, key}
}

type fixture struct {
	client    *fake.Clientset
	keys      testKeys
	issuer    *Issuer
	validator *Validator
	now       time.Time
}

func meta(name, uid string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: "ns", UID: types.UID(uid)}
}

func newFixture(t *testing.T, keys testKeys) *fixture {
	t.Helper()
	f := &fixture{keys: keys, now: testTime(), client: fake.NewClientset(
		&corev1.ServiceAccount{ObjectMeta: meta("sa", "sa-uid")},
		&corev1.ServiceAccount{ObjectMeta: meta("other", "other-uid")},
		&corev1.Pod{ObjectMeta: meta("pod", "pod-uid"), Spec: corev1.PodSpec{ServiceAccountName: "sa", NodeName: "node"}},
		&corev1.Secret{ObjectMeta: meta("secret", "secret-uid")},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node", UID: "node-uid"}},
	)}
	clock := func() time.Time { return f.now }
	var err error
	f.issuer, err = NewIssuer(IssuerConfig{Issuer: testIssuer, Audiences: []string{testIssuer}, Keys: keys, Objects: Live{f.client}, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	f.validator, err = NewValidator(ValidatorConfig{Issuers: []string{testIssuer}, Audiences: []string{testIssuer}, Keys: keys, Objects: Live{f.client}, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func (f *fixture) request(seconds int64, audiences []string, ref *authenticationv1.BoundObjectReference) (*authenticationv1.TokenRequest, error) {
	account, err := Live{f.client}.ServiceAccount(context.Background(), "ns", "sa")
	if err != nil {
		return nil, err
	}
	r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: audiences, BoundObjectRef: ref}}
	if seconds != 0 {
		r.Spec.ExpirationSeconds = &seconds
	}
	return f.issuer.Issue(context.Background(), account, r, nil)
}

func (f *fixture) token(t *testing.T, ref *authenticationv1.BoundObjectReference) string {
	t.Helper()
	r, err := f.request(0, nil, ref)
	if err != nil {
		t.Fatal(err)
	}
	return r.Status.Token
}

func bound(kind, name string) *authenticationv1.BoundObjectReference {
	return &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: kind, Name: name}
}

func TestGoodTokens(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, keys := range map[string]testKeys{"RSA": rsaKeys(t, "k"), "ECDSA": {"k", ec}} {
		f := newFixture(t, keys)
		for _, ref := range []*authenticationv1.BoundObjectReference{nil, bound("Pod", "pod"), bound("Secret", "secret"), bound("Node", "node")} {
			response, ok, err := f.validator.AuthenticateToken(context.Background(), f.token(t, ref))
			if err != nil || !ok {
				t.Errorf("%s, bound to %v: %t %v", name, ref, ok, err)
				continue
			}
			u := response.User
			if u.GetName() != "system:serviceaccount:ns:sa" || u.GetUID() != "sa-uid" || len(u.GetGroups()) != 2 {
				t.Errorf("%s: user %v", name, u)
			}
			if ref != nil && ref.Kind == "Pod" && (u.GetExtra()["authentication.kubernetes.io/pod-uid"][0] != "pod-uid" ||
				u.GetExtra()["authentication.kubernetes.io/node-uid"][0] != "node-uid") {
				t.Errorf("%s: extra %v", name, u.GetExtra())
			}
		}
	}
}

// change returns a token with other claims, signed again where keys are given.
func change(t *testing.T, token string, keys Keys, edit func(map[string]any)) string {
	t.Helper()
	p := strings.Split(token, ".")
	body, err := decode(p[1])
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(body, &c); err != nil {
		t.Fatal(err)
	}
	edit(c)
	if body, err = json.Marshal(c); err != nil {
		t.Fatal(err)
	}
	if keys == nil {
		return p[0] + "." + encode(body) + "." + p[2]
	}
	var typed claims
	if err := json.Unmarshal(body, &typed); err != nil {
		t.Fatal(err)
	}
	signed, err := sign(keys, &typed)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestBadTokens(t *testing.T) {
	f, stranger := newFixture(t, rsaKeys(t, "k")), rsaKeys(t, "k")
	good := f.token(t, bound("Pod", "pod"))
	head := func(h string) string { return encode([]byte(h)) + good[strings.IndexByte(good, '.'):] }
	for name, c := range map[string]struct{ token, want string }{
		"changed claims":     {change(t, good, nil, func(c map[string]any) { c["sub"] = "system:serviceaccount:ns:other" }), "invalid signature"},
		"key of another CA":  {change(t, good, stranger, func(map[string]any) {}), "invalid signature"},
		"unknown key":        {change(t, good, testKeys{"other", f.keys.key}, func(map[string]any) {}), "invalid signature"},
		"no algorithm":       {head(`{"alg":"none","kid":"k"}`), "invalid signature"},
		"symmetric":          {head(`{"alg":"HS256","kid":"k"}`), "invalid signature"},
		"critical extension": {head(`{"alg":"RS256","kid":"k","crit":["b64"]}`), "invalid signature"},
		"expired":            {change(t, good, f.keys, func(c map[string]any) { c["exp"] = f.now.Unix() - 61 }), "has expired"},
		"never expires":      {change(t, good, f.keys, func(c map[string]any) { delete(c, "exp") }), "has expired"},
		"not yet valid":      {change(t, good, f.keys, func(c map[string]any) { c["nbf"] = f.now.Unix() + 61 }), "not valid yet"},
		"other audience":     {change(t, good, f.keys, func(c map[string]any) { c["aud"] = "vault" }), "is invalid for the target audiences"},
		"other subject":      {change(t, good, f.keys, func(c map[string]any) { c["sub"] = "system:serviceaccount:ns:other" }), "could not be validated"},
		"other account UID": {change(t, good, f.keys, func(c map[string]any) {
			c["kubernetes.io"].(map[string]any)["serviceaccount"].(map[string]any)["uid"] = "x"
		}), "does not match claim"},
		"other issuer": {change(t, good, f.keys, func(c map[string]any) { c["iss"] = "https://elsewhere" }), ""},
		"junk":         {"a.b.c", ""},
		"no token":     {"", ""},
		"huge":         {strings.Repeat("a", maxTokenBytes+1), ""},
	} {
		_, ok, err := f.validator.AuthenticateToken(context.Background(), c.token)
		if ok || c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %t, error %v, want %q", name, ok, err, c.want)
		}
	}
}

func TestTokenDiesWithWhatItIsBoundTo(t *testing.T) {
	ctx := context.Background()
	for kind, remove := range map[string]func(f *fixture) error{
		"Pod": func(f *fixture) error { return f.client.CoreV1().Pods("ns").Delete(ctx, "pod", metav1.DeleteOptions{}) },
		"Secret": func(f *fixture) error {
			return f.client.CoreV1().Secrets("ns").Delete(ctx, "secret", metav1.DeleteOptions{})
		},
		"Node": func(f *fixture) error { return f.client.CoreV1().Nodes().Delete(ctx, "node", metav1.DeleteOptions{}) },
		"ServiceAccount": func(f *fixture) error {
			return f.client.CoreV1().ServiceAccounts("ns").Delete(ctx, "sa", metav1.DeleteOptions{})
		},
	} {
		f := newFixture(t, rsaKeys(t, "k"))
		var ref *authenticationv1.BoundObjectReference
		if kind != "ServiceAccount" {
			ref = bound(kind, strings.ToLower(kind))
		}
		token := f.token(t, ref)
		if _, ok, err := f.validator.AuthenticateToken(ctx, token); !ok || err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if err := remove(f); err != nil {
			t.Fatal(err)
		}
		if _, ok, err := f.validator.AuthenticateToken(ctx, token); ok || err == nil || !strings.Contains(err.Error(), "invalidated") {
			t.Errorf("%s gone: %t, %v", kind, ok, err)
		}
	}
}

func TestAudienceOfTheRequestCounts(t *testing.T) {
	f := newFixture(t, rsaKeys(t, "k"))
	r, err := f.request(0, []string{"vault", "bank"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx := authenticator.WithAudiences(context.Background(), authenticator.Audiences{"vault"})
	response, ok, err := f.validator.AuthenticateToken(ctx, r.Status.Token)
	if err != nil || !ok || len(response.Audiences) != 1 || response.Audiences[0] != "vault" {
		t.Errorf("%v %t %v", response, ok, err)
	}
}

func TestLifetimes(t *testing.T) {
	f := newFixture(t, rsaKeys(t, "k"))
	for seconds, want := range map[int64]string{599: "less than 10 minutes", 1<<32 + 1: "larger than 2^32", 600: "", 1 << 32: ""} {
		_, err := f.request(seconds, nil, nil)
		if want == "" && err != nil || want != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%d s: %v", seconds, err)
		}
	}
	r, err := f.request(WarnOnlySeconds, nil, bound("Pod", "pod"))
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Status.ExpirationTimestamp.Time; !got.Equal(f.now.Add(WarnOnlySeconds * time.Second)) {
		t.Errorf("told to expire at %s", got)
	}
	f.now = f.now.Add(30 * 24 * time.Hour)
	if _, ok, err := f.validator.AuthenticateToken(context.Background(), r.Status.Token); !ok || err != nil {
		t.Errorf("a volume's token lives on for clients that never read it again: %v", err)
	}
}

func TestBindings(t *testing.T) {
	f := newFixture(t, rsaKeys(t, "k"))
	wrongUID := bound("Pod", "pod")
	wrongUID.UID = "x"
	for name, c := range map[string]struct {
		ref  *authenticationv1.BoundObjectReference
		want func(error) bool
		text string
	}{
		"absent pod":  {bound("Pod", "absent"), apierrors.IsNotFound, `pods "absent" not found`},
		"other kind":  {bound("ConfigMap", "x"), apierrors.IsBadRequest, "cannot bind token to object of type /v1, Kind=ConfigMap"},
		"another UID": {wrongUID, apierrors.IsConflict, "does not match the UID in record"},
	} {
		_, err := f.request(0, nil, c.ref)
		if !c.want(err) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDiscovery(t *testing.T) {
	keys := rsaKeys(t, "k")
	d, err := NewDiscovery(testIssuer, "https://h:6443"+KeySetPath, func() []VerifyingKey { return []VerifyingKey{{"k", keys.key.Public()}} })
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	d.ServeConfiguration(w, nil)
	if got := w.Body.String(); !strings.Contains(got, `"jwks_uri":"https://h:6443/openid/v1/jwks"`) || !strings.Contains(got, `["RS256"]`) {
		t.Errorf("configuration %s", got)
	}
	w = httptest.NewRecorder()
	d.ServeKeySet(w, nil)
	if got := w.Body.String(); !strings.Contains(got, `"kid":"k"`) || !strings.Contains(got, `"e":"AQAB"`) || w.Header().Get("Content-Type") != "application/jwk-set+json" {
		t.Errorf("key set %s", got)
	}
}
