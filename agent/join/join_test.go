package join_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/podvine/podvine/agent/join"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// grantOf is what a member reads of a token that is valid for an hour.
func grantOf(t *testing.T, token join.Token) *join.Grant {
	t.Helper()
	grant, ok := join.GrantOf(token.Object(now.Add(time.Hour), "a test"))
	if !ok {
		t.Fatal("the token's own Secret is none")
	}
	return &grant
}

func TestDecide(t *testing.T) {
	token := join.Token{ID: "abcdef", Secret: "0123456789abcdef"}
	grant := grantOf(t, token)
	for _, c := range []struct {
		name   string
		view   func(*join.View)
		ask    func(*join.Request)
		code   int
		reason string
	}{
		{name: "a valid token"},
		{name: "the last moment of a token", view: func(v *join.View) { v.Now = now.Add(time.Hour - 1) }, ask: func(r *join.Request) { r.Time = now.Add(time.Hour) }},
		{name: "an expired token", view: func(v *join.View) { v.Now = now.Add(time.Hour) }, code: 401, reason: "expired at 2026-03-01T13:00:00Z"},
		{name: "a revoked token", view: func(v *join.View) { v.Grant = nil }, code: 401, reason: "abcdef is unknown here"},
		{name: "a wrong secret", ask: func(r *join.Request) { r.TokenSecret = "0123456789abcdeg" }, code: 401, reason: "secret of token abcdef is wrong"},
		{name: "no secret", ask: func(r *join.Request) { r.TokenSecret = "" }, code: 401, reason: "secret of token abcdef is wrong"},
		{name: "a clock ahead", ask: func(r *join.Request) { r.Time = now.Add(5 * time.Minute) }, code: 412, reason: "the clocks are 5m0s apart"},
		{name: "a clock behind", ask: func(r *join.Request) { r.Time = now.Add(-time.Hour) }, code: 412, reason: "the clocks are 1h0m0s apart"},
		{name: "another protocol", ask: func(r *join.Request) { r.Protocol, r.Version = 99, "v9.0.0" }, code: 409, reason: "versions are too far apart: this machine has v9.0.0"},
		{name: "no address", ask: func(r *join.Request) { r.Address = netip.Addr{} }, code: 400, reason: "no address"},
		{name: "the name of a living node", view: func(v *join.View) { v.Holder = &join.Holder{ID: "other", Alive: true} }, code: 409, reason: "a living node has the name a"},
		{name: "the name of a dead node", view: func(v *join.View) { v.Holder = &join.Holder{ID: "other"} }},
		{name: "its own name", view: func(v *join.View) { v.Holder = &join.Holder{ID: "me", Alive: true}; v.Named = "a" }},
		{name: "the address of a living node", view: func(v *join.View) { v.AddressHolder = "b" }, code: 409, reason: "the living node b has the address 10.0.0.2"},
		{name: "a name of the API's", view: func(v *join.View) { v.Unfit = errors.New("no node may have the name kubernetes") }, code: 422, reason: "no node may have the name kubernetes: choose another"},
		{name: "its ID under another name", view: func(v *join.View) { v.Named = "b" }, code: 409, reason: "a member already, under the name b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			view := join.View{Version: "v1.0.0", Now: now, Grant: grant}
			request := join.Request{
				Protocol: join.Protocol, Version: "v1.0.0", TokenID: token.ID, TokenSecret: token.Secret, NodeName: "a", NodeID: "me",
				Address: netip.MustParseAddr("10.0.0.2"), Time: now,
			}
			if c.view != nil {
				c.view(&view)
			}
			if c.ask != nil {
				c.ask(&request)
			}
			refusal := join.Decide(view, request)
			switch {
			case c.code == 0 && refusal != nil:
				t.Fatalf("refused: %v", refusal)
			case c.code != 0 && refusal == nil:
				t.Fatal("admitted")
			case c.code != 0 && (refusal.Code != c.code || !strings.Contains(refusal.Message, c.reason)):
				t.Errorf("refused with %d %q, want %d and %q", refusal.Code, refusal.Message, c.code, c.reason)
			}
			if refusal != nil && strings.Contains(refusal.Message, token.Secret) {
				t.Error("the refusal tells the secret")
			}
		})
	}
}

func TestTokensSurviveTheirText(t *testing.T) {
	authority := newAuthority(t)
	token, err := join.NewToken(authority.pem)
	if err != nil {
		t.Fatal(err)
	}
	again, err := join.ParseToken("  " + token.String() + "\n")
	if err != nil || again != token {
		t.Fatalf("%v, %v", again, err)
	}
	if shown := fmt.Sprintf("%v %+v %s %q", token, token, token, token); strings.Contains(shown, token.Secret) {
		t.Errorf("the secret shows in %q", shown)
	}
	for _, text := range []string{"", "abcdef.0123456789abcdef", "ABCDEF." + token.String()[7:], token.String() + "0", strings.Replace(token.String(), ".", "-", 1)} {
		if _, err := join.ParseToken(text); err == nil {
			t.Errorf("%q is a token", text)
		} else if text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("the error repeats the token: %v", err)
		}
	}
}

func TestOtherSecretsAreNoTokens(t *testing.T) {
	token := join.Token{ID: "abcdef", Secret: "0123456789abcdef"}
	for name, spoil := range map[string]func(data map[string][]byte){
		"without the usage":      func(data map[string][]byte) { delete(data, "usage-podvine-join") },
		"without an end":         func(data map[string][]byte) { delete(data, "expiration") },
		"with an unreadable end": func(data map[string][]byte) { data["expiration"] = []byte("soon") },
		"with the ID of another": func(data map[string][]byte) { data["token-id"] = []byte("fedcba") },
	} {
		secret := token.Object(now, "")
		spoil(secret.Data)
		if _, ok := join.GrantOf(secret); ok {
			t.Errorf("a Secret %s is a token", name)
		}
	}
	plain := token.Object(now, "")
	plain.Type = "Opaque"
	if _, ok := join.GrantOf(plain); ok {
		t.Error("an opaque Secret is a token")
	}
}

// authority is a CA for a member's API.
type authority struct {
	pem  []byte
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), cert, key}
}

// serve answers as a member whose certificate has the name.
func (a authority) serve(t *testing.T, name string, offered []byte, answer http.HandlerFunc, retired ...string) (peer string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc(join.CAPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set(join.RetiredHeader, strings.Join(append([]string{strings.Repeat("0", 64)}, retired...), ","))
		_, _ = w.Write(offered)
	})
	mux.HandleFunc(join.Path, answer)
	server := httptest.NewUnstartedServer(mux)
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that hang up are the point
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}

func TestAskTellsTheSecretOnlyToItsCluster(t *testing.T) {
	mine, foreign := newAuthority(t), newAuthority(t)
	token, err := join.NewToken(mine.pem)
	if err != nil {
		t.Fatal(err)
	}
	request := join.Request{Protocol: join.Protocol, TokenID: token.ID, TokenSecret: token.Secret, NodeName: "a"}
	admits := func(w http.ResponseWriter, r *http.Request) {
		var asked join.Request
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || asked.TokenSecret != token.Secret || time.Since(asked.Time) > time.Minute {
			t.Errorf("a member was asked %+v, %v", asked, err)
		}
		_ = json.NewEncoder(w).Encode(join.Response{ClusterID: "mine"})
	}
	never := func(http.ResponseWriter, *http.Request) { t.Error("a stranger was told the secret") }
	refuses := func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(w).Encode(join.Refusal{Code: http.StatusUnauthorized, Message: "the token expired"})
	}
	const name = "kubernetes.default.svc"
	for _, c := range []struct {
		what  string
		peers []string
		err   string
	}{
		{what: "a member", peers: []string{mine.serve(t, name, mine.pem, admits)}},
		{what: "a dead peer, then a member", peers: []string{"127.0.0.1:1", mine.serve(t, name, mine.pem, admits)}},
		{what: "another cluster's member", peers: []string{foreign.serve(t, name, foreign.pem, never)}, err: "another cluster"},
		{what: "somebody with a copy of the CA certificate", peers: []string{foreign.serve(t, name, mine.pem, never)}, err: "certificate"},
		{what: "a node of the cluster that is no replica", peers: []string{mine.serve(t, "edge-1", mine.pem, never)}, err: "kubernetes.default.svc"},
		{what: "a member that refuses", peers: []string{mine.serve(t, name, mine.pem, refuses), mine.serve(t, name, mine.pem, admits)}, err: "the token expired"},
		{what: "a member while the CA rotates", peers: []string{mine.serve(t, name, slices.Concat(mine.pem, foreign.pem), admits)}},
		{what: "a member after all are certified anew", peers: []string{foreign.serve(t, name, slices.Concat(foreign.pem, mine.pem), never)}, err: "was rotated since the token was made"},
		{what: "a member that remembers the CA", peers: []string{foreign.serve(t, name, foreign.pem, never, token.CAHash)}, err: "was rotated since the token was made"},
		{what: "somebody with a bundle of the CA's certificate and its own", peers: []string{foreign.serve(t, name, slices.Concat(mine.pem, foreign.pem), never)}, err: "certificate"},
		{what: "nobody", peers: []string{"127.0.0.1:1"}, err: "connection refused"},
		{what: "a server of something else", peers: []string{httptest.NewServer(http.NotFoundHandler()).Listener.Addr().String()}, err: "does not look like a TLS handshake"},
		{what: "no peer", err: "name a member"},
	} {
		t.Run(c.what, func(t *testing.T) {
			response, err := join.Ask(context.Background(), c.peers, token, request)
			switch {
			case c.err == "" && (err != nil || response.ClusterID != "mine"):
				t.Errorf("got %+v, %v", response, err)
			case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
				t.Errorf("got %+v, %v; want an error with %q", response, err, c.err)
			}
			if err != nil && bytes.Contains([]byte(err.Error()), []byte(token.Secret)) {
				t.Error("the error tells the secret")
			}
		})
	}
}
