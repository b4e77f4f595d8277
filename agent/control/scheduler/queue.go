package scheduler

import (
	"container/heap"
	"math/rand/v2"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Limits of the queue, Kubernetes' values.
const (
	// BackoffFirstSeconds and BackoffMaxSeconds bound the wait of a pod that failed, before an event lets it
	// try again.
	BackoffFirstSeconds = 1
	BackoffMaxSeconds   = 10
	// UnschedulableMaxSeconds is when a pod is tried again although nothing happened that could help.
	UnschedulableMaxSeconds = 300
	// flushJitterPercent spreads these tries.
	flushJitterPercent = 10
	// maxMissedEvents bounds what is remembered for a pod in flight.
	maxMissedEvents = 8
)

// Queue holds the pods that wait for a node: those to be tried now, by priority and then age; those in back-off;
// those waiting for an event that could help; and those whose gates are shut. It has no clock of its own. Not safe for
// concurrent use.
type Queue struct {
	entries map[types.UID]*entry
	active  entryHeap
	waiting entryHeap // by when they are due
	counts  [states]int
	rng     *rand.Rand
}

type state uint8

const (
	active state = iota
	backoff
	unschedulable
	gated
	inFlight
	states // how many there are
)

type entry struct {
	pod      *Pod
	state    state
	index    int // in the heap of its state
	since    time.Time
	attempts int
	// until: a waiting pod is not tried before this time.
	until time.Time
	// flush: a waiting pod is tried at this time in any case.
	flush time.Time
	// plugins that refused it.
	plugins []string
	// missed are the events that came while the pod was in flight.
	missed []Event
	// lastMessage and reported: what the user was told last.
	lastMessage string
	reported    time.Time
}

// due is when a waiting pod is tried again.
func (e *entry) due() time.Time {
	if e.state == backoff {
		return e.until
	}
	return e.flush
}

// NewQueue makes an empty queue; rng spreads retries.
func NewQueue(rng *rand.Rand) *Queue {
	q := &Queue{entries: map[types.UID]*entry{}, rng: rng}
	q.active.less = func(a, b *entry) bool {
		if a.pod.Priority != b.pod.Priority {
			return a.pod.Priority > b.pod.Priority
		}
		return a.since.Before(b.since)
	}
	q.waiting.less = func(a, b *entry) bool { return a.due().Before(b.due()) }
	return q
}

// Len is the number of pods known to the queue, in flight included.
func (q *Queue) Len() int { return len(q.entries) }

// Counts are the pods of a [Queue] that are to be tried, in back-off, waiting for an event, and behind gates.
type Counts struct{ Active, Backoff, Unschedulable, Gated int }

// Counts says how many pods wait for what.
func (q *Queue) Counts() Counts {
	return Counts{q.counts[active], q.counts[backoff], q.counts[unschedulable], q.counts[gated]}
}

// turn gives the entry another state. An entry that stays keeps its place by its changed order.
func (q *Queue) turn(e *entry, to state) {
	q.leave(e)
	e.state = to
	q.counts[to]++
	switch to {
	case active:
		heap.Push(&q.active, e)
	case backoff, unschedulable:
		heap.Push(&q.waiting, e)
	}
}

func (q *Queue) leave(e *entry) {
	q.counts[e.state]--
	switch e.state {
	case active:
		heap.Remove(&q.active, e.index)
	case backoff, unschedulable:
		heap.Remove(&q.waiting, e.index)
	}
}

// Set adds a pod, or gives a known one its new object. A changed pod is tried at once: the change may have been
// what it needed.
func (q *Queue) Set(pod *Pod, now time.Time) {
	e, ok := q.entries[pod.UID()]
	shut := len(pod.Object.Spec.SchedulingGates) > 0
	if !ok {
		e = &entry{pod: pod, since: now, state: inFlight}
		q.entries[pod.UID()] = e
		q.counts[inFlight]++
		q.turn(e, openState(shut))
		return
	}
	same := e.pod.Class == pod.Class
	e.pod = pod
	switch {
	case shut && e.state != inFlight || e.state == gated:
		q.turn(e, openState(shut))
	case e.state == active:
		heap.Fix(&q.active, e.index)
	case same: // only its status changed, likely by our own report
	case e.state == inFlight:
		e.missed = append(e.missed[:0], Event{})
	default:
		q.turn(e, active)
	}
}

func openState(shut bool) state {
	if shut {
		return gated
	}
	return active
}

// Remove forgets a pod that was bound by someone or deleted.
func (q *Queue) Remove(uid types.UID) {
	if e, ok := q.entries[uid]; ok {
		q.leave(e)
		delete(q.entries, uid)
	}
}

// Pop takes up to limit pods to be tried now, the most important first.
func (q *Queue) Pop(now time.Time, limit int) []*Pod {
	for q.waiting.Len() > 0 && !now.Before(q.waiting.entries[0].due()) {
		q.turn(q.waiting.entries[0], active)
	}
	var pods []*Pod
	for q.active.Len() > 0 && len(pods) < limit {
		e := q.active.entries[0]
		q.turn(e, inFlight)
		e.missed = e.missed[:0]
		e.attempts++
		pods = append(pods, e.pod)
	}
	return pods
}

// Next is when Pop will have a pod again; false when only an event can bring one.
func (q *Queue) Next() (at time.Time, ok bool) {
	if q.active.Len() > 0 {
		return time.Time{}, true
	}
	if q.waiting.Len() > 0 {
		return q.waiting.entries[0].due(), true
	}
	return time.Time{}, false
}

// Refused puts back a pod that no node took. It reports whether the user should be told: the message is new, or
// was told longer ago than reportEvery.
func (q *Queue) Refused(uid types.UID, refusal *Refusal, now time.Time, reportEvery time.Duration) bool {
	e := q.back(uid, refusal.Plugins, unschedulable, now)
	if e == nil {
		return false
	}
	for i := range e.missed {
		if e.missed[i].helps(e.pod, e.plugins) {
			q.turn(e, backoff)
			break
		}
	}
	if e.lastMessage == refusal.Message && now.Sub(e.reported) < reportEvery {
		return false
	}
	e.lastMessage, e.reported = refusal.Message, now
	return true
}

// Failed puts back a pod whose binding failed; it is tried again after its back-off.
func (q *Queue) Failed(uid types.UID, now time.Time) { q.back(uid, nil, backoff, now) }

// Retry lets a pod that waits for an event try again after its back-off.
func (q *Queue) Retry(uid types.UID) {
	if e, ok := q.entries[uid]; ok && e.state == unschedulable {
		q.turn(e, backoff)
	}
}

// Attempts is how often the pod was tried, and since when it waits.
func (q *Queue) Attempts(uid types.UID) (attempts int, since time.Time) {
	if e, ok := q.entries[uid]; ok {
		return e.attempts, e.since
	}
	return 0, time.Time{}
}

func (q *Queue) back(uid types.UID, plugins []string, to state, now time.Time) *entry {
	e, ok := q.entries[uid]
	if !ok || e.state != inFlight {
		return nil
	}
	if len(e.pod.Object.Spec.SchedulingGates) > 0 {
		to = gated
	}
	wait := time.Second * BackoffFirstSeconds << min(e.attempts-1, 10)
	e.plugins = plugins
	e.until = now.Add(min(wait, BackoffMaxSeconds*time.Second))
	jitter := time.Duration(q.rng.Int64N(int64(UnschedulableMaxSeconds*time.Second) * flushJitterPercent / 100))
	e.flush = now.Add(UnschedulableMaxSeconds*time.Second + jitter)
	q.turn(e, to)
	return e
}

// Move lets the waiting pods that the event may help try again after their back-off.
func (q *Queue) Move(event Event, now time.Time) {
	if q.counts[inFlight]+q.counts[unschedulable] == 0 {
		return
	}
	for _, e := range q.entries {
		switch e.state {
		case inFlight:
			if len(e.missed) < maxMissedEvents {
				e.missed = append(e.missed, event)
			} else {
				e.missed[0] = Event{} // too many to remember: assume that one helps
			}
		case unschedulable:
			if !event.helps(e.pod, e.plugins) {
				continue
			}
			if now.Before(e.until) {
				q.turn(e, backoff)
			} else {
				q.turn(e, active)
			}
		}
	}
}

// entryHeap is a heap of entries in some order.
type entryHeap struct {
	entries []*entry
	less    func(a, b *entry) bool
}

// Len implements [heap.Interface].
func (h *entryHeap) Len() int { return len(h.entries) }

// Less implements [heap.Interface].
func (h *entryHeap) Less(i, j int) bool { return h.less(h.entries[i], h.entries[j]) }

// Swap implements [heap.Interface].
func (h *entryHeap) Swap(i, j int) {
	h.entries[i], h.entries[j] = h.entries[j], h.entries[i]
	h.entries[i].index, h.entries[j].index = i, j
}

// Push implements [heap.Interface].
func (h *entryHeap) Push(x any) {
	e := x.(*entry)
	e.index = len(h.entries)
	h.entries = append(h.entries, e)
}

// Pop implements [heap.Interface].
func (h *entryHeap) Pop() any {
	last := len(h.entries) - 1
	e := h.entries[last]
	h.entries[last] = nil
	h.entries = h.entries[:last]
	return e
}
