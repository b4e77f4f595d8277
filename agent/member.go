package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/podvine/podvine/agent/join"
	"github.com/podvine/podvine/agent/pki"
	"github.com/podvine/podvine/agent/version"
	"github.com/podvine/podvine/gossip"
)

// roleWait bounds how long a machine that has just joined waits for the role that is coming.
const roleWait = 3 * time.Second

// JoinConfig says how a machine that is no member yet becomes one.
type JoinConfig struct {
	// Peers are addresses of members, with or without a port; any one will do.
	Peers []string
	// Token is what `podvine token create` printed. A machine that is a member already needs none.
	Token string
}

// identify makes a machine without an identity a member: of the cluster that it is told to join, else of a new one that
// it founds. A machine that is told to join never founds.
func (n *node) identify(ctx context.Context) error {
	if n.dir.Left {
		return errors.New("this machine has left its cluster: let `podvine agent leave` remove what is left")
	}
	if n.dir.NodeID != "" {
		return nil
	}
	var mark leftMark
	if err := readJSON(n.dir.join(leftFile), &mark); err != nil {
		return err
	}
	if mark.ClusterID != "" {
		return errHasLeft(mark)
	}
	if n.config.Join == nil {
		return n.dir.become(identity{NodeID: uuid.NewString(), ClusterID: uuid.NewString(), NodeName: n.config.NodeName})
	}
	if n.config.Join.Token == "" {
		return errors.New("join a cluster: this machine is no member yet and needs a token: make one with `podvine token create` on a member, and give it with --token, --token-file or PODVINE_JOIN_TOKEN")
	}
	token, err := join.ParseToken(n.config.Join.Token)
	if err != nil {
		return err
	}
	request, keyPEM, err := n.joinRequest(token)
	if err != nil {
		return err
	}
	response, err := join.Ask(ctx, n.config.Join.Peers, token, request)
	if err != nil {
		return err
	}
	n.log.Info("joined", "cluster", response.ClusterID, "members", len(response.Members))
	n.roleComing = response.RoleComing
	return n.settleIn(request, response, keyPEM)
}

// awaitRole has a machine that has just joined wait for the role that it was told is coming, so that it need not start as an
// edge and a moment later anew as a replica. It returns when the role is there, or after a while without one.
func (n *node) awaitRole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, roleWait)
	defer cancel()
	waiting := &node{config: n.config, log: n.log, dir: n.dir, address: n.address, settings: n.settings, lastPeers: n.lastPeers}
	for _, step := range []func(context.Context) error{waiting.openMesh, waiting.openLink, waiting.openKeys, waiting.openPeers} {
		if err := step(ctx); err != nil {
			return errors.Join(err, waiting.close())
		}
	}
	asked, end := context.WithCancelCause(ctx)
	defer end(nil)
	waiting.setEnd(end)
	var group errgroup.Group
	group.Go(func() error { return waiting.peers.Run(asked) })
	group.Go(func() error { return waiting.runAgentCalls(asked) })
	err := group.Wait()
	return errors.Join(err, waiting.close())
}

func (n *node) joinRequest(token join.Token) (join.Request, []byte, error) {
	requestPEM, keyPEM, err := pki.NewRequest()
	if err != nil {
		return join.Request{}, nil, err
	}
	return join.Request{
		Protocol: join.Protocol, Version: version.Version, TokenID: token.ID, TokenSecret: token.Secret,
		NodeName: n.config.NodeName, NodeID: uuid.NewString(), Address: n.address, CertificateRequest: string(requestPEM),
	}, keyPEM, nil
}

// settleIn keeps what a new member got. The identity comes last: before it is there, the machine is no member and asks
// again.
func (n *node) settleIn(request join.Request, response *join.Response, keyPEM []byte) error {
	if err := pki.Enrol(n.dir.join("pki"), []byte(response.CA), []byte(response.Certificate), keyPEM); err != nil {
		return err
	}
	var settings Settings
	if err := json.Unmarshal(response.Settings, &settings); err != nil {
		return fmt.Errorf("read the cluster's settings: %w", err)
	}
	if err := writeJSON(n.dir.join("settings.json"), settings); err != nil {
		return err
	}
	peers := make([]gossip.Peer, 0, len(response.Members))
	for _, member := range response.Members {
		peers = append(peers, gossip.Peer{ID: member.ID, Address: member.Gossip, PeerPort: member.Peer.Port(), Replica: member.Replica})
	}
	if err := gossip.Prepare(n.dir.path, response.GossipKeys, peers); err != nil {
		return err
	}
	return n.dir.become(identity{NodeID: request.NodeID, ClusterID: response.ClusterID, NodeName: request.NodeName, Edge: true, Joined: true})
}
