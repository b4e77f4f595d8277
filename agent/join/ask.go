package join

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/podvine/podvine/agent/pki"
)

const (
	// defaultPort is where a peer's API is when its address names no port.
	defaultPort = "6443"
	// maxAuthorities bounds what is read of a bundle that a stranger offers.
	maxAuthorities = 4
	askTimeout     = 10 * time.Second
	dialTimeout    = 3 * time.Second
)

// Ask asks the peers in turn until one answers, and returns its answer. A [Refusal] is final: another peer would say the
// same. complete gives the request that is sent; its Time is set to the moment of sending.
func Ask(ctx context.Context, peers []string, token Token, request Request) (*Response, error) {
	var unreachable []error
	for _, peer := range peers {
		response, err := ask(ctx, peer, token, request)
		var refusal *Refusal
		switch {
		case err == nil:
			return response, nil
		case errors.As(err, &refusal), errors.Is(err, errForeign), errors.Is(err, errRotated), ctx.Err() != nil:
			return nil, fmt.Errorf("join through %s: %w", peer, err)
		}
		unreachable = append(unreachable, fmt.Errorf("join through %s: %w", peer, err))
	}
	if len(unreachable) == 0 {
		return nil, errors.New("join: name a member of the cluster")
	}
	return nil, errors.Join(unreachable...)
}

// errForeign says that a peer belongs to another cluster than the token.
var errForeign = errors.New("the token is for another cluster than this peer's (its CA has another hash): check both")

// errRotated says that the token names an authority of before.
var errRotated = errors.New("the cluster's CA was rotated since the token was made: make another with `podvine token create` on a member")

// Authorities are what a member offers as its cluster's, by SHA-256 in hexadecimal. Nothing proves it: whoever asks must know one of
// them, or use it for no more than a message.
type Authorities struct {
	// Trusted are the certificates, the one that certifies members first; Retired are trusted no more.
	Trusted []string
	Retired []string

	first []byte
}

// certifiedBy is what verifies the members of the cluster that a token names. Of a bundle only the certificate that the token names
// counts: anybody could have added another.
func (a Authorities) certifiedBy(hash string) (*x509.CertPool, error) {
	switch at := slices.Index(a.Trusted, hash); {
	case at > 0, at < 0 && slices.Contains(a.Retired, hash):
		return nil, errRotated
	case at < 0:
		return nil, errForeign
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(a.first) {
		return nil, errForeign
	}
	return roots, nil
}

// FetchAuthorities asks a member, at HOST:PORT, for its cluster's authorities.
func FetchAuthorities(ctx context.Context, address string) (offered Authorities, err error) {
	config := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true} //nolint:gosec // nothing of the answer is believed
	bundle, header, err := exchange(ctx, config, "https://"+address+CAPath, nil)
	if err != nil {
		return Authorities{}, err
	}
	for block, rest := pem.Decode(bundle); block != nil && len(offered.Trusted) < maxAuthorities; block, rest = pem.Decode(rest) {
		one := pem.EncodeToMemory(block)
		if offered.first == nil {
			offered.first = one
		}
		hash, err := HashCA(one)
		if err != nil {
			return Authorities{}, err
		}
		offered.Trusted = append(offered.Trusted, hash)
	}
	if retired := header.Get(RetiredHeader); retired != "" {
		offered.Retired = strings.Split(retired, ",")
	}
	return offered, nil
}

func ask(ctx context.Context, peer string, token Token, request Request) (*Response, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	offered, err := FetchAuthorities(ctx, withPort(peer))
	if err != nil {
		return nil, err
	}
	roots, err := offered.certifiedBy(token.CAHash)
	if err != nil {
		return nil, err
	}
	request.Time = time.Now()
	body, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	// Whatever the address: a replica's API alone has a certificate for this name.
	answer, _, err := exchange(ctx, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: pki.APIServerName}, "https://"+withPort(peer)+Path, body)
	if err != nil {
		return nil, err
	}
	response := &Response{}
	if err := json.Unmarshal(answer, response); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return response, nil
}

func withPort(peer string) string {
	if _, _, err := net.SplitHostPort(peer); err == nil {
		return peer
	}
	return net.JoinHostPort(strings.Trim(peer, "[]"), defaultPort)
}

// exchange sends a GET, or with a body a POST, on a connection of its own.
func exchange(ctx context.Context, config *tls.Config, url string, body []byte) (answer []byte, header http.Header, err error) {
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	asked, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, nil, err
	}
	transport := &http.Transport{TLSClientConfig: config, DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext, DisableKeepAlives: true}
	response, err := transport.RoundTrip(asked)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	answer, err = io.ReadAll(io.LimitReader(response.Body, MaxResponseBytes))
	if err != nil {
		return nil, nil, fmt.Errorf("read the answer: %w", err)
	}
	if response.StatusCode == http.StatusOK {
		return answer, response.Header, nil
	}
	refusal := &Refusal{}
	if json.Unmarshal(answer, refusal) == nil && refusal.Message != "" {
		return nil, nil, refusal
	}
	return nil, nil, fmt.Errorf("the peer answered %s: is it a member of a Podvine cluster?", response.Status)
}
