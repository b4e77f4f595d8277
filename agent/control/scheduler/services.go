package scheduler

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// Services are the selectors of the cluster's services by namespace, those that select nothing left out. Never changed: a change
// makes a new one.
type Services struct{ Selectors map[string][]labels.Set }

// of merges the selectors of the services that select the pod; nil when none does. Where two name a label, both name the pod's
// value.
func (s *Services) of(pod *Pod) labels.Set {
	if s == nil {
		return nil
	}
	var merged labels.Set
	for _, selector := range s.Selectors[pod.Object.Namespace] {
		if labels.SelectorFromSet(selector).Matches(labels.Set(pod.Object.Labels)) {
			merged = labels.Merge(merged, selector)
		}
	}
	return merged
}

// servedBy is what spreads the pod by default: the services that select it, unless it says itself how it is spread or is one of a
// replicated set, whose pods its services select alike.
func (s *Services) servedBy(pod *Pod) labels.Set {
	if pod.Replicated || len(pod.Object.Spec.TopologySpreadConstraints) > 0 {
		return nil
	}
	return s.of(pod)
}

// services keeps [Services] up: one namespace is gathered anew when something in it changed.
type services struct {
	selectors map[string]map[string]labels.Set // by namespace and name
	changed   map[string]bool
	frozen    *Services
}

func newServices() services {
	return services{selectors: map[string]map[string]labels.Set{}, changed: map[string]bool{}, frozen: &Services{}}
}

// set notes a service's selector; one that is empty selects nothing, as does a service that is gone.
func (s *services) set(name types.NamespacedName, selector labels.Set) {
	in := s.selectors[name.Namespace]
	if before, ok := in[name.Name]; maps.Equal(before, selector) && ok == (len(selector) > 0) {
		return
	}
	s.changed[name.Namespace] = true
	if len(selector) > 0 {
		if in == nil {
			in = map[string]labels.Set{}
			s.selectors[name.Namespace] = in
		}
		in[name.Name] = selector
		return
	}
	if delete(in, name.Name); len(in) == 0 {
		delete(s.selectors, name.Namespace)
	}
}

// freeze is the picture as it is now.
func (s *services) freeze() *Services {
	if len(s.changed) == 0 {
		return s.frozen
	}
	next := &Services{Selectors: maps.Clone(s.frozen.Selectors)}
	if next.Selectors == nil {
		next.Selectors = map[string][]labels.Set{}
	}
	for namespace := range s.changed {
		delete(next.Selectors, namespace)
		if in := s.selectors[namespace]; len(in) > 0 {
			for _, name := range slices.Sorted(maps.Keys(in)) {
				next.Selectors[namespace] = append(next.Selectors[namespace], in[name])
			}
		}
	}
	clear(s.changed)
	s.frozen = next
	return next
}
