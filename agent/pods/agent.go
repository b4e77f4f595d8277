package pods

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/podvine/podvine/agent/phase"
	"github.com/podvine/podvine/agent/pods/images"
	"github.com/podvine/podvine/agent/pods/lifecycle"
	"github.com/podvine/podvine/agent/pods/nodeclient"
	"github.com/podvine/podvine/agent/pods/objects"
	"github.com/podvine/podvine/agent/pods/ocispec"
	"github.com/podvine/podvine/agent/pods/runtime"
	"github.com/podvine/podvine/agent/pods/sandbox"
	"github.com/podvine/podvine/agent/pods/vault"
)

// Agent runs this node's pods. Make one with New, then call Run once.
type Agent struct {
	cfg      Config
	log      *slog.Logger
	rt       *runtime.Runtime
	images   *images.Store
	vault    *vault.Vault
	objects  *objects.Cache
	cgroups  sandbox.Cgroups
	host     ocispec.Host
	recorder record.EventRecorder
	stopRec  func()
	services cache.Store
	svcCtl   cache.Controller
	node     nodeState
	// nodeObject keeps our Node object.
	nodeObject *nodeclient.Node
	metrics    agentMetrics
	ids        idRanges
	ledger     ledger
	static     statics
	relief     relief

	mu sync.Mutex
	// All below is guarded by mu.
	workers map[types.UID]*worker
	orphans map[types.UID][]runtime.Found // containers without a record, by pod
	synced  bool
	ctx     context.Context // of Run; nil before. Workers of new pods begin in it.
	group   sync.WaitGroup
}

// New opens the node's runtime and finds the pods of an earlier agent. Nothing
// runs until Run.
func New(cfg Config) (*Agent, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	a := &Agent{cfg: cfg, log: cfg.Log, workers: map[types.UID]*worker{}}
	a.nodeObject = nodeclient.New(nodeclient.Config{Client: cfg.Client, Name: cfg.NodeName, Labels: a.ownLabels(), Annotations: cfg.NodeAnnotations,
		Taints: cfg.NodeTaints, Status: a.nodeStatus, Log: cfg.Log})
	a.metrics = newAgentMetrics(a)
	a.ids.limit, a.relief.look = cfg.MaxPods, a.lookAtMachine
	a.static.trigger, a.static.mirrors = make(chan struct{}, 1), map[string]*corev1.Pod{}
	var err error
	if a.cgroups, err = sandbox.DetectCgroups(); err != nil {
		return nil, err
	}
	seccomp := filepath.Join(cfg.KubeletDir, "seccomp")
	if a.host, err = ocispec.DetectHost(seccomp, !a.cgroups.Unified() && a.cgroups.SwapAccounted()); err != nil {
		return nil, err
	}
	a.host.HugeTLB = a.cgroups.LimitsHugePages()
	if a.vault, err = vault.Open(filepath.Join(cfg.DataDir, "vault")); err != nil {
		return nil, err
	}
	a.rt, err = runtime.Open(context.Background(), runtime.Config{
		Root: cfg.ImageDir, State: filepath.Join(cfg.StateDir, "containerd"), SocketDir: cfg.SocketDir,
		ShimPath: cfg.ShimPath, RuncPath: cfg.RuncPath, Log: cfg.Log, Observe: a.metrics.observe,
	})
	if err != nil {
		return nil, err
	}
	a.images = images.New(a.rt, images.Config{
		NodeName: cfg.NodeName, Stall: cfg.PullStallTimeout, Peers: cfg.ImagePeers, Catalog: cfg.ImportedImages, Log: cfg.Log,
	})
	a.objects = objects.New(cfg.Client, a.vault, cfg.Log, a.objectsChanged)
	a.startRecorder()
	a.watchServices()
	return a, nil
}

// Images is the node's image store.
func (a *Agent) Images() *images.Store { return a.images }

// RuntimeCalls counts the uses of containerd; it stands still while nothing
// happens.
func (a *Agent) RuntimeCalls() uint64 { return a.rt.Calls() }

// Run runs pods until ctx ends, then returns with every container still
// running.
func (a *Agent) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Subscribe first: what ends while the rest is read is not missed.
	ended := a.rt.Watch(ctx)
	if err := a.adopt(ctx); err != nil {
		return errors.Join(err, a.close())
	}
	if a.cfg.ManifestDir != "" {
		// Before the API is heard: what only files know must not look forgotten.
		if err := a.syncStatic(ctx); err != nil {
			a.log.Error("read static pods", "err", err)
		}
	}
	var wg sync.WaitGroup
	if a.cfg.ManifestDir != "" {
		wg.Go(func() { a.keepStatic(ctx) })
	}
	wg.Go(func() { ended(a.containerEnded) })
	wg.Go(func() { a.svcCtl.Run(ctx.Done()) })
	wg.Go(func() { a.watchPods(ctx) })
	wg.Go(func() { a.askForKept(ctx) })
	wg.Go(func() { a.collectImages(ctx) })
	wg.Go(func() { a.limitVolumes(ctx) })
	wg.Go(func() { a.relieve(ctx) })
	if !a.cfg.SkipNode {
		wg.Go(func() { a.keepNode(ctx) })
	}
	var apiErr error
	if a.cfg.APIListen != "" {
		apiErr = a.serveAPI(ctx)
	} else {
		<-ctx.Done()
	}
	cancel()
	wg.Wait()
	a.join()
	return errors.Join(apiErr, a.close())
}

// join waits for the workers, a bounded time: an effect that hangs must not
// keep the agent from ending.
func (a *Agent) join() {
	done := make(chan struct{})
	go func() {
		a.group.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(shutdownWait):
		a.log.Warn("end with effects still under way")
	}
}

func (a *Agent) close() error {
	a.objects.Close()
	a.stopRec()
	return a.rt.Close()
}

// adopt takes over what an earlier agent left.
func (a *Agent) adopt(ctx context.Context) error {
	found, err := a.rt.List(ctx)
	if err != nil {
		return err
	}
	byID, byPod := map[string]runtime.Found{}, map[string][]runtime.Found{}
	for _, f := range found {
		byID[f.ID] = f
		byPod[f.Labels[labelPodUID]] = append(byPod[f.Labels[labelPodUID]], f)
	}
	uids, err := a.vault.Keys(podKind)
	if err != nil {
		a.log.Error("read kept pods", "err", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ctx = ctx
	for _, uid := range uids {
		var rec podRecord
		if err := a.vault.Get(podKind, uid, &rec); err != nil {
			a.log.Error("read kept pod", "uid", uid, "err", err)
			continue
		}
		stale := absorb(&rec, byPod[uid])
		w := newWorker(a, rec)
		w.adopt(byID)
		w.unheard = a.cfg.Confirm != nil && !rec.Static && !w.runsLocked() // nobody else has the worker yet
		for _, id := range stale {
			delete(byID, id)
			w.effect(func() { w.removeContainer(id) })
		}
		a.startLocked(w)
	}
	a.keepOrphansLocked(byID)
	return nil
}

// startLocked begins a worker's loop.
func (a *Agent) startLocked(w *worker) {
	a.workers[w.uid] = w
	a.group.Go(func() { w.loop(a.ctx) })
}

func (a *Agent) worker(uid types.UID) *worker {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.workers[uid]
}

func (a *Agent) all() []*worker {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]*worker, 0, len(a.workers))
	for _, w := range a.workers {
		out = append(out, w)
	}
	return out
}

// find returns the worker of a pod by name; uid may be "".
func (a *Agent) find(namespace, name string, uid types.UID) *worker {
	for _, w := range a.all() {
		p := w.pod()
		if p.Namespace == namespace && p.Name == name && (uid == "" || uid == p.UID) {
			return w
		}
	}
	return nil
}

func (a *Agent) containerEnded(e runtime.Event) {
	for _, w := range a.all() {
		w.exit(e.ContainerID, e.Exit)
	}
}

func (a *Agent) objectsChanged(users []types.UID) {
	for _, uid := range users {
		w := a.worker(uid)
		if w == nil {
			continue
		}
		w.mu.Lock()
		w.refreshAt = time.Now()
		for name, c := range w.rec.Containers {
			if c.Problem != nil && c.Problem.Reason == configReason {
				c.RetryAt = time.Time{}
				w.rec.Containers[name] = c
			}
		}
		if !w.sandbox.Ready {
			w.sandbox.RetryAt, w.refreshAt = time.Time{}, time.Time{}
		}
		w.mu.Unlock()
		w.nudge()
	}
}

// watchPods follows the pods bound to this node.
func (a *Agent) watchPods(ctx context.Context) {
	lw := a.cfg.Pods
	if lw == nil {
		lw = nodeclient.Pods(a.cfg.Client, a.cfg.NodeName)
	}
	store, ctl := cache.NewInformerWithOptions(cache.InformerOptions{ListerWatcher: lw, ObjectType: &corev1.Pod{}, Handler: cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { a.podChanged(o) },
		UpdateFunc: func(old, now any) { a.podReplaced(old, now) },
		DeleteFunc: func(o any) { a.podGone(o) },
	}})
	go func() {
		if cache.WaitForCacheSync(ctx.Done(), ctl.HasSynced) {
			a.endUnknown(store)
		}
	}()
	ctl.Run(ctx.Done())
}

// endUnknown ends the pods that the API does not know any more.
func (a *Agent) endUnknown(store cache.Store) {
	// The workers first: one that begins while we look belongs to a pod that the store may have got meanwhile.
	workers := a.all()
	known := map[types.UID]bool{}
	for _, o := range store.List() {
		if p, ok := o.(*corev1.Pod); ok {
			known[p.UID] = true
		}
	}
	a.mu.Lock()
	a.synced = true
	a.mu.Unlock()
	a.static.nudge()
	for _, w := range workers {
		if !known[w.uid] && !w.static() {
			w.deleted()
		}
	}
	a.endOrphans(known)
}

// podReplaced takes a newer version of a pod. A pod that went and whose namesake came while nobody watched is shown as a
// change of the one into the other.
func (a *Agent) podReplaced(old, now any) {
	was, wasOK := old.(*corev1.Pod)
	is, isOK := now.(*corev1.Pod)
	if wasOK && isOK && was.UID != is.UID {
		a.podGone(was)
	}
	a.podChanged(now)
}

func (a *Agent) podChanged(o any) {
	pod, ok := o.(*corev1.Pod)
	if !ok || pod.Spec.NodeName != a.cfg.NodeName {
		return
	}
	pod = pod.DeepCopy()
	pod.ManagedFields = nil
	if isMirror(pod) {
		a.mirrorChanged(pod, false)
		return
	}
	if w := a.worker(pod.UID); w != nil {
		w.setPod(pod)
		return
	}
	if pod.DeletionTimestamp == nil && phase.Ended(pod.Status.Phase) {
		return // it ended before this agent came, and nothing of it is here
	}
	if a.reclaim(pod, false) {
		return
	}
	rec := podRecord{Pod: pod, StartTime: time.Now(), Rejected: a.admit(pod)}
	if why := rec.Rejected; why != nil {
		a.event(pod, "", corev1.EventTypeWarning, why.Reason, strings.TrimPrefix(why.Message, lifecycle.RejectedPrefix))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ctx.Err() == nil {
		a.startLocked(newWorker(a, rec))
	}
}

func (a *Agent) podGone(o any) {
	if d, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = d.Obj
	}
	if pod, ok := o.(*corev1.Pod); ok {
		if isMirror(pod) {
			a.mirrorChanged(pod, true)
			return
		}
		if w := a.worker(pod.UID); w != nil {
			w.deleted()
		}
	}
}

// deleted ends a pod that the API has forgotten.
func (w *worker) deleted() {
	w.mu.Lock()
	if w.rec.Pod.DeletionTimestamp == nil {
		pod := w.rec.Pod.DeepCopy()
		now := metav1.Now()
		pod.DeletionTimestamp = &now
		w.rec.Pod = pod
	}
	// There is nobody to report to; what is decided counts as reported.
	w.rec.Reported = w.rec.Status.DeepCopy()
	w.mu.Unlock()
	w.nudge()
	// The scheduler counts on its room from now on.
	if w.agent.ledger.drop(w.uid) {
		w.agent.retryResizes()
	}
}

func (a *Agent) savePod(w *worker) error {
	raw, err := json.Marshal(w.rec)
	if err != nil {
		return fmt.Errorf("encode pod record: %w", err)
	}
	if bytes.Equal(raw, w.saved) {
		return nil
	}
	if err := a.vault.Put(podKind, string(w.uid), json.RawMessage(raw)); err != nil {
		return err
	}
	w.saved = raw
	return nil
}

// forgetPod removes a finished pod's last traces.
func (a *Agent) forgetPod(w *worker, pod *corev1.Pod) {
	if err := errors.Join(a.vault.Delete(podKind, string(w.uid)), a.objects.ForgetTokens(w.uid), os.RemoveAll(a.podLogDir(pod))); err != nil {
		a.log.Error("forget pod", "pod", pod.Namespace+"/"+pod.Name, "err", err)
	}
	links, err := filepath.Glob(filepath.Join(a.cfg.ContainerLogDir, pod.Name+"_"+pod.Namespace+"_*.log"))
	if err != nil {
		a.log.Error("list log links", "err", err)
	}
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && strings.HasPrefix(to, a.podLogDir(pod)) {
			if err := os.Remove(l); err != nil {
				a.log.Warn("remove log link", "err", err)
			}
		}
	}
	a.mu.Lock()
	delete(a.workers, w.uid)
	a.mu.Unlock()
	a.metrics.forget(w.uid)
	close(w.gone)
	a.static.nudge()
	if a.ledger.drop(w.uid) {
		a.retryResizes()
	}
}

// later calls f after d, unless the agent ends first.
func (a *Agent) later(d time.Duration, f func()) {
	time.AfterFunc(d, func() {
		if a.ctx.Err() == nil {
			f()
		}
	})
}

// oomKilled asks the kernel whether it killed something in a container's cgroup.
func (a *Agent) oomKilled(path string) bool {
	file := filepath.Join(sandbox.CgroupRoot, "memory", path, "memory.oom_control")
	if a.cgroups.Unified() {
		file = filepath.Join(sandbox.CgroupRoot, path, "memory.events")
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(raw)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "oom_kill" {
			return f[1] != "0"
		}
	}
	return false
}

// admit refuses pods that this node must not or cannot run.
func (a *Agent) admit(pod *corev1.Pod) *lifecycle.Rejection {
	a.node.mu.Lock()
	pressure := a.node.pressure
	a.node.mu.Unlock()
	if why := lifecycle.AdmitUnder(pressure, pod); why != nil {
		return why
	}
	n := 0
	for _, w := range a.all() {
		if !w.ended() {
			n++
		}
	}
	if n >= a.cfg.MaxPods {
		return &lifecycle.Rejection{Reason: "OutOfpods", Message: fmt.Sprintf(lifecycle.RejectedPrefix+"Node didn't have enough resource: pods, requested: 1, used: %d, capacity: %d", n, a.cfg.MaxPods)}
	}
	if why := lifecycle.AdmitSize(pod, a.ledger.room(pod.UID, a.allocatable())); why != nil {
		return why
	}
	for k, v := range pod.Spec.NodeSelector {
		if have, ok := a.node.label(k); ok && have != v {
			return &lifecycle.Rejection{Reason: "NodeAffinity", Message: lifecycle.RejectedPrefix + "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"}
		}
	}
	return nil
}
