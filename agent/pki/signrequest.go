package pki

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// SignRequest certifies, with the cluster's key, what a request asks for, for these usages and lifetime. It checks only that
// the asker holds the key and that the certificate is not a member's: who may have which certificate was decided before.
// The certificate never outlives the authority. Safe for concurrent use.
func (p *PKI) SignRequest(asked *x509.CertificateRequest, key x509.KeyUsage, extended []x509.ExtKeyUsage, lifetime time.Duration, now time.Time) ([]byte, error) {
	authority := p.cluster.signer()
	if authority.key == nil {
		return nil, errors.New("sign certificate: this node is no replica and holds no key of the cluster")
	}
	if err := asked.CheckSignature(); err != nil {
		return nil, fmt.Errorf("sign certificate: check the request: %w", err)
	}
	if NamesMember(asked) {
		return nil, errors.New("sign certificate: the request names a member of the cluster: members are certified when they join")
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	notAfter := now.Add(lifetime)
	if notAfter.After(authority.cert.NotAfter) {
		notAfter = authority.cert.NotAfter
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: asked.Subject, NotBefore: now.Add(-BackdateMinutes * time.Minute), NotAfter: notAfter,
		KeyUsage: key, ExtKeyUsage: extended, BasicConstraintsValid: true,
		DNSNames: asked.DNSNames, IPAddresses: asked.IPAddresses, EmailAddresses: asked.EmailAddresses, URIs: asked.URIs,
	}, authority.cert, asked.PublicKey, authority.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return encodeCert(der), nil
}

// NamesMember tells whether a certificate like the request would be one by which members of the cluster know each other.
func NamesMember(asked *x509.CertificateRequest) bool {
	for _, uri := range asked.URIs {
		if strings.HasPrefix(strings.ToLower(uri.String()), idScheme) {
			return true
		}
	}
	return slices.Contains(asked.Subject.Organization, ReplicasGroup)
}
