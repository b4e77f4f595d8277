// Package runtime runs containers: containerd's parts in this process, one slim
// shim a pod, runc below it.
//
// Role: it turns a Spec into a running container, finds the containers of an
// earlier agent again, reports how containers end, and holds the image store.
// It decides nothing.
//
// Ownership: a Runtime owns its root and state folders and the event socket.
// Shims are not its children: Close leaves every container running, and the
// next Open adopts them.
//
// Concurrency: a Runtime is safe for use by many goroutines. Each use of
// containerd is counted (Calls), because an idle node makes none.
package runtime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	ttrpcevents "github.com/containerd/containerd/api/services/ttrpc/events/v1"
	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/containerd/v2/core/events/exchange"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/mount"
	runtimev2 "github.com/containerd/containerd/v2/core/runtime/v2"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/gc"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins"
	"github.com/containerd/containerd/v2/plugins/services"
	"github.com/containerd/log"
	"github.com/containerd/plugin"
	"github.com/containerd/plugin/registry"
	"github.com/containerd/ttrpc"
	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sys/unix"
	emptypb "google.golang.org/protobuf/types/known/emptypb"

	// The parts of containerd that Open picks by name; nothing else runs.
	_ "github.com/containerd/containerd/v2/plugins/content/local/plugin"
	_ "github.com/containerd/containerd/v2/plugins/diff/walking/plugin"
	_ "github.com/containerd/containerd/v2/plugins/events"
	_ "github.com/containerd/containerd/v2/plugins/gc"
	_ "github.com/containerd/containerd/v2/plugins/leases"
	_ "github.com/containerd/containerd/v2/plugins/metadata"
	_ "github.com/containerd/containerd/v2/plugins/mount"
	_ "github.com/containerd/containerd/v2/plugins/services/tasks"
	_ "github.com/containerd/containerd/v2/plugins/services/warning"
	_ "github.com/containerd/containerd/v2/plugins/snapshots/overlay/plugin"
	"k8s.io/utils/keymutex"
)

const (
	// Namespace is containerd's namespace for everything of Kubernetes.
	Namespace = "k8s.io"
	// Snapshotter is the one kind of snapshot in use.
	Snapshotter = "overlayfs"
	// maxSocketFolderChars is containerd's own limit for its shim sockets.
	maxSocketFolderChars = 60
)

// parts are the plug-ins of containerd that an agent needs, by type and name.
func parts() map[string]bool {
	return map[string]bool{
		plugins.ContentPlugin.String() + ".content":                       true,
		plugins.DiffPlugin.String() + ".walking":                          true,
		plugins.EventPlugin.String() + ".exchange":                        true,
		plugins.GCPlugin.String() + ".scheduler":                          true,
		plugins.LeasePlugin.String() + ".manager":                         true,
		plugins.MetadataPlugin.String() + ".bolt":                         true,
		plugins.MountManagerPlugin.String() + ".bolt":                     true,
		plugins.RuntimePluginV2.String() + ".task":                        true,
		plugins.ServicePlugin.String() + "." + services.TasksService:      true,
		plugins.ShimPlugin.String() + ".manager":                          true,
		plugins.SnapshotPlugin.String() + "." + Snapshotter:               true,
		plugins.WarningPlugin.String() + "." + plugins.DeprecationsPlugin: true,
	}
}

// Config says where a Runtime keeps its things and which programs it runs.
type Config struct {
	// Root holds images and snapshots; State holds what ends with a reboot.
	// Both are made when missing.
	Root, State string
	// SocketDir holds the shims' sockets: an absolute path of at most 60
	// characters; "" means State/s.
	SocketDir string
	// ShimPath and RuncPath are absolute paths of the two programs.
	ShimPath, RuncPath string
	// Log receives what containerd complains about.
	Log *slog.Logger
	// Observe is told of each operation on a container under the name that the CRI has for it; nil is told nothing. It is
	// called from many goroutines.
	Observe func(operation string, took time.Duration, err error)
}

// shimLocks is how many pods' shims can be started at a time; pods that share a lock wait for each other.
const shimLocks = 64

// Runtime is containerd in process.
type Runtime struct {
	cfg      Config
	client   *client.Client
	tasks    tasksapi.TasksClient
	exchange *exchange.Exchange
	gc       collector
	set      *plugin.Set
	server   *ttrpc.Server
	cancel   context.CancelFunc
	calls    atomic.Uint64
	users    userCache
	// shims guards the start of each pod's shim.
	shims keymutex.KeyMutex
	// described remembers images by digest.
	described *lru.Cache[string, ImageInfo]
}

type collector interface {
	ScheduleAndWait(context.Context) (gc.Stats, error)
}

// Open starts containerd's parts and adopts the shims that an earlier agent
// left. The context bounds the start only.
func Open(ctx context.Context, cfg Config) (*Runtime, error) {
	if cfg.SocketDir == "" {
		cfg.SocketDir = filepath.Join(cfg.State, "s")
	}
	if len(cfg.SocketDir) > maxSocketFolderChars {
		return nil, fmt.Errorf("shim socket folder %q is longer than %d characters", cfg.SocketDir, maxSocketFolderChars)
	}
	for _, p := range []string{cfg.ShimPath, cfg.RuncPath} {
		if err := unix.Access(p, unix.X_OK); err != nil {
			return nil, fmt.Errorf("run %s: %w", p, err)
		}
	}
	if err := makeFolders(cfg); err != nil {
		return nil, err
	}
	if err := log.SetLevel("fatal"); err != nil {
		return nil, fmt.Errorf("set containerd log level: %w", err)
	}
	described, err := lru.New[string, ImageInfo](maxDescribed)
	if err != nil {
		return nil, fmt.Errorf("make image cache: %w", err)
	}
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r := &Runtime{shims: keymutex.NewHashed(shimLocks), cfg: cfg, cancel: cancel, set: plugin.NewPluginSet(), described: described}
	if err := r.start(life); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// makeFolders makes the folders in this order, and puts their modes right: the root of a container with a user namespace is
// nobody on the host and must get through the first two, which a folder made below them first would make private.
func makeFolders(cfg Config) error {
	for _, folder := range []struct {
		path string
		mode os.FileMode
	}{{cfg.Root, 0o711}, {cfg.State, 0o711}, {cfg.SocketDir, 0o700}, {filepath.Join(cfg.State, "io"), 0o700}} {
		if err := os.MkdirAll(folder.path, folder.mode); err != nil {
			return fmt.Errorf("make runtime folder: %w", err)
		}
		if err := os.Chmod(folder.path, folder.mode); err != nil {
			return fmt.Errorf("protect runtime folder: %w", err)
		}
	}
	return nil
}

func (r *Runtime) eventSocket() string { return filepath.Join(r.cfg.SocketDir, "events") }

func (r *Runtime) start(ctx context.Context) error {
	wanted := parts()
	skip := func(reg *plugin.Registration) bool { return !wanted[reg.URI()] }
	for _, reg := range registry.Graph(skip) {
		if err := r.load(ctx, reg); err != nil {
			return fmt.Errorf("load containerd part %s: %w", reg.URI(), err)
		}
		delete(wanted, reg.URI())
		if reg.Type == plugins.EventPlugin {
			if err := r.serveEvents(ctx); err != nil {
				return err
			}
		}
	}
	if len(wanted) > 0 {
		return fmt.Errorf("containerd lacks parts: %v", wanted)
	}
	return r.connect()
}

func (r *Runtime) load(ctx context.Context, reg plugin.Registration) error {
	ic := plugin.NewContext(ctx, r.set, map[string]string{
		plugins.PropertyRootDir:      filepath.Join(r.cfg.Root, reg.URI()),
		plugins.PropertyStateDir:     filepath.Join(r.cfg.State, reg.URI()),
		plugins.PropertyGRPCAddress:  r.eventSocket(),
		plugins.PropertyTTRPCAddress: r.eventSocket(),
	})
	ic.RegisterReadiness = func() func() { return func() {} }
	ic.Config = reg.Config
	if reg.Type == plugins.ShimPlugin {
		ic.Config = &runtimev2.ShimConfig{SocketDir: r.cfg.SocketDir}
	}
	p := reg.Init(ic)
	if err := r.set.Add(p); err != nil {
		return err
	}
	return p.Err()
}

// serveEvents listens for the shims before any of them is adopted.
func (r *Runtime) serveEvents(ctx context.Context) error {
	ex, err := part[*exchange.Exchange](r.set, plugins.EventPlugin, "exchange")
	if err != nil {
		return err
	}
	r.exchange = ex
	if err := os.RemoveAll(r.eventSocket()); err != nil {
		return fmt.Errorf("remove old event socket: %w", err)
	}
	ln, err := net.Listen("unix", r.eventSocket())
	if err != nil {
		return fmt.Errorf("listen for shim events: %w", err)
	}
	srv, err := ttrpc.NewServer()
	if err != nil {
		return fmt.Errorf("make shim event server: %w", err)
	}
	ttrpcevents.RegisterTTRPCEventsService(srv, forwarder{ex})
	r.server = srv
	go func() {
		if err := srv.Serve(ctx, ln); err != nil && !errors.Is(err, ttrpc.ErrServerClosed) && ctx.Err() == nil {
			r.cfg.Log.Error("serve shim events", "err", err)
		}
	}()
	return nil
}

type forwarder struct{ exchange *exchange.Exchange }

// Forward takes one event from a shim.
func (f forwarder) Forward(ctx context.Context, req *ttrpcevents.ForwardRequest) (*emptypb.Empty, error) {
	e := req.Envelope
	err := f.exchange.Forward(ctx, &events.Envelope{Timestamp: e.Timestamp.AsTime(), Namespace: e.Namespace, Topic: e.Topic, Event: e.Event})
	return &emptypb.Empty{}, err
}

func part[T any](set *plugin.Set, t plugin.Type, id string) (T, error) {
	var none T
	p := set.Get(t, id)
	if p == nil {
		return none, fmt.Errorf("containerd part %s.%s is missing", t, id)
	}
	v, err := p.Instance()
	if err != nil {
		return none, err
	}
	out, ok := v.(T)
	if !ok {
		return none, fmt.Errorf("containerd part %s.%s is a %T", t, id, v)
	}
	return out, nil
}

func (r *Runtime) connect() error {
	db, err := part[*metadata.DB](r.set, plugins.MetadataPlugin, "bolt")
	if err != nil {
		return err
	}
	if r.tasks, err = part[tasksapi.TasksClient](r.set, plugins.ServicePlugin, services.TasksService); err != nil {
		return err
	}
	lm, err := part[leases.Manager](r.set, plugins.LeasePlugin, "manager")
	if err != nil {
		return err
	}
	mm, err := part[mount.Manager](r.set, plugins.MountManagerPlugin, "bolt")
	if err != nil {
		return err
	}
	df, err := part[interface {
		diff.Comparer
		diff.Applier
	}](r.set, plugins.DiffPlugin, "walking")
	if err != nil {
		return err
	}
	if r.gc, err = part[collector](r.set, plugins.GCPlugin, "scheduler"); err != nil {
		return err
	}
	r.client, err = client.New("", client.WithDefaultNamespace(Namespace), client.WithServices(
		client.WithContentStore(db.ContentStore()),
		client.WithContainerStore(metadata.NewContainerStore(db)),
		client.WithImageStore(metadata.NewImageStore(db)),
		client.WithSnapshotters(map[string]snapshots.Snapshotter{Snapshotter: db.Snapshotter(Snapshotter)}),
		client.WithLeasesService(lm),
		client.WithMountManager(mm),
		client.WithDiffService(df),
		client.WithTaskClient(r.tasks),
		client.WithEventService(r.exchange),
	))
	if err != nil {
		return fmt.Errorf("connect to containerd in process: %w", err)
	}
	return nil
}

// observe reports an operation that began then and ended now.
func (r *Runtime) observe(operation string, began time.Time, err *error) {
	if r.cfg.Observe != nil {
		r.cfg.Observe(operation, time.Since(began), *err)
	}
}

// Calls counts the uses of containerd since Open.
func (r *Runtime) Calls() uint64 { return r.calls.Load() }

// Client is containerd's client; each call of this method counts as a use.
func (r *Runtime) Client() *client.Client {
	r.calls.Add(1)
	return r.client
}

// Context puts ctx into containerd's namespace.
func (r *Runtime) Context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, Namespace)
}

// CollectGarbage removes unreferenced content and snapshots now.
func (r *Runtime) CollectGarbage(ctx context.Context) error {
	r.calls.Add(1)
	if _, err := r.gc.ScheduleAndWait(r.Context(ctx)); err != nil {
		return fmt.Errorf("collect image garbage: %w", err)
	}
	return nil
}

// Close stops containerd's parts. Containers go on running.
func (r *Runtime) Close() error {
	r.cancel()
	var errs []error
	if r.server != nil {
		errs = append(errs, r.server.Close())
	}
	all := r.set.GetAll()
	for i := len(all) - 1; i >= 0; i-- {
		v, err := all[i].Instance()
		if err != nil {
			continue
		}
		if c, ok := v.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}
