package runtime

import (
	"context"
	"time"

	eventstypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/typeurl/v2"

	"github.com/podvine/podvine/agent/pods/shim/stream"
)

// Event is the end of a container's first process.
type Event struct {
	ContainerID string
	Exit        stream.Exit
}

// Watch calls handle for every container that ends, until ctx does. handle
// runs on one goroutine and must not block for long.
func (r *Runtime) Watch(ctx context.Context, handle func(Event)) {
	ch, errs := r.exchange.Subscribe(r.Context(ctx), `topic=="/tasks/exit"`, `topic=="/tasks/oom"`)
	oom := map[string]bool{}
	for {
		select {
		case env := <-ch:
			v, err := typeurl.UnmarshalAny(env.Event)
			if err != nil {
				r.cfg.Log.Error("decode containerd event", "topic", env.Topic, "err", err)
				continue
			}
			switch e := v.(type) {
			case *eventstypes.TaskOOM:
				oom[e.ContainerID] = true
			case *eventstypes.TaskExit:
				if e.ID != e.ContainerID {
					continue
				}
				exit := stream.Exit{Code: e.ExitStatus, At: e.ExitedAt.AsTime(), OOM: oom[e.ContainerID]}
				if rec, err := stream.ReadExit(r.ControlDir(e.ContainerID, "")); err == nil {
					exit.OOM = exit.OOM || rec.OOM
				}
				if exit.At.IsZero() || exit.At.Unix() == 0 {
					exit.At = time.Now()
				}
				delete(oom, e.ContainerID)
				handle(Event{ContainerID: e.ContainerID, Exit: exit})
			}
		case err := <-errs:
			if ctx.Err() == nil {
				r.cfg.Log.Error("watch containerd events", "err", err)
			}
			return
		}
	}
}
