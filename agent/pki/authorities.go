package pki

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

// maxAuthorities bounds the authorities of a kind that are trusted at a time: the one, and that which follows or went before.
const maxAuthorities = 2

var _ dynamiccertificates.CAContentProvider = (*Authorities)(nil)

// Authorities are the authorities of a kind that this node trusts. The first certifies the members of the cluster. While a
// rotation lasts there is a second one, and either may certify users. To the generic API server they are a bundle.
//
// On disk they are NAME.crt, a bundle in that order, and on replicas NAME.key, with the key of the one for users first.
type Authorities struct {
	name, path string

	mu        sync.RWMutex // guards what follows
	all       []*Authority
	users     *Authority
	listeners []dynamiccertificates.Listener
}

// ID names the authority: the SHA-256 of its certificate, in hexadecimal.
func (a *Authority) ID() string { return CertificateID(a.cert) }

// CertificateID names an authority by its certificate.
func CertificateID(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// BundleIDs are those of the authorities in a bundle, in order; nil if it cannot be read.
func BundleIDs(bundle []byte) []string {
	all, err := readBundle(bundle)
	if err != nil {
		return nil
	}
	var ids []string
	for _, one := range all {
		ids = append(ids, one.ID())
	}
	return ids
}

// openAuthorities loads the authorities of a replica. A key alone is a start that was cut short: its certificate is made now.
func openAuthorities(path, label, name string, now time.Time) (*Authorities, error) {
	keyPEM, err := readSecret(path + ".key")
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(path + ".crt"); err == nil {
			return nil, fmt.Errorf("load %s.crt: its key %s.key is missing", path, path)
		}
		made, err := newAuthority(name, now)
		if err == nil {
			err = made.save(path)
		}
		return newAuthorities(label, path, made), err
	}
	if err != nil {
		return nil, err
	}
	keys, err := parseKeys(path+".key", keyPEM)
	if err != nil {
		return nil, err
	}
	bundle, err := os.ReadFile(path + ".crt")
	if errors.Is(err, fs.ErrNotExist) {
		made, err := certify(name, keys[0], now)
		if err == nil {
			err = writeFile(path+".crt", made.certPEM, 0o644)
		}
		return newAuthorities(label, path, made), err
	}
	if err != nil {
		return nil, fmt.Errorf("load authority: %w", err)
	}
	all, err := parseAuthorities(path+".crt", bundle, keys, now)
	if err != nil {
		return nil, err
	}
	if all[0].key == nil {
		return nil, fmt.Errorf("load %s.crt: certificate and key do not belong together", path)
	}
	loaded := newAuthorities(label, path, all...)
	for _, one := range all {
		if one.key != nil && matching(path, one.cert, keys[0]) == nil {
			loaded.users = one
		}
	}
	return loaded, nil
}

// openTrusted loads authorities' certificates alone.
func openTrusted(path, label string, now time.Time) (*Authorities, error) {
	bundle, err := os.ReadFile(path + ".crt")
	if err != nil {
		return nil, fmt.Errorf("load the cluster's CA: %w", err)
	}
	all, err := parseAuthorities(path+".crt", bundle, nil, now)
	if err != nil {
		return nil, err
	}
	return newAuthorities(label, path, all...), nil
}

func newAuthorities(label, path string, all ...*Authority) *Authorities {
	return &Authorities{name: label, path: path, all: all, users: all[0]}
}

// parseAuthorities reads a bundle, and gives each certificate its key where that is among keys.
func parseAuthorities(path string, bundle []byte, keys []crypto.Signer, now time.Time) ([]*Authority, error) {
	var all []*Authority
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		certPEM := encodeCert(block.Bytes)
		if block.Type != certBlock {
			continue
		}
		cert, err := parseCert(path, certPEM)
		if err == nil {
			err = usable(path, cert, now)
		}
		if err != nil {
			return nil, err
		}
		one := &Authority{cert: cert, certPEM: certPEM}
		for _, key := range keys {
			if matching(path, cert, key) == nil {
				one.key = key
			}
		}
		all = append(all, one)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("load %s: no PEM certificate in it", path)
	}
	if len(all) > maxAuthorities {
		return nil, fmt.Errorf("load %s: %d authorities, want at most %d", path, len(all), maxAuthorities)
	}
	return all, nil
}

func (a *Authorities) get() []*Authority {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.all
}

// own certifies members.
func (a *Authorities) own() *Authority { return a.get()[0] }

// signer certifies users.
func (a *Authorities) signer() *Authority {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.users
}

// Certificate is that of the first authority; do not change it.
func (a *Authorities) Certificate() *x509.Certificate { return a.own().cert }

// CertPEM is the bundle of all certificates, which everybody may have.
func (a *Authorities) CertPEM() []byte { return bundleOf(a.get()) }

func bundleOf(all []*Authority) []byte {
	var bundle []byte
	for _, one := range all {
		bundle = append(bundle, one.certPEM...)
	}
	return bundle
}

// Pool is a new pool with all of them. It does not follow a rotation: ask anew for each connection.
func (a *Authorities) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	for _, one := range a.get() {
		pool.AddCert(one.cert)
	}
	return pool
}

// signed tells whether one of them has signed the certificate.
func (a *Authorities) signed(cert *x509.Certificate) bool {
	return slices.ContainsFunc(a.get(), func(one *Authority) bool { return cert.CheckSignatureFrom(one.cert) == nil })
}

// keysPEM are the keys that are here, that for users first.
func (a *Authorities) keysPEM() ([]byte, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return encodeKeys(a.all, a.users)
}

func encodeKeys(all []*Authority, users *Authority) ([]byte, error) {
	sorted := slices.Clone(all)
	slices.SortStableFunc(sorted, func(x, y *Authority) int {
		switch {
		case x == users && y != users:
			return -1
		case y == users && x != users:
			return 1
		}
		return 0
	})
	var keys []byte
	for _, one := range sorted {
		if one.key == nil {
			continue
		}
		content, err := encodeKey(one.key)
		if err != nil {
			return nil, err
		}
		keys = append(keys, content...)
	}
	return keys, nil
}

// adopt makes the bundle what is trusted, with the keys that are here or in keysPEM, and reports whether that is news. users is the
// ID of the one that signs for users. It may be repeated.
func (a *Authorities) adopt(bundle, keysPEM []byte, users string, now time.Time) (bool, error) {
	var keys []crypto.Signer
	if len(keysPEM) > 0 {
		more, err := parseKeys(a.name, keysPEM)
		if err != nil {
			return false, err
		}
		keys = more
	}
	replica := false
	for _, one := range a.get() {
		if one.key != nil {
			keys, replica = append(keys, one.key), true
		}
	}
	all, err := parseAuthorities(a.name, bundle, keys, now)
	if err != nil {
		return false, err
	}
	next := all[0]
	for _, one := range all {
		if one.ID() == users {
			next = one
		}
	}
	if replica && (all[0].key == nil || next.key == nil) {
		return false, fmt.Errorf("adopt authorities of %s: a replica needs the key of each that signs, and one is missing", a.name)
	}
	if err := a.save(all, next, replica); err != nil {
		return false, err
	}
	a.mu.Lock()
	changed := !bytes.Equal(bundleOf(a.all), bundleOf(all)) || a.users.ID() != next.ID()
	a.all, a.users = all, next
	listeners := slices.Clone(a.listeners)
	a.mu.Unlock()
	if changed {
		for _, l := range listeners {
			l.Enqueue()
		}
	}
	return changed, nil
}

// save writes what differs. Between the two files there are keys for the certificates of before and of after: whichever a crash
// leaves has its keys.
func (a *Authorities) save(all []*Authority, users *Authority, replica bool) error {
	bundle := bundleOf(all)
	if replica {
		superset, err := encodeKeys(append(slices.Clone(all), a.get()...), users)
		if err == nil {
			err = a.replace(".key", superset, 0o600)
		}
		if err != nil {
			return err
		}
	}
	if err := a.replace(".crt", bundle, 0o644); err != nil || !replica {
		return err
	}
	keys, err := encodeKeys(all, users)
	if err != nil {
		return err
	}
	return a.replace(".key", keys, 0o600)
}

// replace writes a file whose content is another.
func (a *Authorities) replace(extension string, content []byte, mode fs.FileMode) error {
	if have, err := os.ReadFile(a.path + extension); err == nil && bytes.Equal(have, content) {
		return nil
	}
	return writeFile(a.path+extension, content, mode)
}

// parseKeys reads all private keys of a file.
func parseKeys(path string, content []byte) ([]crypto.Signer, error) {
	var keys []crypto.Signer
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		key, err := parseKey(path, pem.EncodeToMemory(block))
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("load %s: no PEM private key in it", path)
	}
	return keys, nil
}

// Name identifies the bundle in messages.
func (a *Authorities) Name() string { return a.name }

// AddListener has l told of each change.
func (a *Authorities) AddListener(l dynamiccertificates.Listener) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.listeners = append(a.listeners, l)
}

// CurrentCABundleContent is [Authorities.CertPEM].
func (a *Authorities) CurrentCABundleContent() []byte { return a.CertPEM() }

// VerifyOptions verify client certificates.
func (a *Authorities) VerifyOptions() (x509.VerifyOptions, bool) {
	return x509.VerifyOptions{Roots: a.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, true
}
