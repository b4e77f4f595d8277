package pods

import (
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/pods/sandbox"
)

const (
	// firstHostID is where the host's side of user namespaces begins: above the
	// accounts, and above the ranges that distributions give to their first users.
	firstHostID = 1 << 20
	// idsPerPod is how many users and groups a pod has to itself.
	idsPerPod = 1 << 16
)

// idRanges hands out ranges of user and group IDs; no two pods share one.
type idRanges struct {
	mu    sync.Mutex
	limit int                  // how many there are
	taken map[uint32]types.UID // by first ID, guarded by mu
}

// claim gives a pod the range it has, the one it asks for, or a free one.
func (r *idRanges) claim(uid types.UID, had uint32) (uint32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.taken == nil {
		r.taken = map[uint32]types.UID{}
	}
	if had != 0 && (r.taken[had] == "" || r.taken[had] == uid) {
		r.taken[had] = uid
		return had, nil
	}
	for i := range r.limit {
		first := uint32(firstHostID + i*idsPerPod)
		if owner := r.taken[first]; owner == "" || owner == uid {
			r.taken[first] = uid
			return first, nil
		}
	}
	return 0, fmt.Errorf("all %d ranges of user IDs are in use", r.limit)
}

func (r *idRanges) release(first uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.taken, first)
}

// ownUsers tells whether the pod's root is not the host's.
func ownUsers(pod *corev1.Pod) bool { return pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers }

// claimIDs gives a pod with a user namespace its IDs; they are kept before
// anything is made with them.
func (w *worker) claimIDs(pod *corev1.Pod) error {
	if !ownUsers(pod) {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	first, err := w.agent.ids.claim(w.uid, w.rec.FirstID)
	if err != nil {
		return err
	}
	if first != w.rec.FirstID {
		w.rec.FirstID = first
		if err := w.agent.savePod(w); err != nil {
			return fmt.Errorf("keep user IDs: %w", err)
		}
	}
	return nil
}

// sandboxOptions describe what the pod's containers share.
func (w *worker) sandboxOptions(pod *corev1.Pod, dir, hostname string, firstID uint32) sandbox.Options {
	o := sandbox.Options{Dir: dir, Hostname: hostname, HostNetwork: pod.Spec.HostNetwork, HostIPC: pod.Spec.HostIPC}
	if ownUsers(pod) {
		o.Users = &sandbox.Users{FirstID: firstID, Count: idsPerPod, Helper: []string{w.agent.cfg.ShimPath, "pause"}}
	}
	return o
}
