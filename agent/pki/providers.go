package pki

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

var (
	_ dynamiccertificates.CertKeyContentProvider = (*CertKey)(nil)
	_ dynamiccertificates.CAContentProvider      = (*caBundle)(nil)
)

// CertKey is one of the agent's own certificates as the generic API server wants it: always the newest.
type CertKey struct {
	pki  *PKI
	name string
}

// Name identifies the certificate in messages.
func (c *CertKey) Name() string { return c.name }

// CurrentCertKeyContent returns the newest certificate and its key in PEM.
func (c *CertKey) CurrentCertKeyContent() (cert, key []byte) {
	c.pki.mu.RLock()
	defer c.pki.mu.RUnlock()
	l := c.pki.leaves[c.name]
	return l.certPEM, l.keyPEM
}

// AddListener has l told of each renewal.
func (c *CertKey) AddListener(l dynamiccertificates.Listener) {
	c.pki.mu.Lock()
	defer c.pki.mu.Unlock()
	leaf := c.pki.leaves[c.name]
	leaf.listeners = append(leaf.listeners, l)
}

// TLS returns the newest certificate for crypto/tls.
func (c *CertKey) TLS() (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(c.CurrentCertKeyContent())
	if err != nil {
		return nil, fmt.Errorf("use certificate %s: %w", c.name, err)
	}
	return &pair, nil
}

// File is the path of the file that holds both, the certificate first.
func (c *CertKey) File() string { return c.pki.path(c.name) + ".pem" }

// caBundle is an authority as the generic API server wants it.
type caBundle struct {
	name      string
	authority *Authority
	options   x509.VerifyOptions
}

func newCABundle(name string, a *Authority) *caBundle {
	return &caBundle{name: name, authority: a, options: x509.VerifyOptions{
		Roots: a.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}}
}

func (b *caBundle) Name() string                              { return b.name }
func (b *caBundle) AddListener(dynamiccertificates.Listener)  {}
func (b *caBundle) CurrentCABundleContent() []byte            { return b.authority.CertPEM() }
func (b *caBundle) VerifyOptions() (x509.VerifyOptions, bool) { return b.options, true }
