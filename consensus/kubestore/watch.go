package kubestore

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
	utilflowcontrol "k8s.io/apiserver/pkg/util/flowcontrol"

	"github.com/podvine/podvine/consensus/store"
)

const (
	// watchBufferEvents is how far a watch runs ahead of its reader. One that falls behind the history gets a 410.
	watchBufferEvents = 128
	// deadlineMargin is how long before a watch's deadline a last bookmark is sent.
	deadlineMargin = 2 * time.Second
	// bookmarkJitter spreads bookmarks, as a part of their interval.
	bookmarkJitter = 0.25
	// tooLargeRetrySeconds bounds the random wait that a client is told when its version lies in the future.
	tooLargeRetrySeconds = 3
)

// watcher is one watch. run owns everything but the channel's receiving side.
type watcher struct {
	r      *resource
	key    string
	opts   storage.ListOptions
	plain  bool
	out    chan watch.Event
	cancel context.CancelFunc
}

var _ watch.Interface = (*watcher)(nil)

// watches are those of one storage that run. They are told of its end one by one, so that none need look out for it.
type watches struct {
	mu    sync.Mutex
	open  map[*watcher]struct{}
	ended bool
}

// add notes a watch, unless all are to end.
func (w *watches) add(one *watcher) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.open[one] = struct{}{}
	}
	return !w.ended
}

func (w *watches) remove(one *watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, one)
}

// end stops all watches, also those to come.
func (w *watches) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	for one := range w.open {
		one.cancel()
	}
}

// Stop implements watch.Interface.
func (w *watcher) Stop() { w.cancel() }

// ResultChan implements watch.Interface.
func (w *watcher) ResultChan() <-chan watch.Event { return w.out }

// Watch implements storage.Interface.
func (r *resource) Watch(ctx context.Context, key string, opts storage.ListOptions) (watch.Interface, error) {
	return r.watch(ctx, key, opts, false)
}

// watch starts a watch. plain ones get the shared objects themselves instead of wrappers for the wire.
func (r *resource) watch(ctx context.Context, key string, opts storage.ListOptions, plain bool) (watch.Interface, error) {
	key, err := r.prepareKey(key, opts.Recursive)
	if err != nil {
		return nil, err
	}
	revision, err := r.versioner.ParseResourceVersion(opts.ResourceVersion)
	if err != nil {
		return nil, err
	}
	w := &watcher{r: r, key: key, opts: opts, plain: plain, out: make(chan watch.Event, watchBufferEvents)}
	ctx, w.cancel = context.WithCancel(ctx)
	start, err := w.start(ctx, int64(revision))
	if err != nil {
		w.cancel()
		return nil, err
	}
	if !w.r.watches.add(w) {
		w.cancel() // its channel is closed at once
	}
	go w.run(ctx, start)
	// The watch is set up: it need not keep a seat of priority and fairness any longer.
	utilflowcontrol.WatchInitialized(ctx)
	return w, nil
}

// watchStart is where a watch begins.
type watchStart struct {
	revision int64
	// initial is sent as additions before anything else, when hasInitial is set.
	initial    store.View
	hasInitial bool
	// err is told to the client as the watch's only event.
	err error
}

func (w *watcher) start(ctx context.Context, revision int64) (watchStart, error) {
	send := w.opts.SendInitialEvents
	initial := send == nil && revision == 0 || send != nil && *send
	if !initial && revision > 0 {
		w.r.serveStale(ctx)
		return watchStart{revision: revision}, nil
	}
	s := w.r.b.replica.Store()
	if w.opts.ResourceVersion != "0" {
		current, err := w.r.newest(ctx)
		if err != nil {
			return watchStart{}, err
		}
		if revision > current {
			retry := rand.IntN(tooLargeRetrySeconds) + 1
			return watchStart{err: storage.NewTooLargeResourceVersionError(uint64(revision), uint64(current), retry)}, nil
		}
	}
	if !initial {
		return watchStart{revision: s.Revision()}, nil
	}
	view := s.View(w.r.table, false)
	return watchStart{revision: view.Revision, initial: view, hasInitial: true}, nil
}

func (w *watcher) run(ctx context.Context, at watchStart) {
	defer close(w.out)
	defer w.r.watches.remove(w)
	defer w.cancel()
	if at.err != nil {
		w.fail(ctx, at.err)
		return
	}
	if at.hasInitial {
		if err := w.sendInitial(ctx, at); err != nil {
			w.fail(ctx, err)
			return
		}
		at.initial = store.View{}
	}
	if err := w.follow(ctx, at.revision); err != nil {
		w.fail(ctx, err)
	}
}

// errStopped ends a watch that nobody listens to.
var errStopped = errors.New("watch is stopped")

func (w *watcher) send(ctx context.Context, e watch.Event) error {
	select {
	case w.out <- e:
		return nil
	default: // the reader is behind
	}
	select {
	case w.out <- e:
		return nil
	case <-ctx.Done():
		return errStopped
	}
}

// fail tells the client why the watch ends.
func (w *watcher) fail(ctx context.Context, err error) {
	if errors.Is(err, errStopped) || ctx.Err() != nil {
		return
	}
	if errors.Is(err, store.ErrCompacted) {
		err = apierrors.NewResourceExpired(watchExpired)
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		status = apierrors.NewInternalError(err)
	}
	s := status.Status()
	_ = w.send(ctx, watch.Event{Type: watch.Error, Object: &s}) // it fails where nobody listens any more
}

func (w *watcher) matchesKey(key string) bool {
	if w.opts.Recursive {
		return strings.HasPrefix(key, w.key)
	}
	return key == w.key
}

// sendInitial sends what exists, and when it was asked for the bookmark that ends it.
func (w *watcher) sendInitial(ctx context.Context, at watchStart) error {
	pred := &w.opts.Predicate
	everything := pred.Empty()
	var err error
	at.initial.Ascend(w.key, func(e *store.Entry) bool {
		if !w.matchesKey(e.Key) {
			return false
		}
		var object runtime.Object
		if object, err = w.r.object(ctx, e); err != nil {
			return false
		}
		if !everything {
			if ok, matchErr := pred.Matches(object); matchErr != nil || !ok {
				return true
			}
		}
		if !w.plain && !w.r.unstructured {
			object = shallow(object)
		}
		err = w.send(ctx, watch.Event{Type: watch.Added, Object: object})
		return err == nil
	})
	if err != nil {
		return err
	}
	if w.opts.SendInitialEvents != nil && pred.AllowWatchBookmarks {
		return w.bookmark(ctx, at.revision, true)
	}
	return nil
}

func (w *watcher) bookmark(ctx context.Context, revision int64, endsInitial bool) error {
	object := w.r.newFunc()
	if err := w.r.versioner.UpdateObject(object, uint64(revision)); err != nil {
		return err
	}
	if endsInitial {
		if err := storage.AnnotateInitialEventsEndBookmark(object); err != nil {
			return err
		}
	}
	return w.send(ctx, watch.Event{Type: watch.Bookmark, Object: object})
}

// follow sends what happens after revision.
func (w *watcher) follow(ctx context.Context, revision int64) error {
	tick := time.NewTimer(w.nextBookmark(ctx))
	defer tick.Stop()
	if !w.opts.Predicate.AllowWatchBookmarks && !w.opts.ProgressNotify {
		tick.Stop()
	}
	s := w.r.dispatcher.subscribe(w.r.topicOf(w.key, w.opts.Recursive, &w.opts.Predicate))
	defer w.r.dispatcher.unsubscribe(s)
	revision, err := w.catchUp(ctx, revision)
	if err != nil {
		return err
	}
	for {
		progress := w.progress()
		select {
		case <-s.ready:
			if revision, err = w.sendTaken(ctx, s, revision); err != nil {
				return err
			}
			continue
		case <-tick.C:
			tick.Reset(w.nextBookmark(ctx))
		case <-progress:
		case <-ctx.Done():
			return errStopped
		}
		if revision, err = w.sendTaken(ctx, s, revision); err != nil {
			return err
		}
		if revision, err = w.catchUp(ctx, revision); err != nil {
			return err
		}
		if err := w.bookmark(ctx, revision, false); err != nil {
			return err
		}
	}
}

// sendTaken sends what the subscription has, and returns the revision up to which nothing is left to send.
func (w *watcher) sendTaken(ctx context.Context, s *subscription, revision int64) (int64, error) {
	reached := w.r.dispatcher.reached.Load() // all up to there is in the subscription or has been taken from it
	t := s.take()
	if t.lost {
		return w.catchUp(ctx, max(revision, t.base))
	}
	revision, err := w.sendEvents(ctx, t.events, revision)
	return max(revision, reached), err
}

// catchUp sends what the history has after revision.
func (w *watcher) catchUp(ctx context.Context, revision int64) (int64, error) {
	for {
		c, err := w.r.b.replica.Store().Changes(w.r.table, revision)
		if err != nil {
			return revision, err
		}
		if len(c.Events) == 0 {
			return max(c.Revision, revision), nil // nothing happened to the table up to there
		}
		if revision, err = w.sendEvents(ctx, c.Events, revision); err != nil {
			return revision, err
		}
	}
}

func (w *watcher) progress() <-chan struct{} {
	if w.opts.ProgressNotify {
		return w.r.progress.wait()
	}
	return nil
}

// nextBookmark returns how long to wait: an interval, or until shortly before the deadline.
func (w *watcher) nextBookmark(ctx context.Context) time.Duration {
	interval := w.r.b.opts.BookmarkInterval
	if w.opts.ProgressNotify {
		interval = min(interval, progressInterval)
	}
	interval = time.Duration(float64(interval) * (1 - bookmarkJitter*rand.Float64()))
	if deadline, ok := ctx.Deadline(); ok {
		if left := time.Until(deadline) - deadlineMargin; left > 0 && left < interval {
			return left
		}
	}
	return interval
}

// sendEvents sends those of events that the watch is about and returns the revision it has reached, starting from revision.
func (w *watcher) sendEvents(ctx context.Context, events []*store.Event, revision int64) (int64, error) {
	pred := &w.opts.Predicate
	everything := pred.Empty()
	for _, ev := range events {
		if ev.Revision <= revision {
			continue // it was read from the history before
		}
		revision = ev.Revision
		if !w.matchesKey(ev.Key()) {
			continue
		}
		view := w.r.view(ev)
		kind, err := view.classify(ctx, pred, everything)
		if err != nil {
			return revision, err
		}
		if kind == "" {
			continue
		}
		object, err := view.object(ctx, kind, w.plain)
		if err != nil {
			return revision, err
		}
		if err := w.send(ctx, watch.Event{Type: kind, Object: object}); err != nil {
			return revision, err
		}
	}
	return revision, nil
}
