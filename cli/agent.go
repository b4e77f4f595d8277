package cli

import (
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/podvine/podvine/agent"
	"github.com/podvine/podvine/gossip"
)

// defaultConfigFile is read where it exists and no other is named.
const defaultConfigFile = "/etc/podvine/config.yaml"

// agentFlags are the flags of the agent; every one may also stand in the configuration file, under its name.
type agentFlags struct {
	config     agent.Config
	profile    string
	nodeIP     string
	bind       string
	configFile string
	logFormat  string
	logLevel   string
}

func newAgentCommand(streams Streams) *cobra.Command {
	flags := &agentFlags{config: agent.DefaultConfig()}
	command := &cobra.Command{
		Use:   "agent",
		Short: "Run this machine's agent",
		Long: `Runs this machine's agent in the foreground. On a machine that belongs to no cluster yet it founds one.

The configuration file mirrors the flags: a YAML mapping of a flag's name to its value. A flag on the command line wins.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			config, log, err := flags.complete(command.Flags(), streams.Err)
			if err != nil {
				return err
			}
			return agent.Run(command.Context(), config, log)
		},
	}
	flags.register(command.Flags())
	command.AddCommand(newAgentJoinCommand(streams), newAgentLeaveCommand(streams), newAgentResetCommand(streams))
	return command
}

func (f *agentFlags) register(flags *pflag.FlagSet) {
	c := &f.config
	flags.StringVar(&f.configFile, "config", "", "configuration file (default "+defaultConfigFile+", where it exists)")
	flags.StringVar(&f.logFormat, "log-format", "text", "text or json")
	flags.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error")

	flags.StringVar(&c.DataDir, "data-dir", c.DataDir, "folder for everything that the node keeps")
	flags.StringVar(&c.ConfigDir, "config-dir", c.ConfigDir, "folder that gets the administrator's kubeconfig")
	flags.StringVar(&c.NodeName, "node-name", c.NodeName, "name of the Node object")
	flags.StringVar(&f.nodeIP, "node-ip", "", "address by which others reach this node (default: that of the default route)")
	flags.StringVar(&f.bind, "bind-address", c.BindAddress.String(), "address on which the API and the peers are served")
	flags.StringSliceVar(&c.NodeLabels, "node-labels", nil, "labels of the Node object when it is made, as key=value")
	flags.StringSliceVar(&c.NodeTaints, "node-taints", nil, "taints of the Node object when it is made, as key=value:effect")
	flags.StringVar(&f.profile, "gossip-profile", string(c.GossipProfile), "timings of gossip: lan or lab")
	flags.StringVar(&c.AuditPolicyFile, "audit-policy-file", "", "audit policy, as Kubernetes reads it")
	flags.StringVar(&c.AuditLogPath, "audit-log-path", "", "file for audit events; - is the standard output")
	flags.StringVar(&c.External.Authentication, "authentication-config", "", "file with an AuthenticationConfiguration (issuers of JWTs), followed; the same on every replica")
	flags.StringVar(&c.External.Authorization, "authorization-config", "", "file with an AuthorizationConfiguration, followed; the same on every replica (default: Node, RBAC)")
	flags.StringVar(&c.External.Tokens, "token-auth-file", "", "file with static tokens, as TOKEN,USER,UID,\"GROUP,…\" a line, followed; the same on every replica")
	flags.StringVar(&c.External.TokenWebhook, "authentication-token-webhook-config-file", "", "kubeconfig that leads to a server that reviews tokens, followed; the same on every replica")
	flags.StringVar(&c.External.TokenWebhookVersion, "authentication-token-webhook-version", c.External.TokenWebhookVersion, "version of the TokenReviews that it is sent: v1 or v1beta1")
	flags.DurationVar(&c.External.TokenWebhookCache, "authentication-token-webhook-cache-ttl", c.External.TokenWebhookCache, "how long its answers count")
	flags.StringVar(&c.RequestHeader.ClientCAFile, "requestheader-client-ca-file", "", "certificates of the authority of a front proxy that says in headers who a user is, followed; the same on every replica")
	for name, header := range map[string]struct {
		list *[]string
		what string
	}{
		"allowed-names":        {&c.RequestHeader.AllowedNames, "common names of certificates of that authority that count (default: any)"},
		"username-headers":     {&c.RequestHeader.UsernameHeaders, "headers that name the user, the first that is there counts"},
		"uid-headers":          {&c.RequestHeader.UIDHeaders, "headers that hold the user's UID"},
		"group-headers":        {&c.RequestHeader.GroupHeaders, "headers that name the user's groups"},
		"extra-headers-prefix": {&c.RequestHeader.ExtraHeadersPrefix, "what the names of headers with further attributes of the user begin with"},
	} {
		flags.StringSliceVar(header.list, "requestheader-"+name, nil, header.what)
	}
	for name, port := range map[string]*uint16{"api-port": &c.APIPort, "kubelet-port": &c.KubeletPort, "gossip-port": &c.GossipPort, "peer-port": &c.PeerPort} {
		flags.Uint16Var(port, name, *port, "port of the "+strings.TrimSuffix(name, "-port"))
	}

	flags.StringSliceVar(&c.PodRanges, "pod-ranges", c.PodRanges, "address ranges of pods (only when the node founds a cluster)")
	flags.StringSliceVar(&c.ServiceRanges, "service-ranges", c.ServiceRanges, "address ranges of services (only when the node founds a cluster)")
	flags.StringVar(&c.ClusterDomain, "cluster-domain", c.ClusterDomain, "DNS domain of services (only when the node founds a cluster)")
	flags.IntVar(&c.Voters, "voters", c.Voters, "how many nodes decide, an odd number; 0 follows the number of nodes (only when the node founds a cluster; later it is a cluster setting)")
	flags.BoolVar(&c.Rebalance, "rebalance", c.Rebalance, "move pods to nodes that have just joined, as disruption budgets allow (only when the node founds a cluster; later it is a cluster setting)")
	flags.BoolVar(&c.PodSecurityPolicies, "pod-security-policies", c.PodSecurityPolicies, "serve PodSecurityPolicies, as Kubernetes did until 1.24, and admit pods by them alone (only when the node founds a cluster; later it is a cluster setting)")
	flags.StringVar(&c.Tunnel, "tunnel", c.Tunnel, "how pods of different nodes reach each other: wireguard, vxlan or direct (only when the node founds a cluster; later it is a cluster setting)")
	flags.DurationVar(&c.EvictionDelay, "eviction-delay", c.EvictionDelay, "time from a node's death to the replacement of its pods (only when the node founds a cluster; later it is a cluster setting)")
}

// complete reads the configuration file and returns what the agent runs with.
func (f *agentFlags) complete(flags *pflag.FlagSet, logs io.Writer) (agent.Config, *slog.Logger, error) {
	if err := applyConfigFile(flags, f.configFile); err != nil {
		return agent.Config{}, nil, err
	}
	config := f.config
	config.GossipProfile = gossip.Profile(f.profile)
	for flag, text := range map[string]struct {
		value string
		to    *netip.Addr
	}{"node-ip": {f.nodeIP, &config.NodeIP}, "bind-address": {f.bind, &config.BindAddress}} {
		if text.value == "" {
			continue
		}
		address, err := netip.ParseAddr(text.value)
		if err != nil {
			return agent.Config{}, nil, fmt.Errorf("--%s: %q is not an IP address", flag, text.value)
		}
		*text.to = address
	}
	if err := config.Validate(); err != nil {
		return agent.Config{}, nil, err
	}
	log, err := newLogger(f.logFormat, f.logLevel, logs)
	return config, log, err
}

func newLogger(format, level string, to io.Writer) (*slog.Logger, error) {
	var options slog.HandlerOptions
	var parsed slog.Level
	if err := parsed.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("--log-level: %q is none of debug, info, warn, error", level)
	}
	options.Level = parsed
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(to, &options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(to, &options)), nil
	}
	return nil, fmt.Errorf("--log-format: %q is neither text nor json", format)
}

func newAgentResetCommand(streams Streams) *cobra.Command {
	config := agent.DefaultConfig()
	var confirmed bool
	command := &cobra.Command{
		Use:   "reset",
		Short: "Remove every trace of the agent from this machine: its pods, network, mounts, cgroups and data",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if !confirmed {
				return fmt.Errorf("this deletes %s and everything that this node's pods keep on it: say --yes to do it", config.DataDir)
			}
			return agent.Reset(command.Context(), config, func(step string) { fmt.Fprintln(streams.Err, step) })
		},
	}
	command.Flags().StringVar(&config.DataDir, "data-dir", config.DataDir, "folder with everything that the node keeps")
	command.Flags().StringVar(&config.ConfigDir, "config-dir", config.ConfigDir, "folder with the administrator's kubeconfig")
	command.Flags().BoolVar(&confirmed, "yes", false, "do it")
	return command
}
