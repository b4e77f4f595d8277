package kubestore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/podvine/podvine/consensus/store"
)

// maxLateAttempts is how often a write is begun anew because a late companion's condition failed: other members of the
// cluster change the same objects, and each attempt is decided on newer ones.
const maxLateAttempts = 16

// LateSource decides what a write carries along when the write is about to happen.
type LateSource interface {
	// Companions returns the writes to carry along. It is asked again, with the number of attempts so far, after a condition
	// of one of them failed. An error ends the write.
	Companions(ctx context.Context, attempt int) ([]Companion, error)
	// Done is called when the write is decided, whatever became of it; Companions is not called after.
	Done()
}

// Late is a place for a source in a context that exists already: what admission decides, while the registry has the
// context in its hands. The next write of the context takes the source. It is safe for concurrent use.
type Late struct {
	mu     sync.Mutex
	source LateSource
}

type lateKey struct{}

// WithLate returns a context with such a place.
func WithLate(ctx context.Context) context.Context {
	return context.WithValue(ctx, lateKey{}, &Late{})
}

// LateOf returns the place of a context, nil where it has none.
func LateOf(ctx context.Context) *Late {
	late, _ := ctx.Value(lateKey{}).(*Late)
	return late
}

// Set puts a source in place of the one before; nil takes it away.
func (l *Late) Set(source LateSource) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.source = source
}

// takeLate returns the source of a context's next write, and leaves none.
func takeLate(ctx context.Context) LateSource {
	late := LateOf(ctx)
	if late == nil {
		return nil
	}
	late.mu.Lock()
	defer late.mu.Unlock()
	source := late.source
	late.source = nil
	return source
}

// commitLate proposes a write with what its source wants it to carry along, as often as another write was faster.
func (r *resource) commitLate(ctx context.Context, w *write, source LateSource) (store.Result, error) {
	defer source.Done()
	for attempt := range maxLateAttempts {
		late, err := source.Companions(ctx, attempt)
		if err != nil {
			return store.Result{}, err
		}
		result, err := r.commitWith(WithCompanions(ctx, late...), w)
		if !failed(late, err) {
			return result, err
		}
	}
	return store.Result{}, unavailable(fmt.Errorf("write %s: what it changes along was changed by others in %d attempts", w.op.Key, maxLateAttempts))
}

// failed says that an error is about one of these companions.
func failed(companions []Companion, err error) bool {
	failure := (*CompanionError)(nil)
	return errors.As(err, &failure) && slices.ContainsFunc(companions, func(c Companion) bool { return c.Resource == failure.Resource })
}
