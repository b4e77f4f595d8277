package agent

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/podvine/podvine/agent/api/auth/external"
	"github.com/podvine/podvine/agent/api/auth/standard"
	"github.com/podvine/podvine/gossip"
)

// Config is how an agent is started. The fields of the first group belong to this node; those of the second seed the
// cluster's settings when the node founds a cluster and are ignored afterwards.
type Config struct {
	// DataDir holds everything that the node keeps.
	DataDir string
	// ConfigDir gets the administrator's kubeconfig.
	ConfigDir string
	// KubeletDir and LogDir are the customary folders that other people's software mounts.
	KubeletDir, LogDir string
	NodeName           string
	// NodeIP is the address by which others reach this node; the zero value means that of the default route.
	NodeIP netip.Addr
	// BindAddress is where the API and the peers are served; unspecified means every address.
	BindAddress                                netip.Addr
	APIPort, KubeletPort, GossipPort, PeerPort uint16
	GossipProfile                              gossip.Profile
	NodeLabels                                 []string
	NodeTaints                                 []string
	AuditPolicyFile, AuditLogPath              string
	// External are files of configuration of who may use the API. Every replica needs the same ones.
	External external.Files
	// RequestHeader is a front proxy of the administrator's. Every replica needs the same one.
	RequestHeader standard.RequestHeader
	// ProgramsDir holds the slim programs where the binary does not carry them.
	ProgramsDir string
	// Join has a machine that is no member yet join a cluster; nil has it found one.
	Join *JoinConfig

	PodRanges     []string
	ServiceRanges []string
	ClusterDomain string
	EvictionDelay time.Duration
	// Tunnel is how pods of different nodes reach each other: wireguard, vxlan or direct.
	Tunnel string
	// Voters is how many nodes decide; 0 follows the number of nodes.
	Voters int
	// Rebalance has pods move to nodes that have just joined.
	Rebalance bool
	// PodSecurityPolicies has the API serve that kind, as Kubernetes did until 1.24, and admit pods by them alone.
	PodSecurityPolicies bool
}

// DefaultConfig is an agent on an ordinary machine.
func DefaultConfig() Config {
	hostname, err := os.Hostname()
	if err != nil {
		hostname = ""
	}
	return Config{
		DataDir: "/var/lib/podvine", ConfigDir: "/etc/podvine", KubeletDir: "/var/lib/kubelet", LogDir: "/var/log",
		NodeName:    strings.ToLower(hostname),
		BindAddress: netip.IPv4Unspecified(),
		APIPort:     6443, KubeletPort: 10250, GossipPort: 7946, PeerPort: 7947,
		GossipProfile: gossip.ProfileLAN,
		ProgramsDir:   os.Getenv("PODVINE_PROGRAMS"),
		PodRanges:     []string{"10.244.0.0/16"},
		ServiceRanges: []string{"10.96.0.0/12"},
		ClusterDomain: "cluster.local",
		EvictionDelay: 5 * time.Second,
		Tunnel:        "wireguard",
		External:      external.Files{TokenWebhookVersion: "v1", TokenWebhookCache: 2 * time.Minute},
	}
}

// Validate names everything that is wrong with the configuration, by its flag.
func (c Config) Validate() error {
	var errs []error
	fault := func(flag, format string, args ...any) {
		errs = append(errs, fmt.Errorf("--%s: %s", flag, fmt.Sprintf(format, args...)))
	}
	if !filepath.IsAbs(c.DataDir) {
		fault("data-dir", "%q is not an absolute path", c.DataDir)
	}
	if faults := validation.IsDNS1123Subdomain(c.NodeName); len(faults) > 0 {
		fault("node-name", "%q: %s", c.NodeName, strings.Join(faults, "; "))
	}
	ports := map[uint16]string{}
	for flag, port := range map[string]uint16{"api-port": c.APIPort, "kubelet-port": c.KubeletPort, "gossip-port": c.GossipPort, "peer-port": c.PeerPort} {
		if other, taken := ports[port]; taken {
			fault(flag, "port %d is also that of --%s", port, other)
		}
		if port == 0 {
			fault(flag, "0 is no port")
		}
		ports[port] = flag
	}
	c.settings().check(fault)
	c.RequestHeader.Check(fault)
	if c.AuditPolicyFile != "" && c.AuditLogPath == "" {
		fault("audit-log-path", "a policy file is given, but no log")
	}
	if v := c.External.TokenWebhookVersion; v != "v1" && v != "v1beta1" {
		fault("authentication-token-webhook-version", "%q is neither v1 nor v1beta1", v)
	}
	if c.External.TokenWebhookCache < 0 {
		fault("authentication-token-webhook-cache-ttl", "%s is negative", c.External.TokenWebhookCache)
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// nodeAddress returns the configured address, or the one from which the machine's default route leaves.
func (c Config) nodeAddress() (netip.Addr, error) {
	if c.NodeIP.IsValid() {
		return c.NodeIP, nil
	}
	// Connecting a UDP socket sends nothing; it only asks the kernel for a route. The address is reserved for documentation.
	conn, err := net.Dial("udp", "192.0.2.1:9")
	if err != nil {
		return netip.Addr{}, errors.New("find this node's address: there is no default route: name the address with --node-ip")
	}
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Addr().Unmap(), nil
}
