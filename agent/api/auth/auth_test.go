package auth

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http/httptest"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/podvine/podvine/agent/pki"
)

func openKeys(t *testing.T) *pki.PKI {
	t.Helper()
	keys, err := pki.Open(pki.Config{Dir: t.TempDir(), NodeName: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func clientCert(t *testing.T, keys *pki.PKI, id pki.Identity) *x509.Certificate {
	t.Helper()
	issued, err := keys.IssueClient(id, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, issued.CertPEM)
}

func parse(t *testing.T, content []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(content)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestAuthenticator(t *testing.T) {
	keys, stranger := openKeys(t), openKeys(t)
	a, err := NewAuthenticator(AuthenticatorConfig{
		ClientCA: keys.Cluster(), FrontProxies: []*authenticatorfactory.RequestHeaderConfig{FrontProxy(keys.FrontProxy(), pki.FrontProxyUser)},
		Tokens: []authenticator.Token{authenticator.TokenFunc(func(_ context.Context, token string) (*authenticator.Response, bool, error) {
			switch token {
			case "good":
				return &authenticator.Response{User: &user.DefaultInfo{Name: "bot"}}, true, nil
			case "expired":
				return nil, false, errors.New("expired")
			}
			return nil, false, nil
		})},
	})
	if err != nil {
		t.Fatal(err)
	}
	alice := pki.Identity{User: "alice", Groups: []string{"dev"}}
	proxyPEM, _ := keys.ProxyClient().CurrentCertKeyContent()
	for name, c := range map[string]struct {
		cert    *x509.Certificate
		headers map[string]string
		want    string // "" is refused
	}{
		"certificate":               {clientCert(t, keys, alice), nil, "alice"},
		"certificate of another CA": {clientCert(t, stranger, alice), nil, ""},
		"token":                     {nil, map[string]string{"Authorization": "Bearer good"}, "bot"},
		"unknown token":             {nil, map[string]string{"Authorization": "Bearer x"}, ""},
		"expired token":             {nil, map[string]string{"Authorization": "Bearer expired"}, ""},
		"nothing":                   {nil, nil, "system:anonymous"},
		"front proxy":               {parse(t, proxyPEM), map[string]string{"X-Remote-User": "carol"}, "carol"},
		"headers without a proxy":   {nil, map[string]string{"X-Remote-User": "carol"}, "system:anonymous"},
		"headers of another client": {clientCert(t, keys, alice), map[string]string{"X-Remote-User": "carol"}, "alice"},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		for k, v := range c.headers {
			r.Header.Set(k, v)
		}
		if c.cert != nil {
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c.cert}}
		}
		response, ok, err := a.AuthenticateRequest(r)
		if c.want == "" && ok || c.want != "" && (!ok || err != nil || response.User.GetName() != c.want) {
			t.Errorf("%s: %v %t %v, want %q", name, response, ok, err, c.want)
		}
	}
}

func TestAuthorizer(t *testing.T) {
	authorization, err := NewAuthorizer(AuthorizerConfig{Informers: informers.NewSharedInformerFactory(fake.NewClientset(), 0)})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		user   user.DefaultInfo
		want   authorizer.Decision
		reason string
	}{
		"master": {user.DefaultInfo{Name: "root", Groups: []string{"system:masters"}}, authorizer.DecisionAllow, ""},
		"node":   {user.DefaultInfo{Name: "system:node:n1", Groups: []string{"system:nodes"}}, authorizer.DecisionNoOpinion, "node: No Object name found"},
		"other":  {user.DefaultInfo{Name: "alice"}, authorizer.DecisionNoOpinion, ""},
	} {
		decision, reason, err := authorization.Authorizer.Authorize(context.Background(), authorizer.AttributesRecord{
			User: &c.user, Verb: "list", Resource: "secrets", Namespace: "ns", ResourceRequest: true})
		if decision != c.want || reason != c.reason || err != nil {
			t.Errorf("%s: %v %q %v", name, decision, reason, err)
		}
	}
}
