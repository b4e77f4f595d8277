package scheduler

import (
	"slices"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"
)

// Event is a change of the cluster that may help waiting pods. It names what changed, so that only those are tried
// again whom it can help; a pod tried in vain costs as much as one placed.
type Event struct {
	// Plugins whose refusals it may lift; empty: every one.
	Plugins []string
	// Node came or changed to this, if any.
	Node *v1.Node
	// Pod came to a node, or went from one, if any.
	Pod  *Pod
	Gone bool
	// Namespaces are the labels that the pods' terms select namespaces by.
	Namespaces *Namespaces
}

// podGone is the event of a pod having left its node.
func podGone(pod *Pod, namespaces *Namespaces) Event {
	return Event{Plugins: []string{pluginFit, pluginPorts, pluginSpread, pluginInterPod}, Pod: pod, Gone: true, Namespaces: namespaces}
}

// podCame is the event of a pod having got a node: it may be what another one's affinity waits for.
func podCame(pod *Pod, namespaces *Namespaces) Event {
	return Event{Plugins: []string{pluginSpread, pluginInterPod}, Pod: pod, Namespaces: namespaces}
}

// helps tells whether a pod that the plugins refused may find a node now.
func (e *Event) helps(waiting *Pod, plugins []string) bool {
	if len(e.Plugins) == 0 || len(plugins) == 0 {
		return true
	}
	return slices.ContainsFunc(e.Plugins, func(plugin string) bool {
		return slices.Contains(plugins, plugin) && e.lifts(plugin, waiting)
	})
}

// lifts tells whether the plugin may no longer refuse the pod. When in doubt, it may not.
func (e *Event) lifts(plugin string, waiting *Pod) bool {
	switch {
	case e.Node != nil:
		return nodeLifts(plugin, e.Node, waiting)
	case e.Pod != nil && e.Gone:
		return e.goneLifts(plugin, waiting)
	case e.Pod != nil && plugin == pluginInterPod:
		labels := e.Namespaces.labels()
		return slices.ContainsFunc(waiting.terms.required, func(t term) bool { return t.matches(e.Pod.Object, labels) })
	case e.Pod != nil && plugin == pluginSpread:
		return spreadMinds(waiting, e.Pod)
	}
	return true
}

func nodeLifts(plugin string, node *v1.Node, waiting *Pod) bool {
	spec := &waiting.Object.Spec
	switch plugin {
	case pluginFit:
		short, _ := (&constraints{pod: waiting, scalars: scalarNames(waiting)}).shortages(NewNode(node))
		return short == 0
	case pluginUnschedulable:
		return !node.Spec.Unschedulable || toleratesCordon(spec.Tolerations)
	case pluginTaint:
		return (&constraints{pod: waiting}).tolerates(node.Spec.Taints)
	case pluginAffinity:
		ok, err := nodeaffinity.GetRequiredNodeAffinity(waiting.Object).Match(node)
		return ok || err != nil
	}
	return true
}

func toleratesCordon(tolerations []v1.Toleration) bool {
	cordon := v1.Taint{Key: v1.TaintNodeUnschedulable, Effect: v1.TaintEffectNoSchedule}
	return corev1.TolerationsTolerateTaint(klog.Logger{}, tolerations, &cordon, true)
}

func (e *Event) goneLifts(plugin string, waiting *Pod) bool {
	labels := e.Namespaces.labels()
	switch plugin {
	case pluginPorts:
		return slices.ContainsFunc(waiting.Ports, func(p Port) bool { return slices.ContainsFunc(e.Pod.Ports, p.conflicts) })
	case pluginSpread:
		return spreadMinds(waiting, e.Pod)
	case pluginInterPod:
		return slices.ContainsFunc(waiting.terms.anti, func(t term) bool { return t.matches(e.Pod.Object, labels) }) ||
			slices.ContainsFunc(e.Pod.terms.anti, func(t term) bool { return t.matches(waiting.Object, labels) }) ||
			// Its own group may begin anew once none of it is left.
			len(waiting.terms.required) > 0 && matchesAll(waiting.terms.required, e.Pod.Object, labels)
	}
	return true
}

// spreadMinds tells whether a pod counts, or counted before it began to leave, for the hard constraints of another.
func spreadMinds(waiting, other *Pod) bool {
	for i := range waiting.Object.Spec.TopologySpreadConstraints {
		constraint := &waiting.Object.Spec.TopologySpreadConstraints[i]
		if constraint.WhenUnsatisfiable != v1.DoNotSchedule {
			continue
		}
		if t := newSpreadTerm(waiting.Object, constraint); t.selects(other) {
			return true
		}
	}
	return false
}
