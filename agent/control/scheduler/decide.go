package scheduler

import (
	"fmt"
	"math/rand/v2"
	"slices"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// View is what a decision is made on. Never changed; a later view shares the nodes that are the same.
type View struct {
	// Nodes in the order of their names, those with pods but no object included.
	Nodes []*Node
	// Namespaces that pod affinity selects by; nil is none.
	Namespaces *Namespaces
	// Services that select pods, which are then spread by default; nil is none.
	Services *Services
	// Nominated are the pods that wait for room being made on a node, by its name.
	Nominated map[string][]*Pod
	// Budgets limit who is evicted.
	Budgets []*Budget
}

// Namespaces are the labels of the cluster's namespaces by name. Never changed: a change makes a new one.
type Namespaces struct{ Labels map[string]map[string]string }

func (n *Namespaces) labels() map[string]map[string]string {
	if n == nil {
		return nil
	}
	return n.Labels
}

// Decision is what shall become of one pod.
type Decision struct {
	Pod *Pod
	// Node to bind to; empty when Refused says why there is none.
	Node    string
	Refused *Refusal
}

// Refusal is why a pod cannot be placed now, and what is done about it.
type Refusal struct {
	// Message in Kubernetes' words, for the PodScheduled condition and the event.
	Message string
	// Reason of the condition: Unschedulable or SchedulingGated.
	Reason string
	// Plugins that refused nodes, sorted: only what concerns one of them can help.
	Plugins []string
	// Preemption makes room for the pod; nil when none is made.
	Preemption *Preemption
	// Withdraw: the node that the pod was nominated for cannot be had any more.
	Withdraw bool
}

// Decide places the pods one after the other, each seeing those before it. It is pure: memo only remembers what
// would be computed again, and rng breaks ties between equally good nodes.
func Decide(view *View, pods []*Pod, memo *Memo, rng *rand.Rand) []Decision {
	d := newDecider(view, memo, rng)
	decisions := make([]Decision, len(pods))
	for i, pod := range pods {
		decisions[i] = d.place(pod)
	}
	return decisions
}

type decider struct {
	view    *View
	nodes   []*Node
	present int // nodes that exist
	memo    *Memo
	rng     *rand.Rand
	// changes are the indices of nodes that got a pod, in order.
	changes []int
	// nominated are the pods that wait for room on a node, by its index; nodeOf is the way back.
	nominated map[int][]*Pod
	nodeOf    map[types.UID]int
	// held are the nodes that are kept free for others than the pod that is being placed.
	held map[int]judgement
}

func newDecider(view *View, memo *Memo, rng *rand.Rand) *decider {
	memo.run++
	d := &decider{view: view, nodes: slices.Clone(view.Nodes), memo: memo, rng: rng,
		nominated: map[int][]*Pod{}, nodeOf: map[types.UID]int{}, held: map[int]judgement{}}
	for i, n := range d.nodes {
		if n.Object != nil {
			d.present++
		}
		if len(view.Nominated) == 0 {
			continue
		}
		for _, pod := range view.Nominated[n.Name] {
			d.nominate(pod, i)
		}
	}
	return d
}

func (d *decider) place(pod *Pod) Decision {
	if refused := unsupported(pod.Object); refused != nil {
		return Decision{Pod: pod, Refused: refused}
	}
	if d.present == 0 {
		return Decision{Pod: pod, Refused: &Refusal{Reason: v1.PodReasonUnschedulable,
			Message: "no nodes available to schedule pods"}}
	}
	e := d.memo.class(pod, d.view)
	e.refresh(d)
	d.hold(e, pod)
	defer d.release(e)
	at := d.ownNomination(e, pod)
	if at < 0 {
		at = d.best(e)
	}
	if at < 0 {
		return Decision{Pod: pod, Refused: d.refuse(e, pod)}
	}
	d.withdraw(pod.UID())
	d.nodes[at] = d.nodes[at].With(pod)
	d.changes = append(d.changes, at)
	return Decision{Pod: pod, Node: d.nodes[at].Name}
}

// unsupported refuses a pod that asks for what the scheduler cannot give, rather than place it wrongly.
func unsupported(pod *v1.Pod) *Refusal {
	refuse := func(plugin, message string) *Refusal {
		return &Refusal{Reason: v1.PodReasonUnschedulable, Plugins: []string{plugin}, Message: message}
	}
	if len(pod.Spec.SchedulingGates) > 0 {
		r := refuse(pluginGates, "Scheduling is blocked due to non-empty scheduling gates")
		r.Reason = v1.PodReasonSchedulingGated
		return r
	}
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.PersistentVolumeClaim != nil || v.Ephemeral != nil {
			return refuse(pluginVolumes, fmt.Sprintf("volume %q needs a PersistentVolumeClaim, which Podvine does not serve yet", v.Name))
		}
	}
	if len(pod.Spec.ResourceClaims) > 0 {
		return refuse(pluginClaims, fmt.Sprintf("resource claim %q: dynamic resource allocation is not served by Podvine yet",
			pod.Spec.ResourceClaims[0].Name))
	}
	if pod.Spec.SchedulingGroup != nil {
		return refuse("GangScheduling", "scheduling groups are not served by Podvine yet")
	}
	return nil
}

// pinned is the name of the one node that a pod's required affinity allows, as a DaemonSet's pods have it.
func pinned(pod *v1.Pod) (string, bool) {
	a := pod.Spec.Affinity
	if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return "", false
	}
	terms := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
	if len(terms) != 1 {
		return "", false
	}
	for _, field := range terms[0].MatchFields {
		if field.Key == metav1.ObjectNameField && field.Operator == v1.NodeSelectorOpIn && len(field.Values) == 1 {
			return field.Values[0], true
		}
	}
	return "", false
}
