package agent

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/podvine/podvine/agent/pki"
	"github.com/podvine/podvine/gossip"
)

// The pace of an edge's own requests; the API's priority and fairness bounds them too.
const (
	edgeQPS   = 50
	edgeBurst = 100

	edgeHandshakeTimeout = 10 * time.Second
)

// accessTransport is how an edge speaks to the API as itself. It is safe for concurrent use.
type accessTransport struct {
	fresh   func() *http.Transport
	current atomic.Pointer[http.Transport]
}

var _ http.RoundTripper = (*accessTransport)(nil)

func newAccessTransport(fresh func() *http.Transport) *accessTransport {
	t := &accessTransport{fresh: fresh}
	t.current.Store(fresh())
	return t
}

// RoundTrip implements http.RoundTripper.
func (t *accessTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	return t.current.Load().RoundTrip(r) //nolint:wrapcheck // it stands for the transport
}

// renew has requests from now on use new connections, on which the node shows its certificate of now. Watches go on over the old ones.
func (t *accessTransport) renew() { t.current.Swap(t.fresh()).CloseIdleConnections() }

// edgeParts are what an edge runs beside what every member does.
func (n *node) edgeParts() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"API": n.carrier.run, "keys": n.runKeys, "informers": n.runInformers,
	}
}

// openLink makes the way to the replicas; it is used once peers and keys are there.
func (n *node) openLink(context.Context) error {
	n.link = n.newLink()
	return n.tidyEdge()
}

func (n *node) newLink() *replicaLink {
	return &replicaLink{self: n.dir.NodeID, network: func() dialer { return n.peers }, members: n.members, last: n.lastPeers, conns: map[*linkedConn]string{}}
}

// members are those that gossip knows, by UUID.
func (n *node) members() map[string]gossip.Member {
	if n.directory != nil {
		return n.directory.all()
	}
	members := map[string]gossip.Member{}
	for _, member := range n.mesh.Members() {
		members[member.ID] = member
	}
	return members
}

// openAccess opens an edge's API port, and this node's own way to the API.
func (n *node) openAccess(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", netip.AddrPortFrom(n.config.BindAddress, n.config.APIPort).String())
	if err != nil {
		return fmt.Errorf("listen for the API: %w", err)
	}
	n.carrier = &carrier{listener: listener, dial: n.link.dial, log: n.log.With("part", "api")}
	n.closers = append(n.closers, n.carrier.close)
	own := netip.AddrPortFrom(n.address, n.config.APIPort)
	n.access = newAccessTransport(func() *http.Transport {
		config := verifying(n.keys.Cluster().Pool)
		config.ServerName = pki.APIServerName
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return n.keys.Peer().TLS() }
		return utilnet.SetTransportDefaults(&http.Transport{
			TLSClientConfig: config, TLSHandshakeTimeout: edgeHandshakeTimeout,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return n.link.dial(ctx, own) },
		})
	})
	client, err := kubernetes.NewForConfig(&rest.Config{Host: "https://" + own.String(), QPS: edgeQPS, Burst: edgeBurst, Transport: n.access})
	if err != nil {
		return fmt.Errorf("make a client of the API: %w", err)
	}
	n.asItself = client
	n.informers = informers.NewSharedInformerFactory(client, 0)
	n.directory, err = newDirectory(n.dir.identity, n.mesh, n.informers)
	return err
}

// runInformers keeps the edge's copies of what its data plane needs.
func (n *node) runInformers(ctx context.Context) error {
	n.informers.StartWithContext(ctx)
	<-ctx.Done()
	n.informers.Shutdown()
	return nil
}
