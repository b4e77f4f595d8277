package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Well-known identities.
const (
	// AdminUser is the user of admin.kubeconfig; its group may do everything.
	AdminUser     = "podvine-admin"
	MastersGroup  = "system:masters"
	NodesGroup    = "system:nodes"
	NodeUserStart = "system:node:"
	// FrontProxyUser is the name in the certificate of [PKI.ProxyClient].
	FrontProxyUser = "front-proxy-client"
)

// Identity is whom a client certificate names.
type Identity struct {
	User   string
	Groups []string
}

// Check tells in one line why the identity cannot be certified, or nil.
func (i Identity) Check() error {
	if strings.TrimSpace(i.User) == "" {
		return errors.New("issue certificate: the user name is empty")
	}
	for _, s := range append([]string{i.User}, i.Groups...) {
		if strings.ContainsAny(s, "\x00\n\r") {
			return fmt.Errorf("issue certificate: control characters in %q", s)
		}
	}
	for _, g := range i.Groups {
		if strings.TrimSpace(g) == "" {
			return errors.New("issue certificate: a group name is empty")
		}
	}
	return nil
}

// Issued is a certificate with its private key, both in PEM.
type Issued struct {
	CertPEM, KeyPEM []byte
	NotAfter        time.Time
}

// IssueClient makes a key and certifies it for a user for ttl (at most [MaxIssuedLifetimeHours]) from now.
func (p *PKI) IssueClient(id Identity, ttl time.Duration, now time.Time) (*Issued, error) {
	if err := id.Check(); err != nil {
		return nil, err
	}
	if ttl <= 0 || ttl > MaxIssuedLifetimeHours*time.Hour {
		return nil, fmt.Errorf("issue certificate: a lifetime of %s is not between 1s and %d hours", ttl, MaxIssuedLifetimeHours)
	}
	l, err := leafSpec{name: id.User, authority: p.cluster.signer(), request: clientRequest(id, ttl)}.issue(now)
	if err != nil {
		return nil, err
	}
	p.config.Log.Info("issued client certificate", "user", id.User, "groups", id.Groups, "until", l.cert.NotAfter.UTC().Format(time.RFC3339))
	return &Issued{CertPEM: l.certPEM, KeyPEM: l.keyPEM, NotAfter: l.cert.NotAfter}, nil
}

func clientRequest(id Identity, ttl time.Duration) request {
	return request{
		subject:  pkix.Name{CommonName: id.User, Organization: id.Groups},
		usages:   []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		lifetime: ttl,
	}
}

func (s leafSpec) issue(now time.Time) (*leaf, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	der, err := s.authority.sign(key.Public(), s.request, now)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate: %w", err)
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	return &leaf{cert: cert, certPEM: encodeCert(der), keyPEM: keyPEM}, nil
}
