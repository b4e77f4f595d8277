// Package agent is one machine's part in a cluster: it starts gossip, the replicated store, the API, the control loops,
// the pod runtime and the data plane in their order, and ends them in the reverse one. Ending an agent never ends a pod.
//
// The parts do not know each other: wire.go alone gives each what it needs of the others, as small interfaces. Everything
// that a node keeps is below its data folder, which one agent at a time holds locked.
package agent

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"

	"github.com/podvine/podvine/agent/collector"
	"github.com/podvine/podvine/agent/preflight"
)

// Run runs the agent until ctx ends or a part of it fails in a way that it cannot mend.
func Run(ctx context.Context, config Config, log *slog.Logger) error {
	if err := preflight.FirstFatal(preflight.Run(config.Preflight(), true)); err != nil {
		return err
	}
	defer collector.Pace()()
	klog.SetLogger(logr.FromSlogHandler(quiet{log.Handler()}))
	n, err := newNode(ctx, config, log)
	if err != nil {
		return err
	}
	err = n.run(ctx)
	if startsAnew(err) && ctx.Err() == nil {
		return startAnew()
	}
	if err == nil && n.dir.Left {
		log.Info("this machine has left its cluster")
	}
	return err
}

// Preflight is what the checks of a machine need to know of this configuration.
func (c Config) Preflight() preflight.Options {
	return preflight.Options{
		DataDir:  c.DataDir,
		TCPPorts: []uint16{c.APIPort, c.KubeletPort, c.GossipPort, c.PeerPort},
		UDPPorts: []uint16{c.GossipPort},
	}
}

// quiet turns the libraries' reports of normal life into debug lines: they call an error what is a client that has hung
// up, a watch that is made again, or an answer that came too late. What an operator must know, Podvine says itself.
type quiet struct{ slog.Handler }

// triesAgain is what every writer is told whom another one was faster than. The libraries' loops run at each replica, as they do in each
// API server of Kubernetes, and try again after it.
const triesAgain = "the object has been modified; please apply your changes to the latest version and try again"

// Enabled implements slog.Handler.
func (q quiet) Enabled(ctx context.Context, level slog.Level) bool {
	return q.Handler.Enabled(ctx, quieter(level))
}

// Handle implements slog.Handler.
func (q quiet) Handle(ctx context.Context, record slog.Record) error {
	record.Level = quieter(record.Level)
	record.Attrs(func(attr slog.Attr) bool {
		if attr.Key == "err" && strings.Contains(attr.Value.String(), triesAgain) {
			record.Level = slog.LevelDebug
		}
		return record.Level != slog.LevelDebug
	})
	if !q.Handler.Enabled(ctx, record.Level) {
		return nil
	}
	if err := q.Handler.Handle(ctx, record); err != nil {
		return fmt.Errorf("write log line: %w", err)
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }

// WithGroup implements slog.Handler.
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }

func quieter(level slog.Level) slog.Level {
	if level < slog.LevelError {
		return slog.LevelDebug
	}
	return slog.LevelInfo
}
