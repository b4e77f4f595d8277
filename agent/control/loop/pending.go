package loop

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// PendingMaxSeconds is how long an own write may stay unseen in the informer before it is no longer counted.
// Kubernetes waits as long for its expectations.
const PendingMaxSeconds = 300

// Pending remembers a loop's own creations and deletions until its informer shows them, so that a loop that
// reads behind its writes neither creates twice nor deletes a second victim. Events need not be counted: each
// look compares with what the informer shows now. Safe for concurrent use.
type Pending struct {
	mu      sync.Mutex
	owners  map[types.UID]*pendingWrites
	maximum time.Duration
}

type pendingWrites struct {
	created map[types.UID]time.Time
	deleted map[types.UID]time.Time
}

// NewPending makes an empty memory.
func NewPending() *Pending {
	return &Pending{owners: map[types.UID]*pendingWrites{}, maximum: PendingMaxSeconds * time.Second}
}

// Created notes that the owner's dependent was created.
func (p *Pending) Created(owner, dependent types.UID, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ownerLocked(owner).created[dependent] = now
}

// Deleted notes that the owner's dependent was deleted.
func (p *Pending) Deleted(owner, dependent types.UID, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ownerLocked(owner).deleted[dependent] = now
}

func (p *Pending) ownerLocked(owner types.UID) *pendingWrites {
	w := p.owners[owner]
	if w == nil {
		w = &pendingWrites{created: map[types.UID]time.Time{}, deleted: map[types.UID]time.Time{}}
		p.owners[owner] = w
	}
	return w
}

// Seen forgets a dependent's creation: the informer showed it, or showed its end.
func (p *Pending) Seen(owner, dependent types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.owners[owner]; w != nil {
		delete(w.created, dependent)
		p.tidyLocked(owner, w)
	}
}

// Unseen compares with the dependents that the informer shows (UID to "is it still active"). It returns how
// many created dependents the informer does not show yet, and which shown ones are already deleted. Writes older
// than PendingMaxSeconds count no more.
func (p *Pending) Unseen(owner types.UID, shown map[types.UID]bool, now time.Time) (created int, deleted map[types.UID]bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.owners[owner]
	if w == nil {
		return 0, nil
	}
	for uid, at := range w.created {
		if _, ok := shown[uid]; ok || now.Sub(at) > p.maximum {
			delete(w.created, uid)
		}
	}
	for uid, at := range w.deleted {
		if !shown[uid] || now.Sub(at) > p.maximum {
			delete(w.deleted, uid)
			continue
		}
		if deleted == nil {
			deleted = map[types.UID]bool{}
		}
		deleted[uid] = true
	}
	created = len(w.created)
	p.tidyLocked(owner, w)
	return created, deleted
}

// Forget drops everything about an owner that is gone.
func (p *Pending) Forget(owner types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.owners, owner)
}

// Reset drops everything: at the start of a run, what an earlier one did is shown or gone.
func (p *Pending) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.owners)
}

func (p *Pending) tidyLocked(owner types.UID, w *pendingWrites) {
	if len(w.created) == 0 && len(w.deleted) == 0 {
		delete(p.owners, owner)
	}
}
