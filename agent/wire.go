package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"github.com/podvine/podvine/consensus"
	"github.com/podvine/podvine/consensus/kubestore"
	"github.com/podvine/podvine/gossip"

	"github.com/prometheus/client_golang/prometheus"
)

// node is a wired agent.
type node struct {
	config   Config
	log      *slog.Logger
	dir      *dataDir
	settings Settings
	address  netip.Addr

	replica *consensus.Replica
	backend *kubestore.Backend
	mesh    *gossip.Mesh

	// closers end the parts in the reverse order of their start.
	closers []func() error
}

// newNode builds every part and gives each what it needs of the others. What was built is ended again on an error.
func newNode(ctx context.Context, config Config, log *slog.Logger) (n *node, err error) {
	n = &node{config: config, log: log}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	for _, step := range []func(context.Context) error{n.openDisk, n.openStore, n.openMesh} {
		if err := step(ctx); err != nil {
			return nil, err
		}
	}
	return n, nil
}

func (n *node) openDisk(context.Context) (err error) {
	if n.address, err = n.config.nodeAddress(); err != nil {
		return err
	}
	if n.dir, err = openDataDir(n.config.DataDir, n.config.NodeName); err != nil {
		return err
	}
	n.closers = append(n.closers, n.dir.Close)
	n.settings, err = loadSettings(n.dir.join("settings.json"), n.config.settings())
	return err
}

func (n *node) openStore(ctx context.Context) (err error) {
	n.replica, err = consensus.Open(ctx, consensus.Config{
		Dir: n.dir.join("raft"), NodeID: n.dir.NodeID, ClusterID: n.dir.ClusterID,
		Logger: n.log.With("part", "consensus"), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		return err
	}
	n.closers = append(n.closers, n.replica.Close)
	if n.backend, err = kubestore.New(n.replica, kubestore.Options{Logger: n.log.With("part", "store")}); err != nil {
		return err
	}
	n.closers = append(n.closers, func() error { n.backend.Close(); return nil })
	return nil
}

func (n *node) openMesh(context.Context) error {
	log := n.log.With("part", "gossip")
	transport, err := gossip.ListenUDPAndTCP(netip.AddrPortFrom(n.config.BindAddress, n.config.GossipPort), netip.AddrPortFrom(n.address, n.config.GossipPort), log)
	if err != nil {
		return err
	}
	n.mesh, err = gossip.Start(gossip.Config{
		ID: n.dir.NodeID, Transport: transport, Profile: n.config.GossipProfile, Dir: n.dir.path, Key: gossip.NewKey(), Log: log,
		Tags: gossip.Tags{Role: gossip.RoleVoter, APIPort: n.config.APIPort, PeerPort: n.config.PeerPort},
	})
	if err != nil {
		return err
	}
	n.closers = append(n.closers, n.mesh.Close)
	return nil
}

// run runs the parts until ctx ends or one of them fails.
func (n *node) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { <-ctx.Done(); return nil })
	err := group.Wait()
	return errors.Join(err, n.close())
}

// close ends the parts in the reverse order of their start.
func (n *node) close() error {
	var errs []error
	for i := len(n.closers) - 1; i >= 0; i-- {
		errs = append(errs, n.closers[i]())
	}
	n.closers = nil
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("end the agent: %w", err)
	}
	return nil
}
