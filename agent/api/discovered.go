package api

import (
	"context"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
)

// How long discovery must be at rest before what has changed in it is told, and how long that may be put off: an operator that
// makes thirty definitions is told of once or twice.
const (
	discoveryRest     = 100 * time.Millisecond
	discoveryRestMost = time.Second
)

// discovered tells when what discovery shows has changed: a custom resource or an API service came, went or answers again.
// It follows the document that clients are served rather than the objects behind it, because those change first.
type discovered struct {
	dirty chan struct{}

	mu        sync.Mutex
	listeners []func()
}

func newDiscovered() *discovered { return &discovered{dirty: make(chan struct{}, 1)} }

// of returns the document's manager so that its changes are noticed.
func (d *discovered) of(manager aggregated.ResourceManager) aggregated.ResourceManager {
	manager.AddInvalidationCallback(d.note)
	return noticed{manager, d.note}
}

// note never blocks: the manager calls it under its lock.
func (d *discovered) note() {
	select {
	case d.dirty <- struct{}{}:
	default: // a change is to be told already
	}
}

// listen has f called after each change.
func (d *discovered) listen(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listeners = append(d.listeners, f)
}

// run tells of changes until ctx ends.
func (d *discovered) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.dirty:
		}
		if !d.settle(ctx) {
			return
		}
		d.mu.Lock()
		listeners := d.listeners
		d.mu.Unlock()
		for _, f := range listeners {
			f()
		}
	}
}

// settle waits until nothing changes any more, or for long enough; false when ctx has ended.
func (d *discovered) settle(ctx context.Context) bool {
	most := time.After(discoveryRestMost)
	for {
		select {
		case <-ctx.Done():
			return false
		case <-most:
			return true
		case <-time.After(discoveryRest):
			return true
		case <-d.dirty:
		}
	}
}

// noticed is a manager that notices what the library's callback is not called for: a group whose last version goes.
type noticed struct {
	aggregated.ResourceManager
	note func()
}

// RemoveGroup implements aggregated.ResourceManager.
func (n noticed) RemoveGroup(name string) {
	n.ResourceManager.RemoveGroup(name)
	n.note()
}

// WithSource implements aggregated.ResourceManager.
func (n noticed) WithSource(source aggregated.Source) aggregated.ResourceManager {
	return noticed{n.ResourceManager.WithSource(source), n.note}
}
