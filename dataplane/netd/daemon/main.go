package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// gcPercent trades a little CPU for memory: netd lives on every node for ever and allocates little.
const gcPercent = 40

// Main is the command: `--dir FOLDER` names the folder with its configuration. It returns when it is asked to stop.
func Main(args []string) error {
	if len(args) != 2 || args[0] != "--dir" {
		return fmt.Errorf("usage: podvine-netd --dir FOLDER")
	}
	debug.SetGCPercent(gcPercent)
	// The agent's terminal is none of its business; it goes when it is told to.
	signal.Ignore(syscall.SIGHUP)
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	return Run(ctx, args[1], slog.New(slog.NewTextHandler(os.Stderr, nil)))
}
