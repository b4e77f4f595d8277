package cli

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/podvine/podvine/agent/bundle"
	"github.com/podvine/podvine/cli/lab"
)

// fetchTimeout bounds how long the hidden fetch command asks again.
const fetchTimeout = 30 * time.Second

func newLabCommand(streams Streams) *cobra.Command {
	command := &cobra.Command{
		Use:   "lab",
		Short: "Run a mesh of test hosts on this machine",
		Long: `A lab is a real mesh on one machine: each test host has its own network, mounts, processes, cgroups and disk, and
runs the ordinary agent. The machine's own network is left alone; each host's API is published on 127.0.0.1.`,
	}
	var name string
	command.PersistentFlags().StringVar(&name, "name", lab.DefaultName, "name of the lab")
	command.AddCommand(
		newLabUp(streams, &name), newLabDown(&name), newLabList(streams), newLabDemo(streams, &name),
		newLabKubeconfig(streams, &name), newLabExec(&name), newLabImage(streams),
		newLabHosts("kill", "End hosts at once, as a power cut would", &name, func(ctx context.Context, l *lab.Lab, h *lab.Host, agent bool) error { return l.Kill(ctx, h, agent) }),
		newLabHosts("start", "Start hosts that were killed", &name, func(_ context.Context, l *lab.Lab, h *lab.Host, agent bool) error { return l.Start(h, agent) }),
		newLabHosts("pause", "Stop every process of hosts where it stands", &name, func(_ context.Context, l *lab.Lab, h *lab.Host, agent bool) error { return l.Pause(h, agent) }),
		newLabHosts("resume", "Let paused hosts go on", &name, func(_ context.Context, l *lab.Lab, h *lab.Host, agent bool) error { return l.Resume(h, agent) }),
	)
	command.AddCommand(labFaultCommands(&name)...)
	command.AddCommand(hiddenLabCommands(streams, &name)...)
	return command
}

func newLabUp(streams Streams, name *string) *cobra.Command {
	options := lab.UpOptions{}
	var publish []uint
	command := &cobra.Command{
		Use:   "up",
		Short: "Start a lab, or what is missing of it, and wait until its nodes are Ready",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			options.Name = *name
			options.Progress = func(format string, args ...any) { fmt.Fprintf(streams.Err, format+"\n", args...) }
			for _, port := range publish {
				options.Publish = append(options.Publish, uint16(port))
			}
			l, err := lab.Up(command.Context(), options)
			if err != nil {
				return err
			}
			return l.Close()
		},
	}
	command.Flags().IntVar(&options.Hosts, "hosts", 1, "number of hosts; they and their nodes are called h1, h2, …")
	command.Flags().UintSliceVar(&publish, "publish", nil, "ports of each host to publish on 127.0.0.1, beside its API's")
	return command
}

func newLabDown(name *string) *cobra.Command {
	var all bool
	command := &cobra.Command{
		Use:   "down",
		Short: "End a lab and remove everything that it made",
		Args:  cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			names := []string{*name}
			if all {
				var err error
				if names, err = lab.Names(); err != nil {
					return err
				}
			}
			for _, name := range names {
				if err := lab.Down(command.Context(), name); err != nil {
					return err
				}
			}
			return nil
		},
	}
	command.Flags().BoolVar(&all, "all", false, "every lab of this machine")
	return command
}

func newLabList(streams Streams) *cobra.Command {
	return &cobra.Command{
		Use:   "ls",
		Short: "List the labs of this machine and their hosts",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			names, err := lab.Names()
			if err != nil {
				return err
			}
			table := tabwriter.NewWriter(streams.Out, 0, 0, 3, ' ', 0)
			fmt.Fprintln(table, "LAB\tHOST\tADDRESS\tSTATE\tPUBLISHED")
			for _, name := range names {
				l, err := lab.Read(name)
				if err != nil {
					return err
				}
				for _, host := range l.Hosts {
					state := "down"
					if host.Up() {
						state = "up"
					}
					fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", l.Name, host.Name, host.Address, state, publishedPorts(host))
				}
			}
			return table.Flush()
		},
	}
}

func publishedPorts(host *lab.Host) string {
	var ports []string
	for inside, outside := range host.Published {
		ports = append(ports, fmt.Sprintf("127.0.0.1:%d->%d", outside, inside))
	}
	slices.Sort(ports)
	return strings.Join(ports, ",")
}

func newLabKubeconfig(streams Streams, name *string) *cobra.Command {
	var hostName string
	command := &cobra.Command{
		Use:   "kubeconfig",
		Short: "Print a kubeconfig for the lab (of its first live host, unless --host names one)",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			l, err := lab.Read(*name)
			if err != nil {
				return err
			}
			host, err := l.Host(hostName)
			if err != nil {
				return err
			}
			content, err := l.Kubeconfig(host)
			if err != nil {
				return err
			}
			_, err = streams.Out.Write(content)
			return err
		},
	}
	command.Flags().StringVar(&hostName, "host", "", "the host whose API is reached")
	return command
}

func newLabImage(streams Streams) *cobra.Command {
	return &cobra.Command{
		Use:   "image",
		Short: "Write the sample application's image, " + lab.DemoImage + ", as an archive for `podvine image import`",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			program, err := bundle.Sample(os.Getenv("PODVINE_PROGRAMS"))
			if err != nil {
				return err
			}
			return lab.WriteImage(streams.Out, lab.DemoImage, program)
		},
	}
}

func newLabExec(name *string) *cobra.Command {
	return &cobra.Command{
		Use:   "exec HOST -- COMMAND [ARG…]",
		Short: "Run a command inside a host",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			l, err := lab.Read(*name)
			if err != nil {
				return err
			}
			host, err := l.Host(args[0])
			if err != nil {
				return err
			}
			return l.Exec(host, args[1:])
		},
	}
}

// newLabHosts makes a command that does one thing to each of the hosts that it names.
func newLabHosts(verb, short string, name *string, do func(context.Context, *lab.Lab, *lab.Host, bool) error) *cobra.Command {
	var agentOnly bool
	command := &cobra.Command{
		Use:   verb + " HOST…",
		Short: short,
		Args:  cobra.MinimumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			l, err := lab.Open(*name)
			if err != nil {
				return err
			}
			defer l.Close()
			return l.Each(args, func(host *lab.Host) error { return do(command.Context(), l, host, agentOnly) })
		},
	}
	command.Flags().BoolVar(&agentOnly, "agent", false, "the host's agent only; its pods run on")
	return command
}

// hiddenLabCommands are the processes that a lab consists of; nobody types them.
func hiddenLabCommands(streams Streams, name *string) []*cobra.Command {
	var binary string
	initCommand := &cobra.Command{
		Use: "init HOST", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return lab.Init(*name, args[0], binary, lab.AgentArguments(args[0]))
		},
	}
	initCommand.Flags().StringVar(&binary, "binary", "", "the podvine of the host")
	var serve bool
	clockCommand := &cobra.Command{
		Use: "run-clock", Hidden: true,
		RunE: func(_ *cobra.Command, args []string) error {
			if serve {
				return lab.ServeClock()
			}
			return lab.RunClock(args)
		},
	}
	clockCommand.Flags().BoolVar(&serve, "serve", false, "answer for the clock of another")
	return []*cobra.Command{initCommand, clockCommand, {
		Use: "boot HOST", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return lab.Boot(*name, args[0], streams.Out) },
	}, {
		Use: "fetch URL", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(command.Context(), fetchTimeout)
			defer cancel()
			answer, err := lab.Fetch(ctx, args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprint(streams.Out, answer)
			return err
		},
	}, {
		Use: "slow HOST", Hidden: true, Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error { return lab.Slow(command.Context(), *name, args[0]) },
	}, {
		Use: "publish", Hidden: true, Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return lab.Publish(command.Context(), *name, slog.New(slog.NewTextHandler(os.Stderr, nil)))
		},
	}}
}
