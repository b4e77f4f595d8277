package pki

import (
	"crypto/tls"
	"fmt"

	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

var _ dynamiccertificates.CertKeyContentProvider = (*CertKey)(nil)

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
