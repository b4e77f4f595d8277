// Package apitest runs a whole API server for tests and by hand: the real store on a temporary directory, own
// certificates, all built-in kinds, authentication, authorization and admission, on a loopback port.
//
// [Start] is for tests and cleans up behind them; [Run] serves until its context ends. By hand:
//
//	go run ./agent/api/apitest/serve -kubeconfig /tmp/kubeconfig
package apitest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/podvine/podvine/agent/api"
	"github.com/podvine/podvine/agent/api/auth/external"
	"github.com/podvine/podvine/agent/api/auth/standard"
	"github.com/podvine/podvine/agent/api/auth/tokens"
	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/pki"
	"github.com/podvine/podvine/consensus"
	"github.com/podvine/podvine/consensus/kubestore"
)

const (
	// startTimeout bounds how long a test waits for the server to be ready, on a machine that does much else.
	startTimeout = 60 * time.Second
	stopTimeout  = 30 * time.Second
	// Sizes that suit a short life on a shared disk.
	segmentBytes = 4 << 20
	noReserve    = -1

	clusterDomain = "cluster.local"
	issuer        = "https://kubernetes.default.svc.cluster.local"
	serviceIP     = "10.96.0.1"
	nodeName      = "apitest"
)

// ReplicaID and ClusterID are the UUIDs of the server's replica and of its cluster.
const (
	ReplicaID = "0f8f2a4e-5a34-4f0b-9a30-8a1f4a5b1c01"
	ClusterID = "0f8f2a4e-5a34-4f0b-9a30-8a1f4a5b1cff"
)

// Options adjust a cluster. The zero value is usable but for Dir.
type Options struct {
	// Dir holds store, keys and the kubeconfig; it must exist.
	Dir string
	// Address is the host:port to listen on; "" is a free loopback port.
	Address string
	// Adjust changes the server's configuration before it is built.
	Adjust func(*api.Config)
	// Network leads to other replicas; nil when the server's is alone.
	Network *consensus.Network
	// TolerationSeconds is the eviction delay; nil is the usual one.
	TolerationSeconds func() int64
	// External are files that add to authentication and authorization.
	External external.Files
	// RequestHeader is a front proxy beside the usual one.
	RequestHeader standard.RequestHeader
	// Log receives what store and server say; nil is silent.
	Log *slog.Logger
}

// Cluster is a running API server.
type Cluster struct {
	// Kubeconfig is the path of the administrator's kubeconfig.
	Kubeconfig string
	// Config is the administrator's client configuration over TLS.
	Config *rest.Config
	// Server is the server itself.
	Server *api.Server
	// PKI made its certificates.
	PKI *pki.PKI

	replica *consensus.Replica
	backend *kubestore.Backend
}

// Start runs a cluster until the end of the test. It is ready when Start returns.
func Start(t testing.TB, adjust ...func(*Options)) *Cluster {
	t.Helper()
	o := Options{Dir: t.TempDir()}
	for _, f := range adjust {
		f(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c, err := build(ctx, o)
	if err != nil {
		cancel()
		t.Fatalf("start API server: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- c.serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("API server ended: %v", err)
			}
		case <-time.After(stopTimeout):
			t.Errorf("API server did not stop within %s", stopTimeout)
		}
	})
	if err := c.waitReady(ctx, done); err != nil {
		t.Fatalf("start API server: %v", err)
	}
	return c
}

// Run serves until the context ends; ready is called once when the server is.
func Run(ctx context.Context, o Options, ready func(*Cluster)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := build(ctx, o)
	if err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- c.serve(ctx) }()
	if err := c.waitReady(ctx, done); err != nil {
		cancel()
		return errors.Join(err, <-done)
	}
	ready(c)
	return <-done
}

// Client returns a client of the administrator over TLS.
func (c *Cluster) Client(t testing.TB) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(c.Config)
	if err != nil {
		t.Fatalf("make client: %v", err)
	}
	return client
}

// Replica is the server's replica of the store.
func (c *Cluster) Replica() *consensus.Replica { return c.replica }

// LastIndex returns the index of the last entry in the cluster's log.
func (c *Cluster) LastIndex() uint64 { return c.replica.Status().LastIndex }

func (c *Cluster) serve(ctx context.Context) error {
	err := c.Server.Run(ctx)
	c.backend.Close()
	return errors.Join(err, c.replica.Close())
}

// waitReady polls /readyz, as clients would.
func (c *Cluster) waitReady(ctx context.Context, done chan error) error {
	client, err := kubernetes.NewForConfig(c.Config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var answer []byte
	for {
		answer, err = client.Discovery().RESTClient().Get().AbsPath("/readyz").Param("verbose", "").DoRaw(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case ended := <-done:
			done <- ended
			return errors.Join(errors.New("server ended before it was ready"), ended)
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w\n%s", err, answer)
		}
	}
}

func build(ctx context.Context, o Options) (*Cluster, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Address == "" {
		o.Address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, err
	}
	c := &Cluster{Kubeconfig: filepath.Join(o.Dir, "kubeconfig")}
	if err := c.open(ctx, o, listener); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return c, nil
}

func (c *Cluster) open(ctx context.Context, o Options, listener net.Listener) error {
	var err error
	c.PKI, err = pki.Open(pki.Config{
		Dir: filepath.Join(o.Dir, "pki"), NodeName: nodeName, NodeIPs: []net.IP{net.IPv4(127, 0, 0, 1)},
		ServiceIP: net.ParseIP(serviceIP), ClusterDomain: clusterDomain, Log: o.Log})
	if err != nil {
		return err
	}
	if err := c.PKI.WriteAdminKubeconfig(c.Kubeconfig, "https://"+listener.Addr().String(), time.Now()); err != nil {
		return err
	}
	if c.Config, err = clientcmd.BuildConfigFromFlags("", c.Kubeconfig); err != nil {
		return err
	}
	c.Config.QPS = -1
	data := filepath.Join(o.Dir, "store")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	c.replica, err = consensus.Open(ctx, consensus.Config{
		Dir: data, NodeID: ReplicaID, ClusterID: ClusterID, Network: o.Network, Logger: o.Log, SegmentBytes: segmentBytes,
		ReserveBytes: noReserve})
	if err != nil {
		return err
	}
	if err := c.openServer(o, listener); err != nil {
		if c.backend != nil {
			c.backend.Close()
		}
		return errors.Join(err, c.replica.Close())
	}
	return nil
}

func (c *Cluster) openServer(o Options, listener net.Listener) error {
	var err error
	if c.backend, err = kubestore.New(c.replica, kubestore.Options{Logger: o.Log}); err != nil {
		return err
	}
	proxies, err := standard.NewFrontProxies(c.PKI, o.RequestHeader)
	if err != nil {
		return err
	}
	security := standard.Config{FrontProxies: proxies, PKI: c.PKI, Issuer: issuer, KeySetURL: "https://" + listener.Addr().String() + tokens.KeySetPath,
		TolerationSeconds: o.TolerationSeconds, External: o.External, ServerID: nodeName, Log: o.Log}
	config := api.Config{
		Listener:            listener,
		ServingCert:         c.PKI.Serving(),
		ClientCA:            c.PKI.Cluster(),
		ExternalAddress:     listener.Addr().String(),
		Storage:             c.backend.Decorator,
		ListerWatcher:       c.backend.ListerWatcher,
		Settings:            kinds.Settings{ServiceRanges: []string{"10.96.0.0/12"}, NodePortFirst: 30000, NodePortLast: 32767, ClusterDomain: clusterDomain},
		Security:            security.Security,
		Bootstrap:           []api.BootstrapHook{standard.Bootstrap(), standard.Trust(c.PKI, proxies)},
		ProxyClientCertFile: c.PKI.ProxyClient().File(),
		ProxyClientKeyFile:  c.PKI.ProxyClient().File(),
		Log:                 o.Log,
	}
	if o.Adjust != nil {
		o.Adjust(&config)
	}
	c.Server, err = api.New(config)
	return err
}
