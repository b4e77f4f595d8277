package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/agent/pods/shim/stream"
)

// Streams are a client's ends of a process; nil ones are not connected.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Resize delivers terminal sizes until it is closed; nil for none.
	Resize <-chan Size
}

// Size of a terminal in characters.
type Size struct{ Cols, Rows uint16 }

// ExecSpec describes a further process in a running container.
type ExecSpec struct {
	ContainerID string
	// ExecID is unique within the container.
	ExecID   string
	Args     []string
	Terminal bool
	Streams  Streams
}

// Exec runs a process in a container and returns its exit code when it has
// ended and its output was delivered. When ctx ends first the process is killed.
func (r *Runtime) Exec(ctx context.Context, s ExecSpec) (code uint32, err error) {
	defer r.observe("exec", time.Now(), &err)
	cctx := r.Context(context.WithoutCancel(ctx))
	proc, err := r.execProcess(cctx, s)
	if err != nil {
		return 0, err
	}
	spec, err := typeurl.MarshalAnyToProto(proc)
	if err != nil {
		return 0, fmt.Errorf("encode process: %w", err)
	}
	dir := r.ControlDir(s.ContainerID, s.ExecID)
	uri := stream.IO{Dir: dir, Stdin: s.Streams.Stdin != nil, StdinOnce: true, Lossless: true}.URI()
	r.calls.Add(1)
	if _, err := r.tasks.Exec(cctx, &tasksapi.ExecProcessRequest{ContainerID: s.ContainerID, ExecID: s.ExecID, Terminal: s.Terminal, Stdout: uri, Spec: spec}); err != nil {
		return 0, fmt.Errorf("prepare exec: %w", native(err))
	}
	defer func() { err = errors.Join(err, r.endExec(cctx, s)) }()
	conn, err := stream.Dial(dir)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if _, err := r.tasks.Start(cctx, &tasksapi.StartRequest{ContainerID: s.ContainerID, ExecID: s.ExecID}); err != nil {
		return 0, fmt.Errorf("start exec: %w", native(err))
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	pumpErr := Pump(conn, s.Streams)
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	if pumpErr != nil {
		return 0, pumpErr
	}
	resp, err := r.tasks.Wait(r.Context(ctx), &tasksapi.WaitRequest{ContainerID: s.ContainerID, ExecID: s.ExecID})
	if err != nil {
		return 0, fmt.Errorf("wait for exec: %w", native(err))
	}
	return resp.ExitStatus, nil
}

// execProcess is the container's own process with other arguments.
func (r *Runtime) execProcess(ctx context.Context, s ExecSpec) (*specs.Process, error) {
	rec, err := r.Client().ContainerService().Get(ctx, s.ContainerID)
	if err != nil {
		return nil, fmt.Errorf("find container: %w", err)
	}
	v, err := typeurl.UnmarshalAny(rec.Spec)
	if err != nil {
		return nil, fmt.Errorf("decode OCI spec: %w", err)
	}
	oci, ok := v.(*specs.Spec)
	if !ok || oci.Process == nil {
		return nil, fmt.Errorf("container %s has no process", s.ContainerID)
	}
	p := *oci.Process
	p.Args, p.Terminal = s.Args, s.Terminal
	return &p, nil
}

func (r *Runtime) endExec(ctx context.Context, s ExecSpec) error {
	_, err := r.tasks.DeleteProcess(ctx, &tasksapi.DeleteProcessRequest{ContainerID: s.ContainerID, ExecID: s.ExecID})
	if err = native(err); err == nil || errdefs.IsNotFound(err) {
		return nil
	}
	kill := &tasksapi.KillRequest{ContainerID: s.ContainerID, ExecID: s.ExecID, Signal: uint32(unix.SIGKILL)}
	if _, err := r.tasks.Kill(ctx, kill); err != nil && !errdefs.IsNotFound(native(err)) {
		return fmt.Errorf("kill exec: %w", native(err))
	}
	wctx, cancel := context.WithTimeout(ctx, killWait)
	defer cancel()
	if _, err := r.tasks.Wait(wctx, &tasksapi.WaitRequest{ContainerID: s.ContainerID, ExecID: s.ExecID}); err != nil && !errdefs.IsNotFound(native(err)) {
		return fmt.Errorf("wait for killed exec: %w", native(err))
	}
	_, err = r.tasks.DeleteProcess(ctx, &tasksapi.DeleteProcessRequest{ContainerID: s.ContainerID, ExecID: s.ExecID})
	if err = native(err); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete exec: %w", err)
	}
	return nil
}

// Attach connects streams to a container's first process until it ends or ctx
// does.
func (r *Runtime) Attach(ctx context.Context, id string, s Streams) error {
	conn, err := stream.Dial(r.ControlDir(id, ""))
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := Pump(conn, s); err != nil && ctx.Err() == nil {
		return err
	}
	return nil
}

// Pump copies between a process's stream and a client until the output ends.
func Pump(conn *stream.Conn, s Streams) error {
	done := make(chan struct{})
	defer close(done)
	if s.Stdin != nil {
		go sendInput(conn, s.Stdin)
	}
	if s.Resize != nil {
		go func() {
			for {
				select {
				case size, ok := <-s.Resize:
					if !ok || conn.SendResize(size.Cols, size.Rows) != nil {
						return
					}
				case <-done:
					return
				}
			}
		}()
	}
	for {
		kind, data, err := conn.Receive()
		// The shim closes when the output has ended. Where it has not read all of the input by then, a terminal's size say, the
		// kernel calls the end a reset, once everything that was sent is read.
		if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read process output: %w", err)
		}
		to := s.Stdout
		if kind == stream.Err {
			to = s.Stderr
		}
		if to == nil {
			continue
		}
		if _, err := to.Write(data); err != nil {
			return fmt.Errorf("deliver process output: %w", err)
		}
	}
}

func sendInput(conn *stream.Conn, from io.Reader) {
	buf := make([]byte, stream.MaxFrameBytes/2)
	for {
		n, err := from.Read(buf)
		if n > 0 && conn.Send(stream.In, buf[:n]) != nil {
			return
		}
		if err != nil {
			// A process that is gone needs no end of input.
			_ = conn.Send(stream.InEOF, nil)
			return
		}
	}
}
