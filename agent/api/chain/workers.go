package chain

import "sync"

// idleWorkers bounds the goroutines that wait for work. More requests at a time than that get goroutines that end with them.
const idleWorkers = 64

// Workers run functions on goroutines that are kept. The stack of a new goroutine is small and is copied several times
// until it is large enough for a request: that was a seventh of the CPU of a write. The collector shrinks the stacks of those
// that stay idle. The zero value is usable.
type Workers struct {
	mu     sync.Mutex
	closed bool
	// idle has those that wait; the last came last and is taken first, since its stack is the warmest.
	idle []chan func()
}

// Run calls f, which must not panic, in another goroutine.
func (w *Workers) Run(f func()) {
	w.mu.Lock()
	if n := len(w.idle); n > 0 {
		worker := w.idle[n-1]
		w.idle = w.idle[:n-1]
		w.mu.Unlock()
		worker <- f
		return
	}
	w.mu.Unlock()
	go w.work(f)
}

func (w *Workers) work(f func()) {
	next := make(chan func(), 1)
	for f != nil {
		f()
		if !w.wait(next) {
			return
		}
		f = <-next
	}
}

// wait offers a worker for work, unless it is not wanted any more.
func (w *Workers) wait(next chan func()) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.idle) == idleWorkers {
		return false
	}
	w.idle = append(w.idle, next)
	return true
}

// Close ends the idle goroutines, and the others when they have finished. Run still works.
func (w *Workers) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for _, worker := range w.idle {
		close(worker)
	}
	w.idle = nil
}
