package agent

import (
	"context"
	"time"

	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/gossip"
)

const (
	// goneInterval is how often the leader looks for members that are gone for good.
	goneInterval = 2 * time.Second
	// goneAfter is how long a member that died has been dead at least: one that joins is known to gossip, too, before everyone has heard of
	// its Node object.
	goneAfter = 10 * time.Second
)

// runGoneMembers has gossip forget members that are gone and have no Node object, while this replica leads, until ctx ends. Who leaves is
// forgotten at once where that works; the replica that is asked for it may not have heard the goodbye yet, or never hears it, and then
// nobody else would look again.
func (n *node) runGoneMembers(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), n.informers.Core().V1().Nodes().Informer().HasSynced) {
		return nil
	}
	ticker := time.NewTicker(goneInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if _, leads := n.replica.Leading(); !leads {
			continue
		}
		for _, id := range goneMembers(n.directory.all(), func(id string) bool { return n.directory.name(id) != "" }, time.Now()) {
			if err := n.mesh.Forget(id); err != nil {
				n.log.Warn("forget a member that has no Node object", "member", id, "error", err)
				continue
			}
			n.log.Info("forgot a member that is gone and has no Node object", "member", id)
		}
	}
}

// goneMembers picks the members without a name that have left, or are dead for long enough. It is pure.
func goneMembers(members map[string]gossip.Member, named func(id string) bool, now time.Time) (gone []string) {
	for id, member := range members {
		dead := member.State == gossip.StateDead && now.Sub(member.Since) >= goneAfter
		if (dead || member.State == gossip.StateLeft) && !named(id) {
			gone = append(gone, id)
		}
	}
	return gone
}
