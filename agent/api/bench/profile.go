package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// profile takes profiles of the API server's CPU and allocations during an operation; what it returns waits for them.
func profile(ctx context.Context, config *rest.Config, s settings, operation string) func() error {
	kinds := []string{"profile", "allocs"}
	finished := make(chan error, len(kinds))
	for _, kind := range kinds {
		go func() { finished <- takeProfile(ctx, config, s, operation, kind) }()
	}
	return func() error { return errors.Join(<-finished, <-finished) }
}

func takeProfile(ctx context.Context, config *rest.Config, s settings, operation, kind string) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.profile, 0o700); err != nil {
		return err
	}
	seconds := strconv.Itoa(max(1, int(s.duration.Seconds()))) // of allocations, too, only what happens in that time
	content, err := client.Discovery().RESTClient().Get().AbsPath("/debug/pprof/"+kind).Param("seconds", seconds).DoRaw(ctx)
	if err != nil {
		return fmt.Errorf("profile the API server: %w", err)
	}
	return os.WriteFile(filepath.Join(s.profile, operation+"."+kind), content, 0o600)
}
