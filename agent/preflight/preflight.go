// Package preflight finds out whether a machine can run an agent, before anything is changed on it. Each check looks at one
// thing and says in one line what is wrong and what to do. The package keeps no state; checks run one after the other
// and leave nothing behind.
package preflight

import (
	"fmt"
	"os"

	"github.com/podvine/podvine/dataplane/tunnel"
)

// Severity tells what a finding means.
type Severity string

const (
	// OK means nothing is wrong.
	OK Severity = "ok"
	// Warning means that the agent runs, with less than it could have.
	Warning Severity = "warning"
	// Fatal means that the agent cannot run.
	Fatal Severity = "fatal"
)

// Finding is the outcome of a check.
type Finding struct {
	Check    string   `json:"check"`
	Severity Severity `json:"severity"`
	// Detail is what was found.
	Detail string `json:"detail"`
	// Advice is what to do about it; empty when nothing is wrong.
	Advice string `json:"advice,omitempty"`
}

func (f Finding) String() string {
	if f.Advice == "" {
		return fmt.Sprintf("%s: %s", f.Check, f.Detail)
	}
	return fmt.Sprintf("%s: %s: %s", f.Check, f.Detail, f.Advice)
}

// Options are what the checks need to know of the agent that is to run.
type Options struct {
	DataDir string
	// TCPPorts and UDPPorts are what the agent will listen on.
	TCPPorts, UDPPorts []uint16
}

// Run makes every check. With quick it leaves out those that take time and are never fatal (the speed of the disk).
func Run(options Options, quick bool) []Finding {
	findings := []Finding{root(), kernelVersion(), cgroups(), overlay(), bpfPrograms(), tunnelLinks(tunnel.Probe())}
	for _, port := range options.TCPPorts {
		findings = append(findings, tcpPort(port))
	}
	for _, port := range options.UDPPorts {
		findings = append(findings, udpPort(port))
	}
	findings = append(findings, clock())
	if !quick {
		findings = append(findings, fsync(options.DataDir), mtu())
	}
	return findings
}

// FirstFatal returns the first fatal finding as an error, or nil.
func FirstFatal(findings []Finding) error {
	for _, finding := range findings {
		if finding.Severity == Fatal {
			return fmt.Errorf("this machine cannot run the agent: %s", finding)
		}
	}
	return nil
}

func root() Finding {
	if uid := os.Geteuid(); uid != 0 {
		return Finding{"user", Fatal, fmt.Sprintf("running as user %d", uid), "run it as root"}
	}
	return Finding{"user", OK, "root", ""}
}
