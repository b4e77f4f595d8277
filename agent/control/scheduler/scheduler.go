package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/events"
)

// Limits of a running scheduler.
const (
	// batchPods is the most pods decided on in one view: small enough that urgent pods wait no more than
	// milliseconds behind a flood.
	batchPods = 256
	// batchesInFlight bounds the bindings not yet answered to batchesInFlight × batchPods.
	batchesInFlight = 4
	// reportWorkers and reportsQueued bound what is told about pods that do not fit; when full, deciding waits.
	reportWorkers = 4
	reportsQueued = 1024
	// reportEveryMinutes is how often an unchanged reason is told again, so that it does not fade from
	// kubectl describe within the events' hour.
	reportEveryMinutes = 30
)

// Config wires a [Scheduler].
type Config struct {
	// Client acts as system:kube-scheduler. Required.
	Client kubernetes.Interface
	// Informers of pods, nodes, namespaces and services; the caller starts them. Required.
	Informers informers.SharedInformerFactory
	// Budgets are the disruption budgets that preemption respects; the caller starts the informer. nil is none.
	Budgets cache.SharedIndexInformer
	// Logger is required.
	Logger *slog.Logger
	// Name is the schedulerName that pods ask for; empty is "default-scheduler".
	Name string
	// Binder commits placements; nil binds through pods/binding of Client.
	Binder Binder
	// Recorder receives events; nil records through events.k8s.io of Client.
	Recorder events.EventRecorder
	// Metrics is a registry of the scheduler's own; nil registers nowhere.
	Metrics prometheus.Registerer
	// Seed of the tie breaks; 0 takes a random one.
	Seed uint64
}

// Scheduler is the loop. Make it with [New].
type Scheduler struct {
	cfg     Config
	metrics *metrics

	pods, nodes, namespaces, services cache.SharedIndexInformer
}

// New checks the configuration and asks the factory for its informers.
func New(cfg Config) (*Scheduler, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Logger == nil {
		return nil, errors.New("make scheduler: Client, Informers and Logger are required")
	}
	if cfg.Name == "" {
		cfg.Name = v1.DefaultSchedulerName
	}
	if cfg.Binder == nil {
		cfg.Binder = apiBinder{cfg.Client}
	}
	if cfg.Seed == 0 {
		cfg.Seed = rand.Uint64()
	}
	cfg.Logger = cfg.Logger.With("loop", "scheduler")
	m, err := newMetrics(cfg.Metrics, cfg.Name)
	if err != nil {
		return nil, err
	}
	core := cfg.Informers.Core().V1()
	return &Scheduler{cfg: cfg, metrics: m, pods: core.Pods().Informer(), nodes: core.Nodes().Informer(),
		namespaces: core.Namespaces().Informer(), services: core.Services().Informer()}, nil
}

// session is the state of one Run.
type session struct {
	*Scheduler
	cache    *Cache
	memo     *Memo
	rng      *rand.Rand
	recorder events.EventRecorder
	trigger  chan struct{}
	reports  chan report
	binding  chan struct{} // slots

	mu    sync.Mutex
	queue *Queue
}

// Run schedules until ctx ends, and returns its error. No goroutine of it is left then.
func (s *Scheduler) Run(ctx context.Context) error {
	rng := func(stream uint64) *rand.Rand { return rand.New(rand.NewPCG(s.cfg.Seed, stream)) }
	run := &session{Scheduler: s, cache: NewCache(), memo: NewMemo(), rng: rng(1), queue: NewQueue(rng(2)),
		recorder: s.cfg.Recorder, trigger: make(chan struct{}, 1), reports: make(chan report, reportsQueued),
		binding: make(chan struct{}, batchesInFlight)}
	if run.recorder == nil {
		broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: s.cfg.Client.EventsV1()})
		defer broadcaster.Shutdown()
		if err := broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
			return fmt.Errorf("start scheduler events: %w", err)
		}
		run.recorder = broadcaster.NewRecorder(scheme.Scheme, s.cfg.Name)
	}
	synced, remove, err := run.watch()
	defer remove()
	if err != nil {
		return err
	}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return ctx.Err()
	}
	var group sync.WaitGroup
	for range reportWorkers {
		group.Go(func() { run.report(ctx) })
	}
	run.loop(ctx, &group)
	group.Wait()
	return ctx.Err()
}

// loop decides until ctx ends; group gets the binding goroutines.
func (s *session) loop(ctx context.Context, group *sync.WaitGroup) {
	for ctx.Err() == nil {
		if !s.cycle(ctx, group) {
			s.wait(ctx)
		}
	}
}

// wait returns when something happened or a pod's time has come.
func (s *session) wait(ctx context.Context) {
	s.mu.Lock()
	at, ok := s.queue.Next()
	s.metrics.queues(s.queue.Counts())
	s.mu.Unlock()
	var due <-chan time.Time
	if ok {
		timer := time.NewTimer(max(0, time.Until(at)))
		defer timer.Stop()
		due = timer.C
	}
	select {
	case <-ctx.Done():
	case <-s.trigger:
	case <-due:
	}
}

// cycle decides on one batch; false when there was nothing to decide.
func (s *session) cycle(ctx context.Context, group *sync.WaitGroup) bool {
	now := time.Now()
	if s.cache.Expire(now) {
		s.cfg.Logger.Warn("assumed pods were never seen on their nodes")
	}
	s.mu.Lock()
	pods := s.queue.Pop(now, batchPods)
	s.mu.Unlock()
	if len(pods) == 0 {
		return false
	}
	decisions := Decide(s.cache.View(), pods, s.memo, s.rng)
	each := time.Since(now) / time.Duration(len(pods))
	var placed []Decision
	for _, d := range decisions {
		if d.Refused != nil {
			s.metrics.decided(resultUnschedulable, each)
			s.refused(ctx, d, now)
			continue
		}
		s.metrics.decided(resultScheduled, each)
		s.cache.Assume(d.Pod, d.Node)
		placed = append(placed, d)
	}
	if len(placed) == 0 {
		return true
	}
	select {
	case s.binding <- struct{}{}:
		group.Go(func() {
			defer func() { <-s.binding }()
			s.bind(ctx, placed)
		})
	case <-ctx.Done():
	}
	return true
}

// bind commits a batch and settles the assumptions.
func (s *session) bind(ctx context.Context, placed []Decision) {
	bindings := make([]Binding, len(placed))
	for i, d := range placed {
		bindings[i] = Binding{Pod: d.Pod.Object, Node: d.Node}
	}
	errs := s.cfg.Binder.Bind(ctx, bindings)
	now := time.Now()
	for i, d := range placed {
		uid, pod := d.Pod.UID(), d.Pod.Object
		if errs[i] != nil {
			s.unbound(ctx, d, errs[i], now)
			continue
		}
		s.cache.Bound(uid, now)
		s.mu.Lock()
		attempts, since := s.queue.Attempts(uid)
		s.queue.Remove(uid)
		s.mu.Unlock()
		if attempts > 0 {
			s.metrics.bound(attempts, now.Sub(since))
		}
		s.recorder.Eventf(pod, nil, v1.EventTypeNormal, "Scheduled", "Binding",
			"Successfully assigned %s/%s to %s", pod.Namespace, pod.Name, d.Node)
	}
	s.wake()
}

func (s *session) unbound(ctx context.Context, d Decision, err error, now time.Time) {
	s.cache.Forget(d.Pod.UID())
	s.mu.Lock()
	s.queue.Failed(d.Pod.UID(), now)
	s.queue.Move(podGone(d.Pod, s.cache.Namespaces()), now) // what was assumed is free again
	s.mu.Unlock()
	if ctx.Err() == nil {
		s.metrics.decided(resultError, 0)
		s.cfg.Logger.Warn("bind", "pod", d.Pod.Object.Namespace+"/"+d.Pod.Object.Name, "node", d.Node, "err", err)
	}
}

func (s *session) wake() {
	select {
	case s.trigger <- struct{}{}:
	default:
	}
}
