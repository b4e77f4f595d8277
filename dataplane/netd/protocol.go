package netd

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/podvine/podvine/dataplane/dns"
	"github.com/podvine/podvine/dataplane/tunnel/wireguard"
)

// ProtocolVersion of the messages below. A client and a netd that differ in it replace netd, never guess.
const ProtocolVersion = 1

// The files in Config.Dir.
const (
	ConfigFile = "config.json"
	StateFile  = "state.json"
	TunnelFile = "tunnel.json"
	SocketFile = "netd.sock"
	LogFile    = "netd.log"
)

// Settings are what netd is told at its start, as JSON in [ConfigFile].
type Settings struct {
	// Addrs and Port are where DNS is answered: the node's own addresses in the pod ranges, at a high port.
	Addrs []netip.Addr `json:"addrs"`
	Port  uint16       `json:"port"`
	// Domain of the cluster, e.g. cluster.local.
	Domain string `json:"domain"`
	// ResolvConf names the upstreams; empty means /etc/resolv.conf.
	ResolvConf string `json:"resolvConf"`
	// Metrics is where Prometheus may ask; the zero value is nowhere.
	Metrics netip.AddrPort `json:"metrics"`
	// Build is the version of the program.
	Build string `json:"build"`
}

// Check refuses settings that netd must not be started with.
func (s *Settings) Check() error {
	if len(s.Addrs) == 0 || s.Port == 0 || s.Domain == "" {
		return errors.New("netd needs addresses, a port and a domain")
	}
	if s.Port == 53 {
		return errors.New("netd must not take port 53 of the host")
	}
	return nil
}

// Identity tells settings and builds apart.
func (s *Settings) Identity() (string, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("encode settings of netd: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8]), nil
}

// Request is one message to netd; it has one of its fields set.
type Request struct {
	Hello  *Hello      `json:"hello,omitempty"`
	Update *dns.Update `json:"update,omitempty"`
	// Stop asks netd to end.
	Stop bool `json:"stop,omitempty"`
	// Tunnel is the wanted state of the tunnel. netd keeps it on disk, without the private key.
	Tunnel *wireguard.Config `json:"tunnel,omitempty"`
	// RemoveTunnel ends the tunnel and takes its link away.
	RemoveTunnel bool `json:"removeTunnel,omitempty"`
	// TunnelStatus asks for the tunnel's peers.
	TunnelStatus bool `json:"tunnelStatus,omitempty"`
	// HandOver asks for the tunnel's link, as a file descriptor beside the reply. The tunnel of the one asked is over.
	HandOver bool `json:"handOver,omitempty"`
}

// Hello opens a connection.
type Hello struct {
	Protocol int `json:"protocol"`
}

// Reply answers one [Request].
type Reply struct {
	Error string `json:"error,omitempty"`
	// These answer a Hello.
	Protocol int    `json:"protocol,omitempty"`
	Identity string `json:"identity,omitempty"`
	PID      int    `json:"pid,omitempty"`
	// Services is how many services netd knows.
	Services int `json:"services"`
	// Tunnel answers TunnelStatus; nil when there is no tunnel.
	Tunnel *wireguard.Status `json:"tunnel,omitempty"`
	// Sessions answers HandOver: the peers that have a session with the one that hands over.
	Sessions []wireguard.Key `json:"sessions,omitempty"`
}

// WriteFile replaces a file of netd's folder atomically.
func WriteFile(dir, name string, value any) error {
	data, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}

// ReadFile reads a file of netd's folder; one that is not there is an os.ErrNotExist.
func ReadFile(dir, name string, value any) error {
	path := filepath.Join(dir, name)
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if err := json.Unmarshal(data, value); err != nil {
		return fmt.Errorf("decode %s: %w", path, err)
	}
	return nil
}
