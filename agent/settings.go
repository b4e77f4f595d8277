package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/dataplane/tunnel"
)

// Settings are the cluster's own settings. One replicated object holds them (settingsobject.go); flags seed it when a node
// founds the cluster, and each node keeps a copy on its disk, because a node starts before it can ask anybody.
type Settings struct {
	PodRanges     []string        `json:"podRanges"`
	ServiceRanges []string        `json:"serviceRanges"`
	ClusterDomain string          `json:"clusterDomain"`
	EvictionDelay metav1.Duration `json:"evictionDelay"`
	// Tunnel is how pods of different nodes reach each other: wireguard, vxlan or direct; "" is wireguard.
	Tunnel string `json:"tunnel"`
	// Voters is how many nodes decide; 0 follows the number of nodes.
	Voters int `json:"voters"`
	// Rebalance has pods move to nodes that have just joined.
	Rebalance bool `json:"rebalance"`
	// PodSecurityPolicies has the API serve that kind, and admit only those pods that one of them allows.
	PodSecurityPolicies bool `json:"podSecurityPolicies"`
}

// maxVoters bounds the setting: each write waits for a majority, and more than nine outlive nothing that nine do not.
const maxVoters = 9

// setting is one of the settings as users write it, under the name of its flag.
type setting struct {
	name string
	// live settings act as soon as they are changed. The others are decided when the cluster is founded: addresses and
	// names that pods and certificates hold already.
	live bool
	// optional ones are missing in what an older version wrote, and are then as in an empty [Settings].
	optional bool
	get      func(Settings) string
	set      func(*Settings, string) error
}

// settingsTable is every setting. Adding one is a line here, a field above, a flag, and its rule in [Settings.check].
func settingsTable() []setting {
	list := func(name string, field func(*Settings) *[]string) setting {
		return setting{name: name,
			get: func(s Settings) string { return strings.Join(*field(&s), ",") },
			set: func(s *Settings, text string) error {
				*field(s) = strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' })
				return nil
			}}
	}
	return []setting{
		list("pod-ranges", func(s *Settings) *[]string { return &s.PodRanges }),
		list("service-ranges", func(s *Settings) *[]string { return &s.ServiceRanges }),
		{name: "cluster-domain",
			get: func(s Settings) string { return s.ClusterDomain },
			set: func(s *Settings, text string) error { s.ClusterDomain = text; return nil }},
		{name: "eviction-delay", live: true,
			get: func(s Settings) string { return s.EvictionDelay.Duration.String() },
			set: func(s *Settings, text string) (err error) {
				s.EvictionDelay.Duration, err = time.ParseDuration(text)
				return err
			}},
		{name: "tunnel", live: true,
			get: func(s Settings) string { return string(s.tunnelMode()) },
			set: func(s *Settings, text string) error { s.Tunnel = text; return nil }},
		{name: "voters", live: true,
			get: func(s Settings) string { return strconv.Itoa(s.Voters) },
			set: func(s *Settings, text string) (err error) {
				s.Voters, err = strconv.Atoi(text)
				return err
			}},
		{name: "rebalance", live: true, optional: true,
			get: func(s Settings) string { return strconv.FormatBool(s.Rebalance) },
			set: func(s *Settings, text string) (err error) {
				s.Rebalance, err = strconv.ParseBool(text)
				return err
			}},
		{name: "pod-security-policies", live: true, optional: true,
			get: func(s Settings) string { return strconv.FormatBool(s.PodSecurityPolicies) },
			set: func(s *Settings, text string) (err error) {
				s.PodSecurityPolicies, err = strconv.ParseBool(text)
				return err
			}},
	}
}

// check reports everything that is wrong, by the name of the setting.
func (s Settings) check(fault func(name, format string, args ...any)) {
	if faults := validation.IsDNS1123Subdomain(s.ClusterDomain); len(faults) > 0 {
		fault("cluster-domain", "%q: %s", s.ClusterDomain, strings.Join(faults, "; "))
	}
	s.checkRanges(fault)
	if s.EvictionDelay.Duration < 0 {
		fault("eviction-delay", "%v is negative", s.EvictionDelay.Duration)
	}
	if _, err := tunnel.ParseMode(s.Tunnel); err != nil {
		fault("tunnel", "%v", err)
	}
	if s.Voters < 0 || s.Voters > maxVoters || s.Voters != 0 && s.Voters%2 == 0 {
		fault("voters", "%d is neither 0 nor an odd number up to %d", s.Voters, maxVoters)
	}
}

func (s Settings) checkRanges(fault func(name, format string, args ...any)) {
	var all []netip.Prefix
	for _, list := range []struct {
		name            string
		ranges          []string
		longest4, count int
	}{{"pod-ranges", s.PodRanges, 24, 16}, {"service-ranges", s.ServiceRanges, 28, 2}} {
		if len(list.ranges) == 0 || len(list.ranges) > list.count {
			fault(list.name, "%d ranges are given, want 1 to %d", len(list.ranges), list.count)
		}
		for _, text := range list.ranges {
			prefix, err := netip.ParsePrefix(text)
			switch {
			case err != nil:
				fault(list.name, "%q is not an address range", text)
				continue
			case prefix.Masked() != prefix:
				fault(list.name, "%s is not the start of its range, that is %s", text, prefix.Masked())
			case prefix.Addr().Is4() && prefix.Bits() > list.longest4:
				fault(list.name, "%s is too small, it must be a /%d or larger", text, list.longest4)
			}
			for _, other := range all {
				if other.Overlaps(prefix) {
					fault(list.name, "%s overlaps %s", prefix, other)
				}
			}
			all = append(all, prefix)
		}
	}
}

// podRanges are the addresses of pods.
func (s Settings) podRanges() []netip.Prefix { return prefixes(s.PodRanges) }

// ranges are the addresses of pods and services.
func (s Settings) ranges() []netip.Prefix {
	return prefixes(slices.Concat(s.PodRanges, s.ServiceRanges))
}

// prefixes reads ranges that Config.Validate has seen.
func prefixes(ranges []string) []netip.Prefix {
	var all []netip.Prefix
	for _, text := range ranges {
		all = append(all, netip.MustParsePrefix(text))
	}
	return all
}

func (s Settings) equal(other Settings) bool {
	return !slices.ContainsFunc(settingsTable(), func(one setting) bool { return one.get(s) != one.get(other) })
}

func (c Config) settings() Settings {
	return Settings{
		PodRanges: c.PodRanges, ServiceRanges: c.ServiceRanges, ClusterDomain: c.ClusterDomain,
		EvictionDelay: metav1.Duration{Duration: c.EvictionDelay}, Tunnel: c.Tunnel, Voters: c.Voters, Rebalance: c.Rebalance,
		PodSecurityPolicies: c.PodSecurityPolicies,
	}
}

// loadSettings returns the node's copy of the settings; the seed becomes that copy where there is none.
func loadSettings(path string, seed Settings) (Settings, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return seed, writeJSON(path, seed)
	}
	var settings Settings
	if err == nil {
		err = json.Unmarshal(content, &settings)
	}
	if err != nil {
		return Settings{}, fmt.Errorf("read the cluster's settings: %w", err)
	}
	return settings, nil
}

// Offsets of well-known services in the first service range, as everybody expects them (10.96.0.1, 10.96.0.10).
const (
	apiServiceOffset = 1
	dnsServiceOffset = 10
)

// serviceAddress is the address at an offset of the first service range.
func (s Settings) serviceAddress(offset int) netip.Addr {
	address := netip.MustParsePrefix(s.ServiceRanges[0]).Addr() // Config.Validate has seen the ranges
	for range offset {
		address = address.Next()
	}
	return address
}

// kinds are the settings that served kinds depend on.
func (s Settings) kinds() kinds.Settings {
	const nodePortFirst, nodePortLast = 30000, 32767
	return kinds.Settings{ServiceRanges: s.ServiceRanges, NodePortFirst: nodePortFirst, NodePortLast: nodePortLast, ClusterDomain: s.ClusterDomain,
		PodSecurityPolicies: s.PodSecurityPolicies}
}

// evictionDelaySeconds is the delay as tolerations take it, at least a second.
func (s Settings) evictionDelaySeconds() int64 {
	return max(1, int64(s.EvictionDelay.Duration.Round(time.Second)/time.Second))
}
