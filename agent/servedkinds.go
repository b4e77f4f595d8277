package agent

import (
	"errors"
	"slices"
	"time"
)

// servedSpread lies between the new starts of two replicas, so that the API is there while they take up a setting that says which
// kinds it serves.
const servedSpread = 20 * time.Second

// errKindsChanged ends an agent that is to start anew, to serve other kinds.
var errKindsChanged = errors.New("this node is to serve other kinds now")

// settingsChanged has a replica start anew when the kinds that it serves are others than those with which it began. Its pods do
// not notice.
func (n *node) settingsChanged(was, is Settings) {
	if n.dir.Edge || was.PodSecurityPolicies == is.PodSecurityPolicies {
		return
	}
	var replicas []string
	for id, member := range n.directory.all() {
		if member.Tags.Role.Replica() {
			replicas = append(replicas, id)
		}
	}
	slices.Sort(replicas)
	pause := restartPause + time.Duration(max(0, slices.Index(replicas, n.dir.NodeID)))*servedSpread
	n.log.Info("start anew to serve other kinds", "pod-security-policies", is.PodSecurityPolicies, "in", pause)
	time.AfterFunc(pause, func() {
		if n.live.get().PodSecurityPolicies != n.settings.PodSecurityPolicies {
			n.end(errKindsChanged)
		}
	})
}
