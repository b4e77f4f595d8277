package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/log"
	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/agent/isolation"
)

// leaseOf is the file with the lease that a container runs under, "" for one that needs none.
func leaseOf(bundle string) (string, error) {
	content, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	var config struct {
		Annotations map[string]string `json:"annotations"`
	}
	if err == nil {
		err = json.Unmarshal(content, &config)
	}
	if err != nil {
		return "", fmt.Errorf("read the container's configuration: %w", err)
	}
	return config.Annotations[isolation.LeaseAnnotation], nil
}

// enforce ends the container when its lease is over, until the container is deleted. Nobody else does: the agent may be dead.
func (t *tasks) enforce(container, lease string) {
	ctx := context.Background()
	tick := time.NewTicker(isolation.Check)
	defer tick.Stop()
	said := false
	for range tick.C {
		p := t.get(procKey{container: container})
		if p == nil {
			return
		}
		if !isolation.Over(lease) {
			continue
		}
		if !said {
			log.G(ctx).WithField("container", container).Warn("the node is cut off from its cluster: end the container")
			said = true
		}
		p.noteIsolated()
		// What has ended already is no error that matters; what has not is killed again.
		if _, err := t.TTRPCTaskService.Kill(ctx, &taskapi.KillRequest{ID: container, Signal: uint32(unix.SIGKILL), All: true}); err != nil {
			log.G(ctx).WithError(err).Debug("end the container")
		}
	}
}
