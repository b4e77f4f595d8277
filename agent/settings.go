package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podvine/podvine/agent/api/kinds"
)

// Settings are the cluster's own settings. One replicated object holds them; flags seed it when a node founds the cluster,
// and each node keeps a copy on its disk, because a node starts before it can ask anybody.
type Settings struct {
	PodRanges     []string        `json:"podRanges"`
	ServiceRanges []string        `json:"serviceRanges"`
	ClusterDomain string          `json:"clusterDomain"`
	EvictionDelay metav1.Duration `json:"evictionDelay"`
}

func (c Config) settings() Settings {
	return Settings{
		PodRanges: c.PodRanges, ServiceRanges: c.ServiceRanges, ClusterDomain: c.ClusterDomain,
		EvictionDelay: metav1.Duration{Duration: c.EvictionDelay},
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
	return kinds.Settings{ServiceRanges: s.ServiceRanges, NodePortFirst: nodePortFirst, NodePortLast: nodePortLast, ClusterDomain: s.ClusterDomain}
}

// evictionDelaySeconds is the delay as tolerations take it, at least a second.
func (s Settings) evictionDelaySeconds() int64 {
	return max(1, int64(s.EvictionDelay.Duration.Round(time.Second)/time.Second))
}
