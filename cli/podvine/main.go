// Command podvine is the agent, kubectl and every tool of Podvine in one program.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/podvine/podvine/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	code := cli.Main(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
