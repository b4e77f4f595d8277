// Package pki owns every private key and certificate of one Podvine replica: the cluster CA, the front-proxy CA, the
// keys that sign service-account tokens, the API's serving certificate and the client certificates of the node, the
// administrator and the components.
//
// All of it lives in one folder, root only: keys 0600, written atomically, never logged. [Open] loads what is there,
// makes what is missing, and refuses with one line what is broken.
//
// A *PKI is safe for concurrent use. Nothing renews by itself: [PKI.Renew] takes the time as an argument, decides
// (see [RenewAt]) and acts; the agent calls it on a timer. Listeners of the dynamic providers hear of each change.
//
// To inspect: `openssl x509 -in <dir>/serving.crt -noout -text`.
package pki

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Lifetimes of what this package issues.
const (
	// AuthorityLifetimeYears is how long a CA is valid.
	AuthorityLifetimeYears = 10
	// LeafLifetimeHours is how long the agent's own certificates (serving, node, components) are valid.
	LeafLifetimeHours = 30 * 24
	// MaxIssuedLifetimeHours bounds a certificate that is issued on request.
	MaxIssuedLifetimeHours = 365 * 24
	// BackdateMinutes is how much before now a certificate that somebody asked for starts, as on Kubernetes: whoever asked renews it by
	// its life.
	BackdateMinutes = 5
	// backdateMost is how much earlier than now the authority and the members' own certificates start: so far may the clock of who
	// issues one be ahead of another's who is shown it.
	backdateMost = 24 * time.Hour
	// backdateShare is the part of its life by which a certificate starts earlier at most, so that one of an hour is renewed when it should be.
	backdateShare = 30
)

// backdate is how much before now a certificate of the agent's own starts.
func backdate(lifetime time.Duration) time.Duration {
	return min(max(lifetime/backdateShare, BackdateMinutes*time.Minute), backdateMost)
}

// Config says for whom the certificates are. Dir and NodeName are required.
type Config struct {
	// Dir is the folder of the keys; it is made with mode 0700.
	Dir string
	// NodeName is the name of the node, also in system:node:NAME.
	NodeName string
	// NodeID is the node's UUID; its certificate for peers names it. Required where there are peers.
	NodeID string
	// NodeIPs are the addresses under which others reach this node's API.
	NodeIPs []net.IP
	// MemberIPs are the addresses of all members: a replica serves the API for edges too. See [PKI.SetMemberIPs].
	MemberIPs []net.IP
	// Sign has a replica sign the certificate of this node, which is no replica and holds no authority's key. It gets a
	// certificate request in PEM. Nil on a replica.
	Sign func(request []byte) (certificate []byte, err error)
	// ServiceIP is the address of the service kubernetes.default (10.96.0.1).
	ServiceIP net.IP
	// Ranges are the addresses of pods and services, of which no node may have one.
	Ranges []netip.Prefix
	// ClusterDomain is the DNS domain of services (cluster.local).
	ClusterDomain string
	// MakesTokenKeys tells whether this replica is the one that makes the token keys that are due; nil is yes.
	MakesTokenKeys func() bool
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Log hears of issued and renewed certificates, never of keys; nil is silent.
	Log *slog.Logger
}

// PKI holds the loaded authorities, keys and certificates.
type PKI struct {
	config Config

	cluster    *Authorities
	frontProxy *Authorities // nil where this node is no replica
	tokens     *TokenKeys

	mu      sync.RWMutex // guards leaves, servers, retired and config.MemberIPs
	retired []string
	servers map[string]string
	leaves  map[string]*leaf
	issueMu sync.Mutex // one renewal at a time
	adoptMu sync.Mutex // one change of the authorities at a time
}

// Open loads the folder, makes what is missing, and renews what is due.
func Open(config Config) (*PKI, error) {
	if config.Dir == "" || config.NodeName == "" {
		return nil, errors.New("open pki: a folder and a node name are needed")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.MakesTokenKeys == nil {
		config.MakesTokenKeys = func() bool { return true }
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	if config.ClusterDomain == "" {
		config.ClusterDomain = "cluster.local"
	}
	if err := os.MkdirAll(config.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make key folder: %w", err)
	}
	if err := os.Chmod(config.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("protect key folder: %w", err)
	}
	p := &PKI{config: config, leaves: map[string]*leaf{}}
	now := config.Now()
	if err := p.openAuthorities(now); err != nil {
		return nil, err
	}
	for _, spec := range p.specs() {
		l, err := openLeaf(p.path(spec.name))
		if err != nil {
			return nil, err
		}
		p.leaves[spec.name] = l
	}
	if _, err := p.Renew(now); err != nil {
		if at, out := p.ranOut(now); out {
			return nil, fmt.Errorf("%w on %s: %w", ErrRanOut, at.UTC().Format(time.RFC3339), err)
		}
		if !p.goesWithout(now) {
			return nil, err
		}
		config.Log.Warn("start with the certificate of before; the next renewal is tried in a moment", "error", err)
	}
	return p, nil
}

// ErrRanOut says that the certificate by which replicas know this node ran out, and that none has renewed it.
var ErrRanOut = errors.New("this node's certificate ran out")

// ranOut tells whether the certificate of a node for which a replica signs has run out, and when.
func (p *PKI) ranOut(now time.Time) (at time.Time, out bool) {
	if p.config.Sign == nil {
		return at, false
	}
	for _, spec := range p.specs() {
		if cert := p.leaves[spec.name].cert; cert != nil && !now.Before(cert.NotAfter) {
			return cert.NotAfter, true
		}
	}
	return at, false
}

// goesWithout tells whether a node for which a replica signs has a certificate that is good for a while: it must start when there
// is no replica.
func (p *PKI) goesWithout(now time.Time) bool {
	if p.config.Sign == nil {
		return false
	}
	for _, spec := range p.specs() {
		cert := p.leaves[spec.name].cert
		if cert == nil || !now.Before(cert.NotAfter) || !p.cluster.signed(cert) {
			return false
		}
	}
	return true
}

// openAuthorities loads or makes what only replicas hold; of the others it loads the cluster CA's certificate.
func (p *PKI) openAuthorities(now time.Time) (err error) {
	if p.config.Sign != nil {
		p.cluster, err = openTrusted(p.path(clusterCAName), clusterCAName, now)
		return err
	}
	if p.cluster, err = openAuthorities(p.path(clusterCAName), clusterCAName, clusterAuthority, now); err != nil {
		return err
	}
	if p.frontProxy, err = openAuthorities(p.path(frontProxyCAName), frontProxyCAName, frontProxyAuthority, now); err != nil {
		return err
	}
	p.tokens, err = openTokenKeys(p.path(tokenFolder), p.config.Now, p.config.MakesTokenKeys)
	return err
}

func (p *PKI) path(name string) string { return filepath.Join(p.config.Dir, name) }

// Cluster are the CA of clients, nodes and the API's serving certificate, and while it rotates that which follows or went before.
func (p *PKI) Cluster() *Authorities { return p.cluster }

// FrontProxy are likewise the CA of the certificate with which this API speaks to aggregated servers; nil where this node is no replica.
func (p *PKI) FrontProxy() *Authorities { return p.frontProxy }

// Tokens are the keys of service-account tokens.
func (p *PKI) Tokens() *TokenKeys { return p.tokens }

// Serving is the API's serving certificate, renewed in place.
func (p *PKI) Serving() *CertKey { return &CertKey{pki: p, name: servingName} }

// ProxyClient is the certificate with which the aggregator speaks to aggregated servers.
func (p *PKI) ProxyClient() *CertKey { return &CertKey{pki: p, name: proxyClientName} }

// NodeServing is the serving certificate of the node's kubelet API. Where a replica signs for this node, it is [PKI.Peer].
func (p *PKI) NodeServing() *CertKey {
	if p.config.Sign != nil {
		return p.Peer()
	}
	return &CertKey{pki: p, name: nodeServingName}
}

// KubeletClient is the certificate with which the API speaks to the nodes' kubelet APIs.
func (p *PKI) KubeletClient() *CertKey { return &CertKey{pki: p, name: kubeletClientName} }

// Renew issues anew what is missing, due or no longer matches the node, and returns when to look again.
func (p *PKI) Renew(now time.Time) (next time.Time, err error) {
	p.issueMu.Lock()
	defer p.issueMu.Unlock()
	next = now.Add(LeafLifetimeHours * time.Hour)
	for _, spec := range p.specs() {
		p.mu.RLock()
		current := p.leaves[spec.name]
		p.mu.RUnlock()
		if current.cert == nil || current.mismatch(spec) || !now.Before(RenewAt(current.cert.NotBefore, current.cert.NotAfter)) {
			if err := p.issueLeaf(spec, current, now); err != nil {
				return now, err
			}
		}
		if at := RenewAt(current.notBefore(&p.mu), current.notAfter(&p.mu)); at.Before(next) {
			next = at
		}
	}
	if p.tokens == nil {
		return next, nil
	}
	if at, err := p.tokens.rotate(now); err != nil {
		return now, err
	} else if at.Before(next) {
		next = at
	}
	return next, nil
}

func (p *PKI) issueLeaf(spec leafSpec, current *leaf, now time.Time) error {
	issue := spec.issue
	if p.config.Sign != nil {
		issue = func(time.Time) (*leaf, error) { return spec.enrol(p.config.Sign) }
	}
	fresh, err := issue(now)
	if err != nil {
		return fmt.Errorf("issue %s: %w", spec.name, err)
	}
	if err := fresh.save(p.path(spec.name)); err != nil {
		return err
	}
	p.mu.Lock()
	current.cert, current.certPEM, current.keyPEM = fresh.cert, fresh.certPEM, fresh.keyPEM
	listeners := current.listeners
	p.mu.Unlock()
	p.config.Log.Info("issued certificate", "name", spec.name, "until", fresh.cert.NotAfter.UTC().Format(time.RFC3339))
	for _, l := range listeners {
		l.Enqueue()
	}
	return nil
}
