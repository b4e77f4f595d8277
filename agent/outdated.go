package agent

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/podvine/podvine/agent/join"
)

const (
	// outdatedInterval is how often a member that no replica serves looks whether that is because of its certificates, outdatedFirst
	// when it does so after its start.
	outdatedInterval = 30 * time.Second
	outdatedFirst    = 5 * time.Second
	// outdatedTimeout bounds each question.
	outdatedTimeout = 3 * time.Second
)

// runOutdated tells the operator when this member's certificates count no more because the CA was rotated while it was away. Nobody can
// prove that to it, so it does nothing else about it.
func (n *node) runOutdated(ctx context.Context) error {
	timer := time.NewTimer(outdatedFirst)
	defer timer.Stop()
	for said := false; ; timer.Reset(outdatedInterval) {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		outdated := !n.served(ctx) && n.outdated(ctx)
		if outdated && !said {
			n.log.Error("the cluster's CA was rotated while this machine was away, and its certificates count no more: " +
				"run `podvine agent reset --yes` on it and join it again; its pods run on until then")
		}
		said = outdated
	}
}

// served tells whether the cluster's records can be reached from here.
func (n *node) served(ctx context.Context) bool {
	if n.replica != nil {
		return n.replica.Available()
	}
	ctx, cancel := context.WithTimeout(ctx, outdatedTimeout)
	defer cancel()
	return n.asItself.CoreV1().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error() == nil
}

// outdated tells whether a replica that lives says that what certifies this member is trusted no more.
func (n *node) outdated(ctx context.Context) bool {
	own := n.keys.TrustState().Trusted[0]
	for id, member := range n.directory.all() {
		if id == n.dir.NodeID || !member.Tags.Role.Replica() || !answers(member) {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, outdatedTimeout)
		offered, err := join.FetchAuthorities(ctx, netip.AddrPortFrom(member.Address.Addr(), member.Tags.APIPort).String())
		cancel()
		if err == nil && slices.Contains(offered.Retired, own) {
			return true
		}
	}
	return false
}
