package api_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"

	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/api/apitest/kubectl"
)

// frontProxy is an authority of a proxy's certificates, in a file.
type frontProxy struct {
	file string
	ca   *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newProxy(t *testing.T, dir string) *frontProxy {
	t.Helper()
	p := &frontProxy{file: filepath.Join(dir, "proxy-ca.pem")}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "proxies"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	raw := p.sign(t, template, nil)
	var err error
	if p.ca, err = x509.ParseCertificate(raw.Certificate[0]); err != nil {
		t.Fatal(err)
	}
	p.key = raw.PrivateKey.(*ecdsa.PrivateKey)
	if err := os.WriteFile(p.file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.ca.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

// sign makes a certificate with a key of its own.
func (p *frontProxy) sign(t *testing.T, template, parent *x509.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer := p.key
	if parent == nil {
		parent, signer = template, key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

// testFrontProxy: whoever shows a certificate with the right name says who a user is, nobody else does, and aggregated servers are
// told of the authority.
func testFrontProxy(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl, p *frontProxy) {
	who := func(name string) string {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(c.Config.CAData)
		template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
		transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{p.sign(t, template, p.ca)}}}
		defer transport.CloseIdleConnections()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.Config.Host+"/apis/authentication.k8s.io/v1/selfsubjectreviews",
			strings.NewReader(`{"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}`))
		if err != nil {
			t.Fatal(err)
		}
		request.Header = http.Header{"Content-Type": {"application/json"}, "X-Who": {"carol"}, "X-Teams": {"dev", "ops"}, "X-Number": {"7"}, "X-More-Floor": {"3"}, "X-Remote-User": {"root"}}
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusCreated {
			return response.Status
		}
		var review authenticationv1.SelfSubjectReview
		if err := json.NewDecoder(response.Body).Decode(&review); err != nil {
			t.Fatal(err)
		}
		user := review.Status.UserInfo
		return strings.Join(append([]string{user.Username, user.UID, strings.Join(user.Extra["floor"], ",")}, user.Groups...), " ")
	}
	if got, want := who("edge"), "carol 7 3 dev ops system:authenticated"; got != want {
		t.Errorf("by its proxy the user is %q, want %q", got, want)
	}
	if got := who("other"); strings.Contains(got, "carol") || strings.Contains(got, "root") {
		t.Errorf("by a certificate of another name the user is %q", got)
	}
	trust := k.Run(t, "", "get", "configmap", "extension-apiserver-authentication", "--namespace", "kube-system", "-o", "json")
	var told struct{ Data map[string]string }
	if err := json.Unmarshal([]byte(trust), &told); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"requestheader-client-ca-file":       strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.ca.Raw}))),
		"requestheader-allowed-names":        `["front-proxy-client","edge"]`,
		"requestheader-username-headers":     `["X-Remote-User","X-Who"]`,
		"requestheader-uid-headers":          `["X-Remote-Uid","X-Number"]`,
		"requestheader-group-headers":        `["X-Remote-Group","X-Teams"]`,
		"requestheader-extra-headers-prefix": `["X-Remote-Extra-","X-More-"]`,
	} {
		if got := told.Data[key]; !strings.Contains(got, want) {
			t.Errorf("%s is %s, want %s", key, got, want)
		}
	}
}
