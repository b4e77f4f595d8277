package auth

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net/http"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"k8s.io/apiserver/pkg/authentication/authenticator"
)

const (
	// verifiedCertificates bounds the client certificates that are known to be good; the oldest is verified again.
	verifiedCertificates = 4096
	// verifiedFor is how long a certificate counts as verified before it is verified again, should nobody have told that an authority is
	// taken out of the bundle.
	verifiedFor = time.Minute
)

// certificates remembers who a client certificate belongs to, so that its signature is not computed anew for every request
// of a connection: that was a sixth of the CPU of a write. It never remembers a refusal, and nothing beyond the
// certificate's own validity. Safe for concurrent use.
type certificates struct {
	verify   authenticator.Request
	now      func() time.Time
	verified *lru.Cache[[sha256.Size]byte, verifiedCertificate]
}

type verifiedCertificate struct {
	response authenticator.Response
	from, to time.Time
}

func rememberCertificates(verify authenticator.Request, now func() time.Time) (*certificates, error) {
	verified, err := lru.New[[sha256.Size]byte, verifiedCertificate](verifiedCertificates)
	if err != nil {
		return nil, fmt.Errorf("make certificate cache: %w", err)
	}
	return &certificates{verify: verify, now: now, verified: verified}, nil
}

// Enqueue implements dynamiccertificates.Listener: the authorities have changed, and each certificate is verified again.
func (c *certificates) Enqueue() { c.verified.Purge() }

// AuthenticateRequest implements authenticator.Request.
func (c *certificates) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return c.verify.AuthenticateRequest(r)
	}
	now := c.now()
	key := chainKey(r.TLS.PeerCertificates)
	if known, ok := c.verified.Get(key); ok && !now.Before(known.from) && now.Before(known.to) {
		response := known.response
		return &response, true, nil
	}
	response, ok, err := c.verify.AuthenticateRequest(r)
	if err != nil || !ok {
		return response, ok, err
	}
	known := verifiedCertificate{response: *response, from: now, to: now.Add(verifiedFor)}
	for _, certificate := range r.TLS.PeerCertificates {
		if certificate.NotAfter.Before(known.to) {
			known.to = certificate.NotAfter
		}
	}
	c.verified.Add(key, known)
	return response, true, nil
}

// chainKey identifies what the client has shown: the leaf and everything that it sent along.
func chainKey(chain []*x509.Certificate) [sha256.Size]byte {
	if len(chain) == 1 {
		return sha256.Sum256(chain[0].Raw)
	}
	digests := make([]byte, 0, len(chain)*sha256.Size)
	for _, certificate := range chain {
		digest := sha256.Sum256(certificate.Raw)
		digests = append(digests, digest[:]...)
	}
	return sha256.Sum256(digests)
}
