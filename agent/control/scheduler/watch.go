package scheduler

import (
	"fmt"
	"maps"
	"time"

	v1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/phase"
)

// watch feeds the cache and the queue; remove takes back the handlers that were installed, also after an error.
func (s *session) watch() (synced []cache.InformerSynced, remove func(), err error) {
	var undo []func()
	remove = func() {
		for _, f := range undo {
			f()
		}
	}
	feeds := map[cache.SharedIndexInformer]func(old, new any){
		s.pods: s.setPod, s.nodes: s.setNode, s.namespaces: s.setNamespace, s.services: s.setService,
	}
	if s.cfg.Budgets != nil {
		feeds[s.cfg.Budgets] = s.setBudget
	}
	for informer, set := range feeds {
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
	case phase.Ended(pod.Status.Phase):
		s.podEnded(pod)
	case pod.Spec.NodeName != "":
		s.podPlaced(pod)
	case pod.DeletionTimestamp != nil:
		s.podEnded(pod)
	case pod.Spec.SchedulerName == s.cfg.Name && !s.cache.Has(pod.UID):
		s.podPending(previous, NewPod(pod))
	}
}

func (s *session) podPending(previous *v1.Pod, pod *Pod) {
	node := pod.Object.Status.NominatedNodeName
	if node == "" && previous != nil && previous.UID == pod.UID() && previous.Status.NominatedNodeName != "" {
		s.cache.Withdraw(pod.UID())
	}
	s.cache.Nominate(pod, node)
	s.change(func(now time.Time) { s.queue.Set(pod, now) })
}

func (s *session) podPlaced(pod *v1.Pod) {
	known, placed := s.cache.Has(pod.UID), NewPod(pod)
	s.cache.SetPod(placed)
	s.change(func(now time.Time) {
		s.queue.Remove(pod.UID)
		if !known {
			s.queue.Move(podCame(placed, s.cache.Namespaces()), now)
		}
	})
}

func (s *session) podEnded(pod *v1.Pod) {
	left := s.cache.RemovePod(pod.UID)
	s.change(func(now time.Time) {
		s.queue.Remove(pod.UID)
		if left != nil {
			s.queue.Move(podGone(left, s.cache.Namespaces()), now)
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
		return Event{Plugins: []string{pluginUnschedulable, pluginName, pluginTaint, pluginAffinity, pluginPorts, pluginFit,
			pluginSpread, pluginInterPod}, Node: after}, true
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
	return Event{Plugins: plugins, Node: after}, len(plugins) > 0
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

// setService moves nobody: how pods are spread by default keeps none of them from a node.
func (s *session) setService(old, new any) {
	if service, ok := new.(*v1.Service); ok {
		s.cache.SetService(types.NamespacedName{Namespace: service.Namespace, Name: service.Name}, service.Spec.Selector)
	} else if service, ok := old.(*v1.Service); ok {
		s.cache.SetService(types.NamespacedName{Namespace: service.Namespace, Name: service.Name}, nil)
	}
}

func (s *session) setBudget(old, new any) {
	if budget, ok := new.(*policyv1.PodDisruptionBudget); ok {
		s.cache.SetBudget(types.NamespacedName{Namespace: budget.Namespace, Name: budget.Name}, NewBudget(budget))
	} else if budget, ok := old.(*policyv1.PodDisruptionBudget); ok {
		s.cache.SetBudget(types.NamespacedName{Namespace: budget.Namespace, Name: budget.Name}, nil)
	}
}

// change works on the queue and wakes the loop.
func (s *session) change(f func(now time.Time)) {
	s.mu.Lock()
	f(time.Now())
	s.mu.Unlock()
	s.wake()
}
