package cli

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/podvine/podvine/cli/lab"
)

// labFaultCommands break a lab's network and disks, from outside of its hosts.
func labFaultCommands(name *string) []*cobra.Command {
	var oneWay bool
	cut := &cobra.Command{
		Use:   "cut HOST HOST",
		Short: "Carry nothing between two hosts",
		Long: `The switch carries nothing between the two hosts, until ` + "`podvine lab heal`" + `; with --one-way nothing from the first to the
second. Published ports and ` + "`podvine lab exec`" + ` reach both as before.`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			return inLab(*name, args, func(l *lab.Lab, hosts []*lab.Host) error { return l.Cut(hosts[0], hosts[1], oneWay) })
		},
	}
	cut.Flags().BoolVar(&oneWay, "one-way", false, "only what goes from the first host to the second")
	var behind bool
	clock := &cobra.Command{
		Use:   "clock HOST OFFSET",
		Short: "Set the clock of a host's agent ahead of the machine's, or behind",
		Long: `The agent believes that it is later than it is by OFFSET ("90s", "1h"), or earlier with --behind, until the host's end; 0s is the
right time. The first time its agent is started anew; from then on the clock jumps while it runs. What the agent starts reads the machine's clock.`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			offset, err := time.ParseDuration(args[1])
			if err != nil {
				return fmt.Errorf("set a clock: %w", err)
			}
			if behind {
				offset = -offset
			}
			return inLab(*name, args[:1], func(l *lab.Lab, hosts []*lab.Host) error { return l.SetClock(hosts[0], offset) })
		},
	}
	clock.Flags().BoolVar(&behind, "behind", false, "the agent believes that it is earlier")
	return []*cobra.Command{cut, clock, {
		Use: "isolate HOST", Short: "Cut a host from all others", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			return inLab(*name, args, func(l *lab.Lab, hosts []*lab.Host) error { return l.Isolate(hosts[0]) })
		},
	}, {
		Use: "heal", Short: "Mend every cut of the network", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return inLab(*name, nil, func(l *lab.Lab, _ []*lab.Host) error { return l.Heal() })
		},
	}, {
		Use:   "address HOST ADDRESS",
		Short: "Give a host another address",
		Long: `The host loses its address for another one of the lab's network, at once if it is up. Its agent learns of it when it
starts anew.`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			address, err := netip.ParseAddr(args[1])
			if err != nil {
				return err
			}
			return inLab(*name, args[:1], func(l *lab.Lab, hosts []*lab.Host) error { return l.SetAddress(hosts[0], address) })
		},
	}, {
		Use:   "disk HOST slow|hang|full|ok",
		Short: "Break a host's disk, or mend it",
		Long: `A full disk has no byte free; a hanging one keeps every write waiting; a slow one keeps each waiting for up to half a
second. A fault lasts until ` + "`podvine lab disk HOST ok`" + ` or the host's end.`,
		Args: cobra.ExactArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			return inLab(*name, args[:1], func(l *lab.Lab, hosts []*lab.Host) error {
				return l.SetDisk(hosts[0], lab.DiskFault(args[1]))
			})
		},
	}}
}

// inLab does something to the named hosts of a lab, under the lab's lock.
func inLab(name string, names []string, do func(*lab.Lab, []*lab.Host) error) (err error) {
	l, err := lab.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	hosts := make([]*lab.Host, 0, len(names))
	for _, name := range names {
		if name == "" {
			return fmt.Errorf("name a host of lab %s", l.Name)
		}
		host, err := l.Host(name)
		if err != nil {
			return err
		}
		hosts = append(hosts, host)
	}
	return do(l, hosts)
}
