package pods

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/pods/lifecycle"
	"github.com/podvine/podvine/agent/pods/runtime"
)

// keepOrphansLocked keeps containers whose pod's record cannot be read: nothing
// says that they are to end. Their pod takes them back when the API tells of
// it; until then they run on.
func (a *Agent) keepOrphansLocked(byID map[string]runtime.Found) {
	a.orphans = map[types.UID][]runtime.Found{}
	for id, f := range byID {
		uid := types.UID(f.Labels[labelPodUID])
		a.log.Warn("keep container whose pod has no readable record", "container", id, "pod", uid, "name", f.Labels[labelContainer])
		a.orphans[uid] = append(a.orphans[uid], f)
	}
}

// reclaim gives a pod back the containers whose record was lost; it reports
// whether there were any.
func (a *Agent) reclaim(pod *corev1.Pod, static bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	found := a.orphans[pod.UID]
	if len(found) == 0 || a.ctx.Err() != nil {
		return false
	}
	delete(a.orphans, pod.UID)
	rec := rebuildRecord(pod, found)
	rec.Static = static
	w := newWorker(a, rec)
	byID := map[string]runtime.Found{}
	for _, f := range found {
		byID[f.ID] = f
	}
	w.adopt(byID)
	a.log.Info("rebuilt the record of a pod from its containers", "pod", pod.Namespace+"/"+pod.Name, "containers", len(found))
	a.startLocked(w)
	for id := range byID {
		// An attempt before the last, or one that the pod does not name any more.
		w.effect(func() { w.removeContainer(id) })
	}
	return true
}

// rebuildRecord makes a pod's record from what its containers' labels and the
// API say. It is pure.
func rebuildRecord(pod *corev1.Pod, found []runtime.Found) podRecord {
	rec := podRecord{Pod: pod, Prepared: true, Status: *pod.Status.DeepCopy(), Containers: map[string]lifecycle.Container{}, StartTime: pod.CreationTimestamp.Time}
	if pod.Status.StartTime != nil {
		rec.StartTime = pod.Status.StartTime.Time
	}
	if !pod.Spec.HostNetwork {
		for _, ip := range pod.Status.PodIPs {
			rec.IPs = append(rec.IPs, ip.IP)
		}
	}
	for _, f := range found {
		name := f.Labels[labelContainer]
		if name == "" {
			rec.InitID, rec.InitPid = f.ID, f.Pid
			continue
		}
		n, err := strconv.Atoi(f.Labels[labelAttempt])
		spec := findContainer(pod, name)
		if err != nil || spec == nil || rec.Containers[name].Attempts > n {
			continue
		}
		rec.Containers[name] = rebuildContainer(pod, spec, f, n)
	}
	return rec
}

// absorb takes containers into a record that is older than they are: the agent
// was killed before it wrote them down. It returns the ones to remove, those that
// never ran among them: nothing is lost by making them again. It is pure.
func absorb(rec *podRecord, found []runtime.Found) (stale []string) {
	if rec.Containers == nil {
		rec.Containers = map[string]lifecycle.Container{}
	}
	for _, f := range found {
		name := f.Labels[labelContainer]
		c := rec.Containers[name]
		if f.ID == c.ID || f.ID == rec.InitID {
			continue
		}
		n, err := strconv.Atoi(f.Labels[labelAttempt])
		spec := findContainer(rec.Pod, name)
		switch {
		case name == "" && rec.InitID == "" && f.State == runtime.StateRunning:
			rec.InitID, rec.InitPid = f.ID, f.Pid
		case spec == nil || err != nil || n < c.Attempts || f.State == runtime.StateCreated || f.State == runtime.StateUnknown:
			stale = append(stale, f.ID)
		default:
			fresh := rebuildContainer(rec.Pod, spec, f, n)
			fresh.Image, fresh.ImageID, fresh.Delay = spec.Image, "", c.Delay
			if c.Attempts > 0 {
				fresh.Last, fresh.Restarts = c.Terminated(), c.Restarts+1
				stale = append(stale, c.ID)
			}
			rec.Containers[name] = fresh
		}
	}
	return stale
}

func rebuildContainer(pod *corev1.Pod, spec *corev1.Container, f runtime.Found, attempt int) lifecycle.Container {
	c := lifecycle.Container{
		Name: spec.Name, ID: f.ID, Phase: lifecycle.Running, Attempts: attempt + 1, Restarts: int32(attempt), SpecImage: spec.Image, Image: spec.Image,
		StartedAt: f.CreatedAt,
	}
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses} {
		for _, s := range list {
			if s.Name != spec.Name {
				continue
			}
			c.Restarts = max(c.Restarts, s.RestartCount)
			c.Last, c.Image, c.ImageID, c.User = s.LastTerminationState.Terminated, s.Image, s.ImageID, s.User
			if r := s.State.Running; r != nil && s.ContainerID == lifecycle.ContainerIDPrefix+f.ID {
				c.StartedAt, c.Mounts = r.StartedAt.Time, s.VolumeMounts
				c.Started, c.Ready = s.Started != nil && *s.Started, s.Ready
			}
		}
	}
	return c
}

// endOrphans ends the containers of pods that the API does not know.
func (a *Agent) endOrphans(known map[types.UID]bool) {
	a.mu.Lock()
	var stubs []*corev1.Pod
	for uid, found := range a.orphans {
		if !known[uid] {
			stubs = append(stubs, stubPod(uid, found))
		}
	}
	a.mu.Unlock()
	for _, pod := range stubs {
		if a.reclaim(pod, false) {
			a.worker(pod.UID).deleted()
		}
	}
}

// stubPod is what the labels of its containers still say of a pod: enough to
// end it as kindly as any other, and to find what it holds.
func stubPod(uid types.UID, found []runtime.Found) *corev1.Pod {
	now := metav1.Now()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid, DeletionTimestamp: &now}}
	for _, f := range found {
		pod.Namespace, pod.Name = f.Labels[labelPodNamespace], f.Labels[labelPodName]
		pod.Status.QOSClass = corev1.PodQOSClass(f.Labels[labelQOS])
		if name := f.Labels[labelContainer]; name != "" && findContainer(pod, name) == nil {
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name})
		}
	}
	return pod
}
