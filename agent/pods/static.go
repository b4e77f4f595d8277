package pods

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/fsnotify/fsnotify"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/pods/lifecycle"
	"github.com/podvine/podvine/agent/pods/nodeclient"
)

const (
	// manifestsPeriod is how often the manifests are read although no change of
	// theirs was seen; it reads files only.
	manifestsPeriod = 20 * time.Second
	// mirrorRetryDelay separates tries to show a static pod to the API.
	mirrorRetryDelay = 2 * time.Second
)

// statics are the pods that come from files, and their pictures in the API.
type statics struct {
	trigger chan struct{} // capacity 1

	mu      sync.Mutex
	mirrors map[string]*corev1.Pod // by namespace/name, guarded by mu
	told    map[string]string      // errors of files that were logged, guarded by mu
}

func (s *statics) nudge() {
	select {
	case s.trigger <- struct{}{}:
	default:
	}
}

func (s *statics) all() []*corev1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.mirrors))
}

// mirror is the picture of a pod in the API; nil when it has none.
func (s *statics) mirror(pod *corev1.Pod) *corev1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.mirrors[keyOf(pod)]
	if m == nil || m.Annotations[corev1.MirrorPodAnnotationKey] != string(pod.UID) {
		return nil
	}
	return m
}

// mirrorChanged takes note of a picture; gone ones are nil'd by their name.
func (a *Agent) mirrorChanged(m *corev1.Pod, gone bool) {
	a.static.mu.Lock()
	had := a.static.mirrors[keyOf(m)]
	switch {
	case !gone:
		a.static.mirrors[keyOf(m)] = m
	case had != nil && had.UID == m.UID:
		delete(a.static.mirrors, keyOf(m))
	}
	a.static.mu.Unlock()
	if gone || had == nil || had.UID != m.UID || m.DeletionTimestamp != nil {
		a.static.nudge()
	}
	if w := a.worker(types.UID(m.Annotations[corev1.MirrorPodAnnotationKey])); w != nil {
		w.nudge()
	}
}

// keepStatic runs the pods of the manifests folder until ctx ends.
func (a *Agent) keepStatic(ctx context.Context) {
	events, errs, stop := a.watchManifests()
	defer stop()
	tick := time.NewTicker(manifestsPeriod)
	defer tick.Stop()
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-retry.C:
		case <-events:
		case err := <-errs:
			a.log.Warn("watch manifests folder", "err", err)
		case <-a.static.trigger:
		}
		if err := a.syncStatic(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("keep static pods", "err", err)
			retry.Reset(mirrorRetryDelay)
		}
	}
}

// watchManifests follows the folder; without a watch, the slow pass remains.
func (a *Agent) watchManifests() (events <-chan fsnotify.Event, errs <-chan error, stop func()) {
	w, err := fsnotify.NewWatcher()
	if err == nil {
		if err = os.MkdirAll(a.cfg.ManifestDir, 0o755); err == nil {
			err = w.Add(a.cfg.ManifestDir)
		}
	}
	if err != nil {
		a.log.Warn("watch manifests folder", "err", err)
	}
	if w == nil {
		return nil, nil, func() {}
	}
	return w.Events, w.Errors, func() {
		if err := w.Close(); err != nil {
			a.log.Warn("end watch of manifests folder", "err", err)
		}
	}
}

// syncStatic brings static pods and their pictures to what the files say.
func (a *Agent) syncStatic(ctx context.Context) error {
	wanted, failed, err := readManifests(a.cfg.ManifestDir, a.cfg.NodeName, a.cfg.CompletePod)
	if err != nil {
		return err
	}
	a.tellManifests(failed)
	var running []*worker
	for _, w := range a.all() {
		if w.static() {
			running = append(running, w)
		}
	}
	a.mu.Lock()
	synced := a.synced
	a.mu.Unlock()
	plan := lifecycle.DecideStatic(staticView(wanted, failed, running, a.static.all(), synced))
	for _, hash := range plan.End {
		if w := a.worker(types.UID(hash)); w != nil {
			a.log.Info("end static pod", "pod", keyOf(w.pod()))
			w.deleted()
		}
	}
	for _, pod := range byHash(wanted, plan.Start) {
		a.log.Info("start static pod", "pod", keyOf(pod), "file", pod.Annotations[annotationFile])
		a.startStatic(pod)
	}
	var current []*corev1.Pod
	for _, w := range running {
		current = append(current, w.pod())
	}
	return a.showStatic(ctx, plan, byHash(current, plan.Mirror))
}

// tellManifests logs what is wrong with files, once.
func (a *Agent) tellManifests(failed map[string]error) {
	a.static.mu.Lock()
	defer a.static.mu.Unlock()
	for name, err := range failed {
		if a.static.told[name] != err.Error() {
			a.log.Error("read static pod", "file", name, "err", err)
		}
	}
	a.static.told = map[string]string{}
	for name, err := range failed {
		a.static.told[name] = err.Error()
	}
}

func (a *Agent) startStatic(pod *corev1.Pod) {
	if a.reclaim(pod, true) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ctx.Err() == nil {
		a.startLocked(newWorker(a, podRecord{Pod: pod, StartTime: time.Now(), Static: true}))
	}
	// Its picture comes next.
	a.static.nudge()
}

// showStatic makes and removes pictures.
func (a *Agent) showStatic(ctx context.Context, plan lifecycle.StaticPlan, show []*corev1.Pod) error {
	for _, m := range a.static.all() {
		if !slices.Contains(plan.Unmirror, keyOf(m)) {
			continue
		}
		dctx, cancel := context.WithTimeout(ctx, nodeclient.CallTimeout)
		err := a.cfg.Client.CoreV1().Pods(m.Namespace).Delete(dctx, m.Name, metav1.DeleteOptions{
			GracePeriodSeconds: ptr.To(int64(0)), Preconditions: &metav1.Preconditions{UID: &m.UID},
		})
		cancel()
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return fmt.Errorf("remove picture of static pod %s: %w", keyOf(m), err)
		}
	}
	if len(show) == 0 {
		return nil
	}
	uid, ok := a.nodeUID()
	if !ok {
		return nil // the Node's registration asks for another pass
	}
	for _, pod := range show {
		cctx, cancel := context.WithTimeout(ctx, nodeclient.CallTimeout)
		_, err := a.cfg.Client.CoreV1().Pods(pod.Namespace).Create(cctx, picture(pod, uid), metav1.CreateOptions{})
		cancel()
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("show static pod %s: %w", keyOf(pod), err)
		}
	}
	return nil
}

// static tells whether the pod comes from a file.
func (w *worker) static() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rec.Static
}

// audienceLocked is the API's object for the pod, whose status is kept: nil
// while there is none.
func (w *worker) audienceLocked() *corev1.Pod {
	if !w.rec.Static {
		return w.rec.Pod
	}
	m := w.agent.static.mirror(w.rec.Pod)
	if m != nil && m.UID != w.mirror {
		w.mirror, w.rec.Reported = m.UID, nil
	}
	return m
}
