package agent

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/podvine/podvine/gossip"
)

// runMembers carries what gossip tells to the parts that act on it, until ctx ends.
func (n *node) runMembers(ctx context.Context) error {
	n.directory.follow(ctx, func(before, after map[string]gossip.Member) {
		n.tunnels.trigger()
		n.dead.trigger()
		n.link.drop(after)
		if n.dir.Edge {
			return
		}
		n.serveMembers(after)
		n.spreader.changed()
		n.authorities.changed()
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

// kubeconfigInterval is how often the administrator's kubeconfig is compared with the members.
const kubeconfigInterval = 5 * time.Second

// runKubeconfig has the administrator's kubeconfig list the members, until ctx ends. Dead ones stay in it.
func (n *node) runKubeconfig(ctx context.Context) error {
	ticker := time.NewTicker(kubeconfigInterval)
	defer ticker.Stop()
	for {
		if n.keys.SetMemberServers(n.memberServers()) {
			if err := n.writeKubeconfig(); err != nil {
				n.log.Error("list the members in the administrator's kubeconfig", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// memberServers are where the members serve the API, by name.
func (n *node) memberServers() map[string]string {
	servers := map[string]string{}
	for id, member := range n.directory.all() {
		if name := n.directory.name(id); name != "" && member.State != gossip.StateLeft && member.Tags.APIPort != 0 {
			servers[name] = "https://" + netip.AddrPortFrom(member.Address.Addr(), member.Tags.APIPort).String()
		}
	}
	return servers
}

// serveMembers has this replica's certificate cover the addresses of all members, and the service default/kubernetes lead to
// the replicas that live.
func (n *node) serveMembers(members map[string]gossip.Member) {
	var ips []net.IP
	for _, member := range members {
		if member.State == gossip.StateLeft {
			continue
		}
		ips = append(ips, member.Address.Addr().AsSlice())
	}
	if _, err := n.keys.SetMemberIPs(ips, time.Now()); err != nil {
		n.log.Error("certify the addresses of members", "error", err)
	}
	n.tellAPI()
}

// tellAPI has the API look at which replicas live.
func (n *node) tellAPI() {
	select {
	case n.replicasChanged <- struct{}{}:
	default: // it is told already
	}
}
