package runtime

import (
	"context"
	"time"

	eventstypes "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"

	"github.com/podvine/podvine/agent/pods/shim/stream"
)

// Event is the end of a container's first process.
type Event struct {
	ContainerID string
	Exit        stream.Exit
}

// Watch subscribes at once and returns a function that calls handle for every
// container that ends from now on, until ctx does. handle runs on the caller's
// goroutine and must not block for long.
func (r *Runtime) Watch(ctx context.Context) func(handle func(Event)) {
	ch, errs := r.exchange.Subscribe(r.Context(ctx), `topic=="/tasks/exit"`, `topic=="/tasks/oom"`)
	return func(handle func(Event)) { r.follow(ctx, ch, errs, handle) }
}

func (r *Runtime) follow(ctx context.Context, ch <-chan *events.Envelope, errs <-chan error, handle func(Event)) {
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
					exit.OOM, exit.Isolated = exit.OOM || rec.OOM, rec.Isolated
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
