package scheduler

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestEventsHelp: a waiting pod is tried again after what may help it, and not after what cannot.
func TestEventsHelp(t *testing.T) {
	selector := &metav1.LabelSelector{MatchLabels: map[string]string{"app": "x"}}
	labelled := func(app string) *Pod {
		p := testPod("other", "", "")
		p.Labels = map[string]string{"app": app}
		p.Spec.Containers[0].Ports = []v1.ContainerPort{{HostPort: 80}}
		return NewPod(p)
	}
	waiting := testPod("waiting", "2", "")
	waiting.Spec.NodeSelector = map[string]string{"disk": "ssd"}
	waiting.Spec.Containers[0].Ports = []v1.ContainerPort{{HostPort: 81}}
	terms := []v1.PodAffinityTerm{{TopologyKey: v1.LabelHostname, LabelSelector: selector}}
	waiting.Spec.Affinity = &v1.Affinity{PodAffinity: &v1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}}
	waiting.Spec.TopologySpreadConstraints = []v1.TopologySpreadConstraint{
		{TopologyKey: v1.LabelHostname, LabelSelector: selector, MaxSkew: 1, WhenUnsatisfiable: v1.DoNotSchedule}}
	small, big := testNode("small", "1", "4Gi", 10), testNode("big", "4", "4Gi", 10)
	tainted := testNode("tainted", "4", "4Gi", 10)
	tainted.Spec.Taints = []v1.Taint{{Key: "k", Effect: v1.TaintEffectNoSchedule}}
	tainted.Spec.Unschedulable = true
	tainted.Labels = map[string]string{"disk": "ssd"}
	came := func(n *v1.Node) Event {
		event, _ := nodeEvent(nil, n)
		return event
	}
	for _, test := range []struct {
		name   string
		event  Event
		plugin string
		want   bool
	}{
		{"a node with room", came(big), pluginFit, true},
		{"a node too small when empty", came(small), pluginFit, false},
		{"a tainted node", came(tainted), pluginTaint, false},
		{"an open node", came(big), pluginTaint, true},
		{"a cordoned node", came(tainted), pluginUnschedulable, false},
		{"a node without the label", came(big), pluginAffinity, false},
		{"a node with the label", came(tainted), pluginAffinity, true},
		{"room on some node", podGone(labelled("y"), nil), pluginFit, true},
		{"another port is free", podGone(labelled("y"), nil), pluginPorts, false},
		{"a friend came", podCame(labelled("x"), nil), pluginInterPod, true},
		{"a stranger came", podCame(labelled("y"), nil), pluginInterPod, false},
		{"a counted pod went", podGone(labelled("x"), nil), pluginSpread, true},
		{"another pod went", podGone(labelled("y"), nil), pluginSpread, false},
		{"an event of another plugin", podCame(labelled("x"), nil), pluginFit, false},
		{"whatever", Event{}, pluginFit, true},
	} {
		if got := test.event.helps(NewPod(waiting), []string{test.plugin}); got != test.want {
			t.Errorf("%s, refused by %s: helps %v, want %v", test.name, test.plugin, got, test.want)
		}
	}
}
