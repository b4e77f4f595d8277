// Command serve runs an API server without nodes or controllers, to try clients and checkers against it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/podvine/podvine/agent/api/apitest"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "serve:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	kubeconfig := flag.String("kubeconfig", "", "write the administrator's kubeconfig here as well")
	address := flag.String("address", "127.0.0.1:0", "host:port to listen on")
	tolerate := flag.Int64("toleration-seconds", 5, "how long pods stay on a node that is not ready, where they do not say")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "podvine-api-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	options := apitest.Options{Dir: dir, Address: *address, Log: log, TolerationSeconds: func() int64 { return *tolerate }}
	return apitest.Run(ctx, options, func(c *apitest.Cluster) {
		path := c.Kubeconfig
		if *kubeconfig != "" {
			if err := copyFile(c.Kubeconfig, *kubeconfig); err != nil {
				log.Error("write kubeconfig", "error", err)
				stop()
				return
			}
			path = *kubeconfig
		}
		fmt.Println(path)
	})
}

func copyFile(from, to string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, content, 0o600)
}
