package join

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	// defaultPort is where a peer's API is when its address names no port.
	defaultPort = "6443"
	// certifiedName is in the certificate of every replica's API, and in no other.
	certifiedName = "kubernetes.default.svc"
	askTimeout    = 10 * time.Second
	dialTimeout   = 3 * time.Second
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
		case errors.As(err, &refusal), errors.Is(err, errForeign), ctx.Err() != nil:
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

func ask(ctx context.Context, peer string, token Token, request Request) (*Response, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	base := "https://" + withPort(peer)
	caPEM, err := fetchCA(ctx, base)
	if err != nil {
		return nil, err
	}
	if hash, err := HashCA(caPEM); err != nil || hash != token.CAHash {
		return nil, errors.Join(errForeign, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(caPEM) {
		return nil, errForeign
	}
	request.Time = time.Now()
	body, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	// Whatever the address: a replica's API alone has a certificate for this name.
	answer, err := exchange(ctx, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: certifiedName}, base+Path, body)
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

// fetchCA gets a certificate from somebody unknown: the caller checks its hash.
func fetchCA(ctx context.Context, base string) ([]byte, error) {
	return exchange(ctx, &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}, base+CAPath, nil) //nolint:gosec // the hash is checked next
}

// exchange sends a GET, or with a body a POST, on a connection of its own.
func exchange(ctx context.Context, config *tls.Config, url string, body []byte) (answer []byte, err error) {
	method := http.MethodGet
	if body != nil {
		method = http.MethodPost
	}
	asked, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: config, DialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext, DisableKeepAlives: true}
	response, err := transport.RoundTrip(asked)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, response.Body.Close()) }()
	answer, err = io.ReadAll(io.LimitReader(response.Body, MaxResponseBytes))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if response.StatusCode == http.StatusOK {
		return answer, nil
	}
	refusal := &Refusal{}
	if json.Unmarshal(answer, refusal) == nil && refusal.Message != "" {
		return nil, refusal
	}
	return nil, fmt.Errorf("the peer answered %s: is it a member of a Podvine cluster?", response.Status)
}
