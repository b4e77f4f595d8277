package runtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	taskstate "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/podvine/podvine/agent/pods/shim/stream"
)

const (
	// groupAnnotation makes containers of one pod share a shim.
	groupAnnotation = "io.containerd.runc.v2.group"
	// gcRootLabel keeps a container's snapshot until we remove it ourselves.
	gcRootLabel = "containerd.io/gc.root"
	// specTypeURL is how containerd labels an OCI spec.
	specTypeURL = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
)

// Spec is everything needed to make one container.
type Spec struct {
	// ID is unique on this node.
	ID string
	// Pod groups containers in one shim.
	Pod string
	// Image is a name in the image store; "" for a root of its own (RootDir).
	Image string
	// RootDir is the root file system when there is no image.
	RootDir string
	// Labels are kept with the container.
	Labels map[string]string
	// OCI is the runtime spec; Annotations and Root are filled in here.
	OCI *specs.Spec
	// Terminal, Stdin and the log settings describe the input and output.
	Terminal, Stdin, StdinOnce bool
	LogPath                    string
	MaxLogBytes                int64
	MaxLogFiles                int
}

// State is how a container is found.
type State string

// The states of a container.
const (
	StateCreated State = "created"
	StateRunning State = "running"
	StateExited  State = "exited"
	// StateUnknown is a container without a task and without a record of its end,
	// as after a power cut.
	StateUnknown State = "unknown"
)

// Found is one container that exists.
type Found struct {
	ID     string
	Labels map[string]string
	State  State
	Pid    uint32
	// CreatedAt is when it was made.
	CreatedAt time.Time
	// Exit is set when State is StateExited.
	Exit stream.Exit
}

// ControlDir is where a process's pipes, stream and exit record are.
func (r *Runtime) ControlDir(id, exec string) string {
	if exec == "" {
		return filepath.Join(r.cfg.State, "io", id)
	}
	return filepath.Join(r.cfg.State, "io", id, "exec-"+exec)
}

// Create makes a container and its first process, which waits for Start. It
// leaves nothing behind when it fails.
func (r *Runtime) Create(ctx context.Context, s Spec) (pid uint32, err error) {
	defer r.observe("create_container", time.Now(), &err)
	ctx = r.Context(ctx)
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Remove(context.WithoutCancel(ctx), s.ID))
		}
	}()
	rootfs, err := r.prepareRoot(ctx, s)
	if err != nil {
		return 0, err
	}
	if s.OCI.Annotations == nil {
		s.OCI.Annotations = map[string]string{}
	}
	s.OCI.Annotations[groupAnnotation] = s.Pod
	raw, err := json.Marshal(s.OCI)
	if err != nil {
		return 0, fmt.Errorf("encode OCI spec: %w", err)
	}
	opts, err := typeurl.MarshalAny(&runcoptions.Options{BinaryName: r.cfg.RuncPath, Root: filepath.Join(r.cfg.State, "runc")})
	if err != nil {
		return 0, fmt.Errorf("encode runc options: %w", err)
	}
	rec := containers.Container{
		ID: s.ID, Labels: s.Labels, Image: s.Image,
		Runtime:     containers.RuntimeInfo{Name: r.cfg.ShimPath, Options: opts},
		Spec:        &anypb.Any{TypeUrl: specTypeURL, Value: raw},
		Snapshotter: Snapshotter, SnapshotKey: s.ID,
	}
	if _, err := r.Client().ContainerService().Create(ctx, rec); err != nil {
		return 0, fmt.Errorf("record container: %w", err)
	}
	io := stream.IO{
		Dir: r.ControlDir(s.ID, ""), LogPath: s.LogPath, MaxLogBytes: s.MaxLogBytes, MaxLogFiles: s.MaxLogFiles,
		Stdin: s.Stdin, StdinOnce: s.StdinOnce,
	}
	r.calls.Add(1)
	// The first container of a pod starts its shim, and two that try at once take each other's socket away.
	r.shims.LockKey(s.Pod)
	resp, err := r.tasks.Create(ctx, &tasksapi.CreateTaskRequest{ContainerID: s.ID, Rootfs: rootfs, Stdout: io.URI(), Terminal: s.Terminal})
	err = errors.Join(err, r.shims.UnlockKey(s.Pod))
	if err != nil {
		return 0, fmt.Errorf("create task: %w", native(err))
	}
	return resp.Pid, nil
}

// native turns a gRPC status back into the error it was made from.
func native(err error) error {
	return errgrpc.ToNative(err)
}

func (r *Runtime) prepareRoot(ctx context.Context, s Spec) ([]*types.Mount, error) {
	if s.Image == "" {
		return []*types.Mount{{Type: "bind", Source: s.RootDir, Options: []string{"rbind", "rw"}}}, nil
	}
	mounts, err := r.prepareSnapshot(ctx, s)
	if err != nil {
		return nil, err
	}
	out := make([]*types.Mount, 0, len(mounts))
	for _, m := range mounts {
		out = append(out, &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return out, nil
}

func (r *Runtime) prepareSnapshot(ctx context.Context, s Spec) ([]mount.Mount, error) {
	key, image := s.ID, s.Image
	info, err := r.ImageInfo(ctx, image)
	if err != nil {
		return nil, err
	}
	sn := r.Client().SnapshotService(Snapshotter)
	marks := map[string]string{gcRootLabel: time.Now().UTC().Format(time.RFC3339)}
	if s.OCI.Linux != nil && len(s.OCI.Linux.UIDMappings) > 0 {
		u, g := s.OCI.Linux.UIDMappings[0], s.OCI.Linux.GIDMappings[0]
		marks[snapshots.LabelSnapshotUIDMapping] = fmt.Sprintf("%d:%d:%d", u.ContainerID, u.HostID, u.Size)
		marks[snapshots.LabelSnapshotGIDMapping] = fmt.Sprintf("%d:%d:%d", g.ContainerID, g.HostID, g.Size)
	}
	root := snapshots.WithLabels(marks)
	mounts, err := sn.Prepare(ctx, key, info.ChainID, root)
	if errdefs.IsNotFound(err) {
		if err := r.unpack(ctx, image); err != nil {
			return nil, err
		}
		mounts, err = sn.Prepare(ctx, key, info.ChainID, root)
	}
	if err != nil {
		return nil, fmt.Errorf("prepare root file system: %w", err)
	}
	return mounts, nil
}

// Start lets a created container run.
func (r *Runtime) Start(ctx context.Context, id string) (err error) {
	defer r.observe("start_container", time.Now(), &err)
	r.calls.Add(1)
	if _, err = r.tasks.Start(r.Context(ctx), &tasksapi.StartRequest{ContainerID: id}); err == nil {
		return nil
	}
	// An agent before this one may have asked for it when it died.
	if now, getErr := r.tasks.Get(r.Context(ctx), &tasksapi.GetRequest{ContainerID: id}); getErr == nil && now.Process.Status == taskstate.Status_RUNNING {
		return nil
	}
	return fmt.Errorf("start container: %w", native(err))
}

// WrittenBytes is what a container has written to its own root file system.
func (r *Runtime) WrittenBytes(ctx context.Context, id string) (int64, error) {
	u, err := r.Client().SnapshotService(Snapshotter).Usage(r.Context(ctx), id)
	if err != nil {
		return 0, fmt.Errorf("measure root file system: %w", err)
	}
	return u.Size, nil
}

// Pid is the process of a running container, as the host sees it.
func (r *Runtime) Pid(ctx context.Context, id string) (uint32, error) {
	r.calls.Add(1)
	resp, err := r.tasks.Get(r.Context(ctx), &tasksapi.GetRequest{ContainerID: id})
	if err != nil {
		return 0, fmt.Errorf("inspect container: %w", native(err))
	}
	return resp.Process.Pid, nil
}

// Kill sends a signal to a container's first process. A container that is gone
// or has ended is no error.
func (r *Runtime) Kill(ctx context.Context, id string, sig unix.Signal) (err error) {
	defer r.observe("stop_container", time.Now(), &err)
	r.calls.Add(1)
	_, err = r.tasks.Kill(r.Context(ctx), &tasksapi.KillRequest{ContainerID: id, Signal: uint32(sig)})
	if err = native(err); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsFailedPrecondition(err) {
		return fmt.Errorf("signal container: %w", err)
	}
	return nil
}

// Remove deletes a container in any state with its snapshot and pipes. What is
// already gone is no error.
func (r *Runtime) Remove(ctx context.Context, id string) (err error) {
	defer r.observe("remove_container", time.Now(), &err)
	ctx = r.Context(ctx)
	if err := r.removeTask(ctx, id); err != nil {
		return err
	}
	if err := r.Client().ContainerService().Delete(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("forget container: %w", err)
	}
	if err := r.Client().SnapshotService(Snapshotter).Remove(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove root file system: %w", err)
	}
	if err := os.RemoveAll(r.ControlDir(id, "")); err != nil {
		return fmt.Errorf("remove control folder: %w", err)
	}
	return nil
}

// killWait bounds how long a removed container may take to die of SIGKILL.
const killWait = 10 * time.Second

func (r *Runtime) removeTask(ctx context.Context, id string) error {
	r.calls.Add(1)
	_, err := r.tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id})
	if err = native(err); err == nil || errdefs.IsNotFound(err) {
		return nil
	}
	if err := r.Kill(ctx, id, unix.SIGKILL); err != nil {
		return err
	}
	wctx, cancel := context.WithTimeout(ctx, killWait)
	defer cancel()
	if _, err := r.tasks.Wait(wctx, &tasksapi.WaitRequest{ContainerID: id}); err != nil && !errdefs.IsNotFound(native(err)) {
		return fmt.Errorf("wait for killed container: %w", native(err))
	}
	if _, err := r.tasks.Delete(ctx, &tasksapi.DeleteTaskRequest{ContainerID: id}); err != nil && !errdefs.IsNotFound(native(err)) {
		return fmt.Errorf("delete task: %w", native(err))
	}
	return nil
}

// List finds every container, with what became of it while nobody looked.
func (r *Runtime) List(ctx context.Context) (found []Found, err error) {
	defer r.observe("list_containers", time.Now(), &err)
	ctx = r.Context(ctx)
	recs, err := r.Client().ContainerService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containers: %w", err)
	}
	out := make([]Found, 0, len(recs))
	for _, rec := range recs {
		f := Found{ID: rec.ID, Labels: rec.Labels, CreatedAt: rec.CreatedAt, State: StateUnknown}
		r.calls.Add(1)
		resp, err := r.tasks.Get(ctx, &tasksapi.GetRequest{ContainerID: rec.ID})
		switch {
		case err == nil && resp.Process.Status == taskstate.Status_STOPPED:
			f.State, f.Exit = StateExited, stream.Exit{Code: resp.Process.ExitStatus, At: resp.Process.ExitedAt.AsTime()}
		case err == nil && resp.Process.Status == taskstate.Status_CREATED:
			f.State, f.Pid = StateCreated, resp.Process.Pid
		case err == nil:
			f.State, f.Pid = StateRunning, resp.Process.Pid
		case !errdefs.IsNotFound(native(err)):
			return nil, fmt.Errorf("inspect container %s: %w", rec.ID, native(err))
		}
		if e, err := stream.ReadExit(r.ControlDir(rec.ID, "")); err == nil && f.State != StateRunning {
			f.State, f.Exit = StateExited, e
		}
		out = append(out, f)
	}
	return out, nil
}

// Update changes a running container's limits.
func (r *Runtime) Update(ctx context.Context, id string, res *specs.LinuxResources) (err error) {
	defer r.observe("update_container_resources", time.Now(), &err)
	any, err := typeurl.MarshalAnyToProto(res)
	if err != nil {
		return fmt.Errorf("encode resources: %w", err)
	}
	r.calls.Add(1)
	if _, err := r.tasks.Update(r.Context(ctx), &tasksapi.UpdateTaskRequest{ContainerID: id, Resources: any}); err != nil {
		return fmt.Errorf("update container: %w", native(err))
	}
	return nil
}
