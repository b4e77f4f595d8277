package kube

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/podvine/podvine/dataplane/dns"
	"github.com/podvine/podvine/dataplane/services"
)

const (
	// sliceIndex finds the slices of a service.
	sliceIndex = "podvine.io/service"
	// retryMin and retryMax bound the pause after a failure to hand on.
	retryMin = 50 * time.Millisecond
	retryMax = 5 * time.Second
	// eventReason is that of events which say what is not served as asked.
	eventReason = "NotServedAsAsked"
)

// Proxy takes services; [services.Proxy] is one.
type Proxy interface {
	Set(ctx context.Context, all []services.Service) error
	Apply(ctx context.Context, changes []services.Change) error
}

// Names takes what DNS answers from; the client of netd is one.
type Names interface {
	Set(all []dns.Service)
	Apply(update dns.Update)
}

// Config is what a [Source] needs.
type Config struct {
	Informers informers.SharedInformerFactory
	// NodeName is this node's.
	NodeName string
	Proxy    Proxy
	// Names may be nil.
	Names Names
	// Events tells users what of a service is not served as asked; it may be nil.
	Events record.EventRecorder
	// Metrics shows the source's metrics; it may be nil.
	Metrics prometheus.Registerer
	// Keep keeps the services for a start at which nobody can be asked; nil keeps nothing.
	Keep   Keeper
	Logger *slog.Logger
}

// Source watches and converts. See [New].
type Source struct {
	config   Config
	services corelisters.ServiceLister
	slices   cache.Indexer
	nodes    corelisters.NodeLister
	synced   []cache.InformerSynced
	trigger  chan struct{}
	// complained holds what was logged, so that it is said once.
	complained map[string]string
	metrics    *metrics
	// keepNext is when the services may be written to disk again.
	keepNext time.Time

	mu sync.Mutex // guards what follows
	// dirty are the services to look at; all means every one.
	dirty map[string]bool
	all   bool
	// changes are what dirty and all came from.
	changes changes
}

// New subscribes to the informers. It must be called before they are started; [Source.Run] does the work.
func New(config Config) (*Source, error) {
	s := &Source{config: config, trigger: make(chan struct{}, 1), dirty: map[string]bool{}, complained: map[string]string{}, metrics: newMetrics()}
	if err := s.metrics.register(config.Metrics, s); err != nil {
		return nil, err
	}
	core, discovery := config.Informers.Core().V1(), config.Informers.Discovery().V1()
	s.services, s.nodes = core.Services().Lister(), core.Nodes().Lister()
	slices := discovery.EndpointSlices().Informer()
	if err := slices.AddIndexers(cache.Indexers{sliceIndex: indexSlice}); err != nil {
		return nil, fmt.Errorf("index endpoint slices: %w", err)
	}
	s.slices = slices.GetIndexer()
	for _, subscription := range []struct {
		informer cache.SharedIndexInformer
		note     func(old, fresh any)
	}{
		{core.Services().Informer(), s.noteService},
		{slices, s.noteSlice},
		{core.Nodes().Informer(), s.noteNode},
	} {
		registration, err := subscription.informer.AddEventHandler(handler(subscription.note))
		if err != nil {
			return nil, fmt.Errorf("subscribe to informer: %w", err)
		}
		s.synced = append(s.synced, registration.HasSynced)
	}
	return s, nil
}

// handler hands on what changed: of what came there is no old, of what went no fresh object.
func handler(note func(old, fresh any)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { note(nil, object) },
		UpdateFunc: note,
		DeleteFunc: func(object any) {
			if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = last.Obj
			}
			note(object, nil)
		},
	}
}

func indexSlice(object any) ([]string, error) {
	slice, ok := object.(*discoveryv1.EndpointSlice)
	if !ok {
		return nil, fmt.Errorf("index %T", object)
	}
	if name := slice.Labels[discoveryv1.LabelServiceName]; name != "" {
		return []string{slice.Namespace + "/" + name}, nil
	}
	return nil, nil
}

func (s *Source) noteService(old, fresh any) {
	var keys []string
	for _, object := range []any{old, fresh} {
		if service, ok := object.(*corev1.Service); ok {
			keys = append(keys, service.Namespace+"/"+service.Name)
		}
	}
	s.note(changes{services: 1}, keys...)
}

func (s *Source) noteSlice(old, fresh any) {
	var keys []string
	for _, object := range []any{old, fresh} {
		if object == nil {
			continue
		}
		if of, err := indexSlice(object); err == nil {
			keys = append(keys, of...)
		}
	}
	s.note(changes{slices: 1, triggers: triggerOf(old, fresh)}, keys...)
}

// noteNode looks at everything anew when this node comes or moves to another zone.
func (s *Source) noteNode(old, fresh any) {
	for _, object := range []any{old, fresh} {
		node, ok := object.(*corev1.Node)
		if !ok || node.Name != s.config.NodeName {
			continue
		}
		s.mu.Lock()
		s.all = true
		s.mu.Unlock()
		s.wake()
		return
	}
}

// note has the services of those keys looked at.
func (s *Source) note(what changes, keys ...string) {
	if len(keys) == 0 {
		return
	}
	s.mu.Lock()
	for _, key := range keys {
		s.dirty[key] = true
	}
	s.changes.add(what)
	s.mu.Unlock()
	s.metrics.queued(what)
	s.wake()
}

func (s *Source) wake() {
	select {
	case s.trigger <- struct{}{}:
	default:
	}
}

// Run hands on the full state once all informers have synced, and then what changes, until ctx ends.
func (s *Source) Run(ctx context.Context) error {
	if err := s.awaitView(ctx); err != nil {
		return err
	}
	s.mu.Lock()
	s.all = true
	s.mu.Unlock()
	pause := retryMin
	here := place{node: "\x00"} // unlike any
	var keep <-chan time.Time
	for {
		var err error
		if here, err = s.step(ctx, here); err == nil {
			pause = retryMin
			if keep == nil && s.config.Keep != nil {
				keep = time.After(time.Until(s.keepNext))
			}
			select {
			case <-ctx.Done():
				return nil
			case <-s.trigger:
				continue
			case <-keep:
			}
			s.keepNext, keep = time.Now().Add(s.keep(here)), nil
			select {
			case <-ctx.Done():
				return nil
			case <-s.trigger:
			}
			continue
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // it failed because it was to end
		}
		s.config.Logger.Warn("cannot update services", "err", err, "retry", pause)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, retryMax)
	}
}

// step hands on what is dirty. On an error everything stays noted. It returns the place that is in effect.
func (s *Source) step(ctx context.Context, last place) (place, error) {
	here, known, err := s.here()
	if err != nil || !known {
		return last, err
	}
	s.mu.Lock()
	dirty, all, pending := s.dirty, s.all, s.changes
	s.dirty, s.all, s.changes = map[string]bool{}, false, changes{}
	s.mu.Unlock()
	if all && here != last {
		err = s.full(ctx, here)
	} else {
		err = s.some(ctx, dirty, here)
	}
	if err == nil {
		s.metrics.programmed(pending.triggers)
		return here, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changes.add(pending)
	maps.Copy(s.dirty, dirty)
	s.all = s.all || all
	return last, err
}

// here finds this node's place. A view of the cluster that does not know this node is none: the API's own store has not caught
// up since its start, and what it lacks must not be taken for deleted. This node's arrival has everything looked at.
func (s *Source) here() (here place, known bool, err error) {
	node, err := s.nodes.Get(s.config.NodeName)
	if apierrors.IsNotFound(err) {
		return place{}, false, nil
	}
	if err != nil {
		return place{}, false, fmt.Errorf("find this node: %w", err)
	}
	return place{node: s.config.NodeName, zone: node.Labels[corev1.LabelTopologyZone]}, true, nil
}

func (s *Source) full(ctx context.Context, here place) error {
	objects, err := s.services.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	var wanted []services.Service
	var known []dns.Service
	for _, object := range objects {
		behind, err := s.behind(object.Namespace + "/" + object.Name)
		if err != nil {
			return err
		}
		if served(object) {
			service := convert(object, behind, here)
			s.complain(object, &service)
			wanted = append(wanted, service)
		}
		if named, ok := names(object, behind); ok {
			known = append(known, named)
		}
	}
	if s.config.Names != nil {
		s.config.Names.Set(known)
	}
	return s.config.Proxy.Set(ctx, wanted)
}

func (s *Source) some(ctx context.Context, dirty map[string]bool, here place) error {
	var changes []services.Change
	var update dns.Update
	for _, key := range slices.Sorted(maps.Keys(dirty)) {
		change, named, err := s.one(key, here)
		if err != nil {
			return err
		}
		changes = append(changes, change)
		if named != nil {
			update.Upserts = append(update.Upserts, *named)
		} else {
			update.Deletes = append(update.Deletes, key)
		}
	}
	if s.config.Names != nil && len(dirty) > 0 {
		s.config.Names.Apply(update)
	}
	return s.config.Proxy.Apply(ctx, changes)
}

func (s *Source) one(key string, here place) (services.Change, *dns.Service, error) {
	change := services.Change{Name: key}
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return change, nil, fmt.Errorf("split key: %w", err)
	}
	object, err := s.services.Services(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		delete(s.complained, key)
		return change, nil, nil
	}
	if err != nil {
		return change, nil, fmt.Errorf("find service %s: %w", key, err)
	}
	behind, err := s.behind(key)
	if err != nil {
		return change, nil, err
	}
	if served(object) {
		service := convert(object, behind, here)
		s.complain(object, &service)
		change.Service = &service
	}
	if named, ok := names(object, behind); ok {
		return change, &named, nil
	}
	return change, nil, nil
}

func (s *Source) behind(key string) ([]*discoveryv1.EndpointSlice, error) {
	objects, err := s.slices.ByIndex(sliceIndex, key)
	if err != nil {
		return nil, fmt.Errorf("find slices of %s: %w", key, err)
	}
	out := make([]*discoveryv1.EndpointSlice, 0, len(objects))
	for _, object := range objects {
		if slice, ok := object.(*discoveryv1.EndpointSlice); ok {
			out = append(out, slice)
		}
	}
	slices.SortFunc(out, func(a, b *discoveryv1.EndpointSlice) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out, nil
}

// complain says once, in the log and as an event of the service, what of it is not served as asked.
func (s *Source) complain(object *corev1.Service, service *services.Service) {
	message := strings.Join(unserved(object), "; ")
	if message == s.complained[service.Name] {
		return
	}
	if message == "" {
		delete(s.complained, service.Name)
		return
	}
	s.complained[service.Name] = message
	s.config.Logger.Warn("service is not served as asked", "service", service.Name, "problem", message)
	if s.config.Events != nil && s.speaks() {
		s.config.Events.Event(object, corev1.EventTypeWarning, eventReason, message)
	}
}

// speaks reports whether this node is the one that makes events of services: all would say the same.
func (s *Source) speaks() bool {
	nodes, err := s.nodes.List(labels.Everything())
	if err != nil {
		return true
	}
	return !slices.ContainsFunc(nodes, func(n *corev1.Node) bool { return n.Name < s.config.NodeName })
}

// unserved names the fields of a service that do not work.
func unserved(object *corev1.Service) []string {
	var out []string
	for i, p := range object.Spec.Ports {
		if _, ok := protocolOf(p.Protocol); !ok {
			out = append(out, fmt.Sprintf("spec.ports[%d].protocol: %s is not served, only TCP and UDP are", i, p.Protocol))
		}
	}
	if name := object.Annotations[AlgorithmAnnotation]; name != "" {
		if _, ok := algorithm(name); !ok {
			out = append(out, fmt.Sprintf("metadata.annotations[%s]: there is no %q, served at random", AlgorithmAnnotation, name))
		}
	}
	return out
}
