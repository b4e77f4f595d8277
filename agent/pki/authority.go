package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"
)

// Authority is a CA that signs leaves. It never changes after it is made, and is safe for concurrent use.
type Authority struct {
	cert    *x509.Certificate
	certPEM []byte
	key     crypto.Signer
}

// usable says why a certificate cannot be an authority now.
func usable(path string, cert *x509.Certificate, now time.Time) error {
	if !cert.IsCA {
		return fmt.Errorf("load %s: not a CA certificate", path)
	}
	if now.After(cert.NotAfter) {
		return fmt.Errorf("load %s: expired on %s", path, cert.NotAfter.UTC().Format(time.RFC3339))
	}
	if now.Before(cert.NotBefore) {
		return fmt.Errorf("load %s: not valid before %s, and it is %s here; is the clock right?", path,
			cert.NotBefore.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

func newAuthority(name string, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key of %s: %w", name, err)
	}
	return certify(name, key, now)
}

// save writes the key first: the certificate can be made again from it.
func (a *Authority) save(path string) error {
	keyPEM, err := encodeKey(a.key)
	if err != nil {
		return err
	}
	if err := writeFile(path+".key", keyPEM, 0o600); err != nil {
		return err
	}
	return writeFile(path+".crt", a.certPEM, 0o644)
}

// certify makes the self-signed certificate of an authority's key.
func certify(name string, key crypto.Signer, now time.Time) (*Authority, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-backdateMost),
		NotAfter:              now.AddDate(AuthorityLifetimeYears, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make certificate of %s: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse certificate of %s: %w", name, err)
	}
	return &Authority{cert: cert, certPEM: encodeCert(der), key: key}, nil
}

// request is what a leaf certifies.
type request struct {
	subject  pkix.Name
	dnsNames []string
	ips      []net.IP
	uris     []*url.URL
	usages   []x509.ExtKeyUsage
	lifetime time.Duration
}

// sign certifies a public key. The certificate never outlives the authority.
func (a *Authority) sign(public crypto.PublicKey, r request, now time.Time) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	notAfter := now.Add(r.lifetime)
	if notAfter.After(a.cert.NotAfter) {
		notAfter = a.cert.NotAfter
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               r.subject,
		NotBefore:             now.Add(-backdate(r.lifetime)),
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           r.usages,
		BasicConstraintsValid: true,
		DNSNames:              r.dnsNames,
		IPAddresses:           r.ips,
		URIs:                  r.uris,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, public, a.key)
	if err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	return der, nil
}

func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("make serial number: %w", err)
	}
	return serial.Add(serial, big.NewInt(1)), nil
}
