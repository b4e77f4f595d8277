package auth

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

// TestCertificatesAreRememberedWithinTheirValidity counts how often the signature is verified.
func TestCertificatesAreRememberedWithinTheirValidity(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	verified := 0
	var refuse error
	verify := authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		verified++
		if refuse != nil {
			return nil, false, refuse
		}
		return &authenticator.Response{User: &user.DefaultInfo{Name: string(r.TLS.PeerCertificates[0].Raw)}}, true, nil
	})
	c, err := rememberCertificates(verify, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	ask := func(chain ...string) (string, error) {
		r := &http.Request{TLS: &tls.ConnectionState{}}
		for _, raw := range chain {
			r.TLS.PeerCertificates = append(r.TLS.PeerCertificates, &x509.Certificate{Raw: []byte(raw), NotAfter: time.Date(2026, 1, 1, 0, 0, 30, 0, time.UTC)})
		}
		response, ok, err := c.AuthenticateRequest(r)
		if err != nil || !ok {
			return "", err
		}
		return response.User.GetName(), nil
	}
	steps := []struct {
		what     string
		chain    []string
		at       int // seconds
		refuse   error
		verified int
		refused  bool
	}{
		{what: "first", chain: []string{"a"}, verified: 1},
		{what: "again", chain: []string{"a"}, at: 10, verified: 1},
		{what: "another", chain: []string{"b"}, at: 10, verified: 2},
		{what: "the same leaf with another chain", chain: []string{"a", "x"}, at: 10, verified: 3},
		{what: "one that was remembered, while all are refused", chain: []string{"a"}, at: 20, refuse: errors.New("no"), verified: 3},
		{what: "expired", chain: []string{"a"}, at: 30, refuse: errors.New("expired"), verified: 4, refused: true},
		{what: "a refusal is not remembered", chain: []string{"c"}, at: 30, refuse: errors.New("no"), verified: 5, refused: true},
		{what: "nor does it stay", chain: []string{"c"}, at: 31, verified: 6},
	}
	begun := now
	for _, step := range steps {
		now, refuse = begun.Add(time.Duration(step.at)*time.Second), step.refuse
		name, err := ask(step.chain...)
		if step.refused != (err != nil) || err == nil && name != step.chain[0] {
			t.Errorf("%s: %q, %v", step.what, name, err)
		}
		if verified != step.verified {
			t.Errorf("%s: %d verifications, want %d", step.what, verified, step.verified)
		}
	}
}

func TestRequestsWithoutCertificateAreNotRemembered(t *testing.T) {
	asked := 0
	c, err := rememberCertificates(authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) {
		asked++
		return nil, false, nil
	}), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range []*http.Request{{}, {TLS: &tls.ConnectionState{}}} {
		if _, ok, err := c.AuthenticateRequest(r); ok || err != nil {
			t.Errorf("%v, %v", ok, err)
		}
	}
	if asked != 2 {
		t.Errorf("asked %d times", asked)
	}
}
