// Command podvine-shim keeps one pod's containers: it starts them with runc,
// reads their output into rotated CRI logs, serves live streams, and records
// how each container ended.
//
// It outlives the agent, which finds it again through containerd's bundle
// folders. As "podvine-shim pause" it is instead the minimal init of a pod that
// shares one PID namespace.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/manager"
	"github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2/task"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/containerd/v2/pkg/shutdown"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
)

// runtimeName is what containerd's client library calls this kind of shim.
const runtimeName = "io.containerd.runc.v2"

func main() {
	if len(os.Args) == 2 && os.Args[1] == "pause" {
		os.Exit(pause())
	}
	if len(os.Args) == 2 && os.Args[1] == infoArgument {
		answered, err := answerInfo()
		if err != nil {
			fmt.Fprintln(os.Stderr, "tell what the shim is:", err)
			os.Exit(1)
		}
		if answered {
			return
		}
	}
	registry.Register(&plugin.Registration{
		Type:     plugins.TTRPCPlugin,
		ID:       "task",
		Requires: []plugin.Type{plugins.EventPlugin, plugins.InternalPlugin},
		InitFn:   newTasks,
	})
	shim.RunShim(context.Background(), manager.NewShimManager(runtimeName))
}

func newTasks(ic *plugin.InitContext) (any, error) {
	p, err := ic.GetByID(plugins.EventPlugin, "publisher")
	if err != nil {
		return nil, err
	}
	s, err := ic.GetByID(plugins.InternalPlugin, "shutdown")
	if err != nil {
		return nil, err
	}
	t := &tasks{procs: map[procKey]*proc{}}
	inner, err := task.NewTaskService(ic.Context, &recorder{Publisher: p.(shim.Publisher), tasks: t}, s.(shutdown.Service))
	if err != nil {
		return nil, err
	}
	t.TTRPCTaskService = inner
	return t, nil
}
