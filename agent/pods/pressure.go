package pods

import (
	"context"
	"io/fs"
	"maps"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/pods/images"
	"github.com/podvine/podvine/agent/pods/lifecycle"
	"github.com/podvine/podvine/agent/pods/nodestatus"
	"github.com/podvine/podvine/agent/pods/sandbox"
)

// pressurePeriod is how often the machine is looked at. It reads a few files,
// and asks neither containerd nor the API.
const pressurePeriod = 10 * time.Second

// relief is what the loop against pressure knows; only that loop uses it.
type relief struct {
	lastMet     map[lifecycle.Signal]time.Time
	reclaimedAt time.Time
	evicting    types.UID
	told        map[lifecycle.Signal]bool
	// look measures the machine; tests put another in.
	look func() (map[lifecycle.Signal]lifecycle.Measure, error)
}

// relieve keeps the node from running out of something, until ctx ends.
func (a *Agent) relieve(ctx context.Context) {
	t := time.NewTicker(pressurePeriod)
	defer t.Stop()
	for {
		if err := a.relieveOnce(ctx); err != nil && ctx.Err() == nil {
			a.log.Error("look for pressure", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (a *Agent) relieveOnce(ctx context.Context) error {
	r := &a.relief
	measures, err := r.look()
	if err != nil {
		return err
	}
	v := lifecycle.PressureView{
		Now: time.Now(), Thresholds: a.cfg.EvictionThresholds, Measures: measures, LastMet: r.lastMet, ReclaimedAt: r.reclaimedAt,
	}
	if w := a.worker(r.evicting); w != nil && !w.released() {
		v.Evicting = true
	}
	if met := lifecycle.Met(v.Thresholds, measures); len(met) > 0 && !v.Evicting {
		v.Pods = a.podUsages(ctx, met[0].Signal)
	}
	plan := lifecycle.Relieve(v)
	r.lastMet = plan.LastMet
	a.setPressure(plan)
	if plan.Reclaim {
		r.reclaimedAt = v.Now
		if n, err := a.reclaimImages(ctx, true); err != nil {
			a.log.Error("free disk", "err", err)
		} else {
			a.log.Info("freed disk of unused images", "images", n)
		}
	}
	if w := a.worker(plan.Evict); w != nil {
		r.evicting = plan.Evict
		a.log.Warn("evict pod", "pod", keyOf(w.pod()), "why", plan.Message)
		w.evict(plan.Message)
	}
	return nil
}

// setPressure makes the node's conditions follow, and tells of thresholds.
func (a *Agent) setPressure(plan lifecycle.PressurePlan) {
	told := map[lifecycle.Signal]bool{}
	for _, t := range plan.Met {
		told[t.Signal] = true
		if !a.relief.told[t.Signal] {
			a.nodeEvent(corev1.EventTypeWarning, "EvictionThresholdMet", "Attempting to reclaim "+string(t.Signal))
		}
	}
	a.relief.told = told
	a.node.mu.Lock()
	changed := a.node.pressure != plan.Pressure
	a.node.pressure = plan.Pressure
	a.node.mu.Unlock()
	if changed {
		a.nodeObject.Nudge()
	}
}

// nodeEvent tells users something about the node.
func (a *Agent) nodeEvent(kind, reason, text string) {
	a.recorder.Event(&corev1.ObjectReference{Kind: "Node", Name: a.cfg.NodeName, UID: types.UID(a.cfg.NodeName)}, kind, reason, text)
}

// evict ends a pod for the good of the node.
func (w *worker) evict(message string) {
	w.mu.Lock()
	first := w.shutdown == nil
	if first {
		w.shutdown, w.shutdownGrace = &lifecycle.Rejection{Reason: "Evicted", Message: message}, ptr.To(int64(lifecycle.EvictionGraceSeconds))
	}
	w.mu.Unlock()
	if first {
		w.agent.event(w.pod(), "", corev1.EventTypeWarning, "Evicted", message)
		w.nudge()
	}
}

// released tells whether nothing of the pod is on the node any more.
func (w *worker) released() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.sandbox.Released
}

// lookAtMachine measures every signal.
func (a *Agent) lookAtMachine() (map[lifecycle.Signal]lifecycle.Measure, error) {
	f, err := nodestatus.Probe(a.cfg.DataDir, a.cfg.ImageDir)
	if err != nil {
		return nil, err
	}
	disk := func(u images.Usage) (bytes, inodes lifecycle.Measure) {
		return lifecycle.Measure{Available: int64(u.AvailableBytes), Capacity: int64(u.CapacityBytes)}, lifecycle.Measure{Available: int64(u.InodesFree), Capacity: int64(u.Inodes)}
	}
	out := map[lifecycle.Signal]lifecycle.Measure{
		lifecycle.MemoryAvailable: {Available: f.AvailableBytes, Capacity: f.MemoryBytes},
		lifecycle.PIDAvailable:    {Available: f.MaxPids - f.Pids, Capacity: f.MaxPids},
	}
	out[lifecycle.NodeFSAvailable], out[lifecycle.NodeFSInodesFree] = disk(f.Disk)
	out[lifecycle.ImageFSAvailable], out[lifecycle.ImageFSInodesFree] = disk(f.ImageDisk)
	return out, nil
}

// podUsages measures the pods by what a signal is about.
func (a *Agent) podUsages(ctx context.Context, s lifecycle.Signal) []lifecycle.PodUsage {
	var out []lifecycle.PodUsage
	for _, w := range a.all() {
		w.mu.Lock()
		pod := *w.podLocked()
		pod.Status = *w.rec.Status.DeepCopy()
		ids := map[string]string{}
		for name, c := range w.rec.Containers {
			ids[name] = c.ID
		}
		u := lifecycle.PodUsage{Pod: &pod, Static: w.rec.Static, ContainerMemory: map[string]int64{}}
		w.mu.Unlock()
		switch s {
		case lifecycle.MemoryAvailable:
			u.MemoryBytes = a.workingSet(w.cgroupPath(""))
			for name, id := range ids {
				u.ContainerMemory[name] = a.workingSet(w.cgroupPath(id))
			}
		case lifecycle.PIDAvailable:
			u.Processes = a.processes(w.cgroupPath(""))
		default:
			u.DiskBytes = w.diskBytes(ctx, ids)
		}
		out = append(out, u)
	}
	return out
}

func (a *Agent) workingSet(path string) int64 {
	_, mem := a.usage(path, metav1.Now())
	return int64(ptr.Deref(mem.WorkingSetBytes, 0))
}

// processes counts what runs in a cgroup; one that is gone has none.
func (a *Agent) processes(path string) int64 {
	file := filepath.Join(sandbox.CgroupRoot, "pids", path, "pids.current")
	if a.cgroups.Unified() {
		file = filepath.Join(sandbox.CgroupRoot, path, "pids.current")
	}
	n, _ := number(file)
	return int64(n)
}

// diskBytes is what a pod has written to the node: logs, volumes, and its
// containers' own files. It reads every file's size.
func (w *worker) diskBytes(ctx context.Context, ids map[string]string) int64 {
	sum := blocks(w.logDir()) + blocks(filepath.Join(w.dir(), "volumes", "kubernetes.io~empty-dir"))
	for id := range maps.Values(ids) {
		n, err := w.agent.rt.WrittenBytes(ctx, id)
		if err != nil {
			continue // it went while we looked
		}
		sum += n
	}
	return sum
}

// statBlockBytes is the unit in which stat counts blocks.
const statBlockBytes = 512

// blocks adds up what the files below dir take; what goes meanwhile counts nothing.
func blocks(dir string) (sum int64) {
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				sum += st.Blocks * statBlockBytes
			}
		}
		return nil
	})
	if err != nil {
		return 0
	}
	return sum
}
