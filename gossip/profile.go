package gossip

import (
	"fmt"
	"time"

	"github.com/hashicorp/memberlist"
)

// Profile is a set of timings for one kind of network.
type Profile string

const (
	// ProfileLAN is for machines in one data centre or on one site.
	ProfileLAN Profile = "lan"
	// ProfileLab is for test hosts that share a machine, where a paused core looks like a dead host.
	ProfileLab Profile = "lab"
)

// config returns memberlist's configuration for the profile. A death is known to all in at most 1.5 s at 10 members and
// 3 s at 1,000; the test of the package holds that in virtual time.
func (p Profile) config() (*memberlist.Config, error) {
	config := memberlist.DefaultLANConfig()
	switch p {
	case ProfileLAN:
		config.ProbeTimeout = 80 * time.Millisecond
	case ProfileLab:
		config.ProbeTimeout = 120 * time.Millisecond
	default:
		return nil, fmt.Errorf("choose gossip profile: %q is unknown, it is one of %q, %q", p, ProfileLAN, ProfileLab)
	}
	// At 250 ms one death in ten is known to all of ten members only after 1.7 s.
	config.ProbeInterval = 180 * time.Millisecond
	config.GossipInterval = 80 * time.Millisecond
	config.SuspicionMult = 2
	// Each member passes a message on so many times the logarithm of their number. With memberlist's 4, one death in thirty
	// stays unknown to one of a hundred members, who then finds out by himself, seconds later.
	config.RetransmitMult = 6
	config.DeadNodeReclaimTime = time.Second // a node that comes back at another address is taken at once
	config.DelegateProtocolVersion = 4
	// A ping does not become smaller, and seven tenths of what an idle agent allocated were tables to find that out.
	config.EnableCompression = false
	return config, nil
}
