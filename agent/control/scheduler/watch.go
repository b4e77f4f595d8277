package scheduler

import (
	"fmt"
	"maps"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/tools/cache"
)

// podGone is the event of a pod having left its node.
func podGone() Event {
	return Event{Plugins: []string{pluginFit, pluginPorts, pluginSpread, pluginInterPod}}
}

// podCame is the event of a pod having got a node: it may be what another one's affinity waits for.
func podCame() Event { return Event{Plugins: []string{pluginSpread, pluginInterPod}} }

// watch feeds the cache and the queue; remove takes back the handlers that were installed, also after an error.
func (s *session) watch() (synced []cache.InformerSynced, remove func(), err error) {
	var undo []func()
	remove = func() {
		for _, f := range undo {
			f()
		}
	}
	for informer, set := range map[cache.SharedIndexInformer]func(old, new any){
		s.pods: s.setPod, s.nodes: s.setNode, s.namespaces: s.setNamespace,
	} {
		registration, err := informer.AddEventHandler(handler(set))
		if err != nil {
			return nil, remove, fmt.Errorf("watch for scheduler: %w", err)
		}
		undo = append(undo, func() {
			if err := informer.RemoveEventHandler(registration); err != nil {
				s.cfg.Logger.Warn("remove event handler", "err", err)
			}
		})
		synced = append(synced, informer.HasSynced, registration.HasSynced)
	}
	return synced, remove, nil
}

func handler(set func(old, new any)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { set(nil, object) },
		UpdateFunc: set,
		DeleteFunc: func(object any) {
			if unknown, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = unknown.Obj
			}
			set(object, nil)
		},
	}
}

func (s *session) setPod(old, new any) {
	pod, exists := new.(*v1.Pod)
	previous, _ := old.(*v1.Pod)
	if previous != nil && (!exists || previous.UID != pod.UID) {
		s.podEnded(previous)
	}
	switch {
	case !exists:
	case pod.Status.Phase == v1.PodSucceeded || pod.Status.Phase == v1.PodFailed:
		s.podEnded(pod)
	case pod.Spec.NodeName != "":
		s.podPlaced(pod)
	case pod.DeletionTimestamp != nil:
		s.podEnded(pod)
	case pod.Spec.SchedulerName == s.cfg.Name && !s.cache.Has(pod.UID):
		s.change(func(now time.Time) { s.queue.Set(NewPod(pod), now) })
	}
}

func (s *session) podPlaced(pod *v1.Pod) {
	known := s.cache.Has(pod.UID)
	s.cache.SetPod(NewPod(pod))
	s.change(func(now time.Time) {
		s.queue.Remove(pod.UID)
		if !known {
			s.queue.Move(podCame(), now)
		}
	})
}

func (s *session) podEnded(pod *v1.Pod) {
	freed := s.cache.RemovePod(pod.UID)
	s.change(func(now time.Time) {
		s.queue.Remove(pod.UID)
		if freed {
			s.queue.Move(podGone(), now)
		}
	})
}

func (s *session) setNode(old, new any) {
	before, _ := old.(*v1.Node)
	node, exists := new.(*v1.Node)
	if !exists {
		if before != nil {
			s.cache.RemoveNode(before.Name)
			s.change(func(now time.Time) { s.queue.Move(Event{Plugins: []string{pluginSpread, pluginInterPod}}, now) })
		}
		return
	}
	s.cache.SetNode(node)
	if event, matters := nodeEvent(before, node); matters {
		s.change(func(now time.Time) { s.queue.Move(event, now) })
	}
}

// nodeEvent says which refusals a node's change may lift.
func nodeEvent(before, after *v1.Node) (Event, bool) {
	if before == nil {
		return Event{}, true
	}
	var plugins []string
	if !equality.Semantic.DeepEqual(before.Status.Allocatable, after.Status.Allocatable) {
		plugins = append(plugins, pluginFit)
	}
	if before.Spec.Unschedulable != after.Spec.Unschedulable {
		plugins = append(plugins, pluginUnschedulable, pluginTaint)
	}
	if !equality.Semantic.DeepEqual(before.Spec.Taints, after.Spec.Taints) {
		plugins = append(plugins, pluginTaint, pluginSpread)
	}
	if !maps.Equal(before.Labels, after.Labels) {
		plugins = append(plugins, pluginAffinity, pluginSpread, pluginInterPod)
	}
	return Event{Plugins: plugins}, len(plugins) > 0
}

func (s *session) setNamespace(old, new any) {
	namespace, exists := new.(*v1.Namespace)
	if !exists {
		if before, ok := old.(*v1.Namespace); ok {
			s.cache.SetNamespace(before.Name, nil, false)
		}
		return
	}
	if before, ok := old.(*v1.Namespace); ok && maps.Equal(before.Labels, namespace.Labels) {
		return
	}
	s.cache.SetNamespace(namespace.Name, namespace.Labels, true)
	s.change(func(now time.Time) { s.queue.Move(Event{Plugins: []string{pluginInterPod}}, now) })
}

// change works on the queue and wakes the loop.
func (s *session) change(f func(now time.Time)) {
	s.mu.Lock()
	f(time.Now())
	s.mu.Unlock()
	s.wake()
}
