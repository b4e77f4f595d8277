package agent

import (
	"context"
	"net"
	"time"

	"github.com/podvine/podvine/gossip"
)

// runMembers carries what gossip tells to the parts that act on it, until ctx ends.
func (n *node) runMembers(ctx context.Context) error {
	n.directory.follow(ctx, func(before, after map[string]gossip.Member) {
		n.tunnels.trigger()
		n.dead.trigger()
		if n.dir.Edge {
			n.link.drop(after)
			return
		}
		n.serveMembers(after)
		for id, member := range after {
			if before[id].State != member.State {
				if name := n.directory.name(id); name != "" {
					n.control.NodeChanged(name)
				}
			}
		}
	})
	return nil
}

// serveMembers has this replica's certificate cover the addresses of all members, and the service default/kubernetes lead to
// the replicas that live.
func (n *node) serveMembers(members map[string]gossip.Member) {
	var ips []net.IP
	for _, member := range members {
		ips = append(ips, member.Address.Addr().AsSlice())
	}
	if _, err := n.keys.SetMemberIPs(ips, time.Now()); err != nil {
		n.log.Error("certify the addresses of members", "error", err)
	}
	select {
	case n.replicasChanged <- struct{}{}:
	default: // it is told already
	}
}
