// Package loop drives a control loop: it turns informer events into keys, hands each key to one worker at a
// time, retries failures with a back-off of their own, and walks over everything once in a while.
//
// Role: every package below agent/control decides purely and applies idempotently; this package is the one
// place that knows when. A loop has three drivers: events (which carry keys, never decisions), per-key back-off
// after an error or a requested delay, and a slow, jittered full pass that heals whatever an event missed.
//
// Ownership: a [Driver] owns its queue and its event handlers for the time of one [Driver.Run]; it owns no
// cluster state. The caller owns the informers and starts them.
//
// Concurrency: Run may be called again after it returned, not while it runs. Reconcile is called from up to
// Workers goroutines, never for the same key at once. Keys functions run on the informers' goroutines and must
// not block.
package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// Limits of every loop.
const (
	// RetryFirstMilliseconds is the delay before the first retry of a key.
	RetryFirstMilliseconds = 10
	// RetryMaxSeconds is the longest delay between two tries of one key: short enough that a healed cluster is
	// seen to heal, long enough that a thousand bad objects cost nothing.
	RetryMaxSeconds = 60
	// FullPassMinutes is the mean time between two passes over all keys.
	FullPassMinutes = 10
	// FullPassJitterPercent spreads the full passes of different loops.
	FullPassJitterPercent = 20
	// DefaultWorkers is the parallelism of a loop that does not say.
	DefaultWorkers = 4
	// MaxWorkers bounds the parallelism of any loop.
	MaxWorkers = 64
)

// Config says what a loop watches and does.
type Config struct {
	// Name of the queue in logs and metrics, as Kubernetes calls it ("replicaset"). Required.
	Name string
	// Sources are watched while the loop runs.
	Sources []Source
	// All lists every key, for the full pass at the start and once in a while. Nil: no full pass.
	All func() []string
	// Reconcile brings one key's object to where it should be. It is called again after the returned delay
	// (0: not before the next event), or with back-off after an error. Required.
	Reconcile func(ctx context.Context, key string) (time.Duration, error)
	// Ready holds the first work back until it returns true; nil holds nothing back. It is asked often.
	Ready func() bool
	// Beside runs while the loop does, from when keys can be triggered until its context ends; nil is nothing.
	Beside func(context.Context)
	// Workers is the number of keys worked on at once, 1 to MaxWorkers; 0 is DefaultWorkers.
	Workers int
	// Logger receives one line a failed try. Required.
	Logger *slog.Logger
	// Metrics counts the queue; nil counts nothing.
	Metrics *Metrics
}

// Driver runs one loop. Make it with [New].
type Driver struct {
	cfg Config

	// queue is the queue of the current run, nil between runs.
	queue atomic.Pointer[queue]
}

type queue struct {
	workqueue.TypedRateLimitingInterface[string]
}

// New checks the configuration.
func New(cfg Config) (*Driver, error) {
	switch {
	case cfg.Name == "":
		return nil, errors.New("make loop: no name")
	case cfg.Reconcile == nil || cfg.Logger == nil:
		return nil, fmt.Errorf("make loop %s: Reconcile and Logger are required", cfg.Name)
	case cfg.Workers < 0 || cfg.Workers > MaxWorkers:
		return nil, fmt.Errorf("make loop %s: %d workers, want at most %d", cfg.Name, cfg.Workers, MaxWorkers)
	case cfg.Workers == 0:
		cfg.Workers = DefaultWorkers
	}
	cfg.Logger = cfg.Logger.With("loop", cfg.Name)
	return &Driver{cfg: cfg}, nil
}

// Trigger asks for the key to be reconciled soon. Outside of Run it does nothing: the next Run starts with
// every object anyway. Safe for concurrent use.
func (d *Driver) Trigger(key string) {
	if q := d.queue.Load(); q != nil {
		q.Add(key)
	}
}

// TriggerAfter is Trigger after a delay.
func (d *Driver) TriggerAfter(key string, delay time.Duration) {
	if q := d.queue.Load(); q != nil {
		q.AddAfter(key, delay)
	}
}

// RunAll runs drivers side by side until ctx ends, or one of them cannot start: then it ends the others and returns why.
func RunAll(ctx context.Context, drivers []*Driver) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var group sync.WaitGroup
	for _, d := range drivers {
		group.Go(func() {
			if err := d.Run(ctx); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	group.Wait()
	return context.Cause(ctx)
}

// Run works until ctx ends and returns ctx's error, or the reason why it could not start. When it returns, no
// goroutine of the loop is left and its event handlers are removed.
func (d *Driver) Run(ctx context.Context) error {
	q := &queue{d.newQueue()}
	d.queue.Store(q)
	defer d.queue.Store(nil)
	defer q.ShutDown()
	var beside sync.WaitGroup
	defer beside.Wait()
	if d.cfg.Beside != nil {
		besideCtx, stop := context.WithCancel(ctx)
		defer stop()
		beside.Go(func() { d.cfg.Beside(besideCtx) })
	}
	synced, remove, err := d.watch()
	defer remove()
	if err != nil {
		return err
	}
	if d.cfg.Ready != nil {
		synced = append(synced, d.cfg.Ready)
	}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return ctx.Err()
	}
	var group sync.WaitGroup
	for range d.cfg.Workers {
		group.Go(func() { d.work(ctx, q) })
	}
	group.Go(func() { d.passes(ctx, q) })
	<-ctx.Done()
	q.ShutDown()
	group.Wait()
	return ctx.Err()
}

func (d *Driver) newQueue() workqueue.TypedRateLimitingInterface[string] {
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[string](
		RetryFirstMilliseconds*time.Millisecond, RetryMaxSeconds*time.Second)
	config := workqueue.TypedRateLimitingQueueConfig[string]{Name: d.cfg.Name}
	if d.cfg.Metrics != nil {
		config.MetricsProvider = d.cfg.Metrics
	}
	return workqueue.NewTypedRateLimitingQueueWithConfig(limiter, config)
}

// watch installs the event handlers; remove takes back those that were installed, also after an error.
func (d *Driver) watch() (synced []cache.InformerSynced, remove func(), err error) {
	undo := []func(){}
	remove = func() {
		for _, f := range undo {
			f()
		}
	}
	for _, source := range d.cfg.Sources {
		registration, err := source.informer.AddEventHandler(source.handler(d.Trigger))
		if err != nil {
			return nil, remove, fmt.Errorf("watch for loop %s: %w", d.cfg.Name, err)
		}
		undo = append(undo, func() {
			if err := source.informer.RemoveEventHandler(registration); err != nil {
				d.cfg.Logger.Warn("remove event handler", "err", err)
			}
		})
		synced = append(synced, source.informer.HasSynced, registration.HasSynced)
	}
	return synced, remove, nil
}

func (d *Driver) work(ctx context.Context, q *queue) {
	for {
		key, shutdown := q.Get()
		if shutdown {
			return
		}
		if ctx.Err() == nil {
			d.try(ctx, q, key)
		}
		q.Done(key)
	}
}

func (d *Driver) try(ctx context.Context, q *queue, key string) {
	again, err := d.cfg.Reconcile(ctx, key)
	switch {
	case err != nil && ctx.Err() != nil:
	case err != nil:
		level := slog.LevelWarn
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			level = slog.LevelDebug // a stale read; the next try sees more
		}
		d.cfg.Logger.Log(ctx, level, "reconcile", "key", key, "tries", q.NumRequeues(key)+1, "err", err)
		q.AddRateLimited(key)
	case again > 0:
		q.Forget(key)
		q.AddAfter(key, again)
	default:
		q.Forget(key)
	}
}

// passes walks over all keys at the start, for what no event announces, and then once in a while.
func (d *Driver) passes(ctx context.Context, q *queue) {
	if d.cfg.All == nil {
		return
	}
	for {
		for _, key := range d.cfg.All() {
			q.Add(key)
		}
		timer := time.NewTimer(jittered(FullPassMinutes*time.Minute, FullPassJitterPercent))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

func jittered(mean time.Duration, percent int) time.Duration {
	span := int64(mean) * int64(percent) / 100
	return mean - time.Duration(span) + time.Duration(rand.Int64N(2*span+1))
}
