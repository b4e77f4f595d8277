package scheduler

import (
	"container/heap"
	"math/rand/v2"
	"slices"
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
)

// Queue holds the pods that wait for a node: those to be tried now, by priority and then age; those in back-off;
// and those waiting for an event that could help. It has no clock of its own. Not safe for concurrent use.
type Queue struct {
	entries map[types.UID]*entry
	active  activeHeap
	rng     *rand.Rand
}

type state uint8

const (
	active state = iota
	waiting
	inFlight
)

type entry struct {
	pod      *Pod
	state    state
	index    int // in the heap, when active
	since    time.Time
	attempts int
	// until: a waiting pod is not tried before this time.
	until time.Time
	// flush: a waiting pod is tried at this time in any case.
	flush time.Time
	// plugins that refused it; moved: an event came that could help.
	plugins []string
	moved   bool
	// missed are the events that came while the pod was in flight.
	missed []Event
	// lastMessage and reported: what the user was told last.
	lastMessage string
	reported    time.Time
}

// Event is a change of the cluster that may help waiting pods.
type Event struct {
	// Plugins whose refusals it may lift; empty: every one.
	Plugins []string
}

func (e Event) helps(plugins []string) bool {
	if len(e.Plugins) == 0 || len(plugins) == 0 {
		return true
	}
	return slices.ContainsFunc(e.Plugins, func(p string) bool { return slices.Contains(plugins, p) })
}

// NewQueue makes an empty queue; rng spreads retries.
func NewQueue(rng *rand.Rand) *Queue { return &Queue{entries: map[types.UID]*entry{}, rng: rng} }

// Len is the number of pods known to the queue, in flight included.
func (q *Queue) Len() int { return len(q.entries) }

// Counts says how many pods are active, in back-off and waiting for an event.
func (q *Queue) Counts(now time.Time) (active, backoff, unschedulable int) {
	active = len(q.active)
	for _, e := range q.entries {
		switch {
		case e.state == waiting && e.moved:
			backoff++
		case e.state == waiting:
			unschedulable++
		}
	}
	return active, backoff, unschedulable
}

// Set adds a pod, or gives a known one its new object. A changed pod is tried at once: the change may have been
// what it needed.
func (q *Queue) Set(pod *Pod, now time.Time) {
	e, ok := q.entries[pod.UID()]
	if !ok {
		e = &entry{pod: pod, since: now, index: -1}
		q.entries[pod.UID()] = e
		q.activate(e)
		return
	}
	same := e.pod.Class == pod.Class && len(e.pod.Object.Spec.SchedulingGates) == len(pod.Object.Spec.SchedulingGates)
	e.pod = pod
	switch {
	case e.state == active:
		heap.Fix(&q.active, e.index)
	case same: // only its status changed, likely by our own report
	case e.state == inFlight:
		e.missed = append(e.missed[:0], Event{})
	default:
		q.activate(e)
	}
}

// Remove forgets a pod that was bound by someone or deleted.
func (q *Queue) Remove(uid types.UID) {
	e, ok := q.entries[uid]
	if !ok {
		return
	}
	if e.state == active {
		heap.Remove(&q.active, e.index)
	}
	delete(q.entries, uid)
}

// Pop takes up to limit pods to be tried now, the most important first.
func (q *Queue) Pop(now time.Time, limit int) []*Pod {
	for _, e := range q.entries {
		if e.state == waiting && (e.moved && !now.Before(e.until) || !now.Before(e.flush)) {
			q.activate(e)
		}
	}
	var pods []*Pod
	for len(q.active) > 0 && len(pods) < limit {
		e := heap.Pop(&q.active).(*entry)
		e.state, e.missed = inFlight, e.missed[:0]
		e.attempts++
		pods = append(pods, e.pod)
	}
	return pods
}

// Next is when Pop will have a pod again; false when only an event can bring one.
func (q *Queue) Next() (at time.Time, ok bool) {
	for _, e := range q.entries {
		var t time.Time
		switch {
		case e.state == active:
			return time.Time{}, true
		case e.state == inFlight:
			continue
		case e.moved:
			t = e.until
		default:
			t = e.flush
		}
		if !ok || t.Before(at) {
			at, ok = t, true
		}
	}
	return at, ok
}

// Refused puts back a pod that no node took. It reports whether the user should be told: the message is new, or
// was told longer ago than reportEvery.
func (q *Queue) Refused(uid types.UID, refusal *Refusal, now time.Time, reportEvery time.Duration) bool {
	e := q.back(uid, refusal.Plugins, now)
	if e == nil {
		return false
	}
	for _, event := range e.missed {
		e.moved = e.moved || event.helps(e.plugins)
	}
	if e.lastMessage == refusal.Message && now.Sub(e.reported) < reportEvery {
		return false
	}
	e.lastMessage, e.reported = refusal.Message, now
	return true
}

// Failed puts back a pod whose binding failed; it is tried again after its back-off.
func (q *Queue) Failed(uid types.UID, now time.Time) {
	if e := q.back(uid, nil, now); e != nil {
		e.moved = true
	}
}

// Attempts is how often the pod was tried, and since when it waits.
func (q *Queue) Attempts(uid types.UID) (attempts int, since time.Time) {
	if e, ok := q.entries[uid]; ok {
		return e.attempts, e.since
	}
	return 0, time.Time{}
}

func (q *Queue) back(uid types.UID, plugins []string, now time.Time) *entry {
	e, ok := q.entries[uid]
	if !ok || e.state != inFlight {
		return nil
	}
	wait := time.Second * BackoffFirstSeconds << min(e.attempts-1, 10)
	e.state, e.plugins, e.moved = waiting, plugins, false
	e.until = now.Add(min(wait, BackoffMaxSeconds*time.Second))
	jitter := time.Duration(q.rng.Int64N(int64(UnschedulableMaxSeconds*time.Second) * flushJitterPercent / 100))
	e.flush = now.Add(UnschedulableMaxSeconds*time.Second + jitter)
	return e
}

// Move lets the waiting pods that the event may help try again after their back-off.
func (q *Queue) Move(event Event, now time.Time) {
	for _, e := range q.entries {
		switch e.state {
		case inFlight:
			if len(e.missed) < cap(e.missed) || len(e.missed) < maxMissedEvents {
				e.missed = append(e.missed, event)
			} else {
				e.missed[0] = Event{} // too many to remember: assume that one helps
			}
		case waiting:
			if event.helps(e.plugins) {
				e.moved = true
				if !now.Before(e.until) {
					q.activate(e)
				}
			}
		}
	}
}

// maxMissedEvents bounds what is remembered for a pod in flight.
const maxMissedEvents = 8

func (q *Queue) activate(e *entry) {
	e.state, e.moved = active, false
	heap.Push(&q.active, e)
}

// activeHeap orders by priority, then by age.
type activeHeap []*entry

func (h activeHeap) Len() int { return len(h) }

func (h activeHeap) Less(i, j int) bool {
	if a, b := h[i].pod.Priority, h[j].pod.Priority; a != b {
		return a > b
	}
	return h[i].since.Before(h[j].since)
}

func (h activeHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements [heap.Interface].
func (h *activeHeap) Push(x any) {
	e := x.(*entry)
	e.index = len(*h)
	*h = append(*h, e)
}

// Pop implements [heap.Interface].
func (h *activeHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	*h = old[:len(old)-1]
	e.index = -1
	return e
}
