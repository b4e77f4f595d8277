package main

import (
	"context"
	"sync"
	"time"

	eventstypes "github.com/containerd/containerd/api/events"
	taskapi "github.com/containerd/containerd/api/runtime/task/v3"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/pkg/shim"
	"github.com/containerd/log"
	"github.com/containerd/ttrpc"
	emptypb "google.golang.org/protobuf/types/known/emptypb"

	"github.com/podvine/podvine/agent/pods/shim/stream"
)

// drainTimeout bounds how long a finished process's output may still trickle
// in (from children that kept its pipes) before its record is closed.
const drainTimeout = 2 * time.Second

// stepTimeout bounds a step of runc's, on a machine that does much else.
const stepTimeout = 2 * time.Minute

// tasks is containerd's runc task service with our own input and output.
type tasks struct {
	taskapi.TTRPCTaskService

	mu    sync.Mutex
	procs map[procKey]*proc // guarded by mu
}

type procKey struct{ container, exec string }

// RegisterTTRPC serves t in place of the service that it wraps.
func (t *tasks) RegisterTTRPC(server *ttrpc.Server) error {
	taskapi.RegisterTTRPCTaskService(server, t)
	return nil
}

func (t *tasks) get(k procKey) *proc {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.procs[k]
}

func (t *tasks) put(k procKey, p *proc) {
	t.mu.Lock()
	t.procs[k] = p
	t.mu.Unlock()
}

func (t *tasks) drop(k procKey) {
	t.mu.Lock()
	p := t.procs[k]
	delete(t.procs, k)
	t.mu.Unlock()
	if p != nil {
		p.close()
	}
}

// open prepares the pipes that stdout names, if it is one of ours.
func (t *tasks) open(k procKey, stdout string, terminal bool) (*proc, error) {
	spec, ours, err := stream.ParseIO(stdout)
	if err != nil || !ours {
		return nil, err
	}
	p, err := openProc(spec, terminal, procCalls{
		closeInput: func() {
			ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
			defer cancel()
			if _, err := t.TTRPCTaskService.CloseIO(ctx, &taskapi.CloseIORequest{ID: k.container, ExecID: k.exec, Stdin: true}); err != nil {
				log.G(ctx).WithError(err).Debug("close input")
			}
		},
		resize: func(cols, rows uint16) {
			ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
			defer cancel()
			req := &taskapi.ResizePtyRequest{ID: k.container, ExecID: k.exec, Width: uint32(cols), Height: uint32(rows)}
			if _, err := t.TTRPCTaskService.ResizePty(ctx, req); err != nil {
				log.G(ctx).WithError(err).Debug("resize terminal")
			}
		},
	})
	if err != nil {
		return nil, err
	}
	t.put(k, p)
	return p, nil
}

// whole is the context of a step that is not given up half-way when the agent that asked for it dies: a runc that is
// killed in the midst of it leaves a container that is neither made nor started.
func whole(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), stepTimeout)
}

// Create makes a container whose output we read.
func (t *tasks) Create(ctx context.Context, r *taskapi.CreateTaskRequest) (*taskapi.CreateTaskResponse, error) {
	ctx, cancel := whole(ctx)
	defer cancel()
	lease, err := leaseOf(r.Bundle)
	if err != nil {
		return nil, err
	}
	k := procKey{container: r.ID}
	p, err := t.open(k, r.Stdout, r.Terminal)
	if err != nil {
		return nil, err
	}
	if p != nil {
		r.Stdin, r.Stdout, r.Stderr = p.paths()
	}
	resp, err := t.TTRPCTaskService.Create(ctx, r)
	if err == nil && lease != "" {
		go t.enforce(r.ID, lease)
	}
	if p != nil {
		if err != nil {
			t.drop(k)
			return nil, err
		}
		p.start()
	}
	return resp, err
}

// Exec prepares a further process in a container.
func (t *tasks) Exec(ctx context.Context, r *taskapi.ExecProcessRequest) (*emptypb.Empty, error) {
	k := procKey{r.ID, r.ExecID}
	p, err := t.open(k, r.Stdout, r.Terminal)
	if err != nil {
		return nil, err
	}
	if p != nil {
		r.Stdin, r.Stdout, r.Stderr = p.paths()
	}
	resp, err := t.TTRPCTaskService.Exec(ctx, r)
	if err != nil && p != nil {
		t.drop(k)
	}
	return resp, err
}

// Start starts a created container or a prepared process.
func (t *tasks) Start(ctx context.Context, r *taskapi.StartRequest) (*taskapi.StartResponse, error) {
	ctx, cancel := whole(ctx)
	defer cancel()
	resp, err := t.TTRPCTaskService.Start(ctx, r)
	if r.ExecID == "" {
		return resp, err
	}
	if p := t.get(procKey{r.ID, r.ExecID}); p != nil {
		if err != nil {
			t.drop(procKey{r.ID, r.ExecID})
		} else {
			p.start()
		}
	}
	return resp, err
}

// Delete forgets an ended process, once its output is in the log.
func (t *tasks) Delete(ctx context.Context, r *taskapi.DeleteRequest) (*taskapi.DeleteResponse, error) {
	ctx, cancel := whole(ctx)
	defer cancel()
	resp, err := t.TTRPCTaskService.Delete(ctx, r)
	if err == nil {
		t.drop(procKey{r.ID, r.ExecID})
	}
	return resp, err
}

// recorder notes ends and OOM kills on disk before it publishes them, so that
// they survive an agent that was not there to listen.
type recorder struct {
	shim.Publisher
	tasks *tasks
}

// Publish passes an event on to the agent.
func (r *recorder) Publish(ctx context.Context, topic string, event events.Event) error {
	switch e := event.(type) {
	case *eventstypes.TaskOOM:
		if p := r.tasks.get(procKey{container: e.ContainerID}); p != nil {
			p.noteOOM()
		}
	case *eventstypes.TaskExit:
		k := procKey{container: e.ContainerID}
		if e.ID != e.ContainerID {
			k.exec = e.ID
		}
		if p := r.tasks.get(k); p != nil {
			p.drain(drainTimeout)
			if err := p.noteExit(e.ExitStatus, e.ExitedAt.AsTime()); err != nil {
				log.G(ctx).WithError(err).Error("record exit")
			}
		}
	}
	return r.Publisher.Publish(ctx, topic, event)
}
