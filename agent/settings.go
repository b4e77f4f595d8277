package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Settings are the cluster's own settings. One replicated object holds them; flags seed it when a node founds the cluster,
// and each node keeps a copy on its disk, because a node starts before it can ask anybody.
type Settings struct {
	PodRanges     []string        `json:"podRanges"`
	ServiceRanges []string        `json:"serviceRanges"`
	ClusterDomain string          `json:"clusterDomain"`
	EvictionDelay metav1.Duration `json:"evictionDelay"`
}

// settingsName is the ConfigMap in kube-system that holds the settings, as JSON under the key "settings".
const settingsName = "podvine-settings"

const settingsKey = "settings"

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

// evictionDelaySeconds is the delay as tolerations take it, at least a second.
func (s Settings) evictionDelaySeconds() int64 {
	return max(1, int64(s.EvictionDelay.Duration.Round(time.Second)/time.Second))
}
