package daemonset

import (
	"cmp"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podvine/podvine/agent/control/workloads/history"
	"github.com/podvine/podvine/agent/control/workloads/pods"
)

const (
	// BurstReplicas is the most pods created or deleted for one DaemonSet in one step, as in Kubernetes.
	BurstReplicas = 250
	// FailedFirstSeconds and FailedMaxSeconds bound how long a failed pod stays before it is replaced: its age, so that
	// one that fails at once is not replaced again and again.
	FailedFirstSeconds = 1
	FailedMaxSeconds   = 900
)

// View is what a decision about one DaemonSet is made on. Nothing in it is changed.
type View struct {
	Set   *appsv1.DaemonSet
	Nodes []*v1.Node
	// Pods and Revisions of the namespace whose controller is the set, or that have none.
	Pods      []*v1.Pod
	Revisions []*appsv1.ControllerRevision
	// Unseen says that the loop created pods that Pods does not show yet, and Deleted are those of Pods that it deleted.
	Unseen  bool
	Deleted map[types.UID]bool
	// Failures is how often in a row pods of a node failed.
	Failures map[string]int
}

// Plan is what shall be done, in this order.
type Plan struct {
	Adopt, Release []*v1.Pod
	AdoptRevisions []*appsv1.ControllerRevision
	// NewRevision is to be made before anything that follows can be decided.
	NewRevision *appsv1.ControllerRevision
	// Renumbered is an older revision that becomes the newest.
	Renumbered *appsv1.ControllerRevision

	// Ended are pods of Delete that failed or ended by themselves.
	Ended  []*v1.Pod
	Delete []*v1.Pod
	// Create names the nodes to make a pod for, of the revision with Hash.
	Create []string
	Hash   string
	// Status that the set should report.
	Status          appsv1.DaemonSetStatus
	DeleteRevisions []*appsv1.ControllerRevision
	// Again is when the decision will change by the passing of time alone; 0 is never.
	Again time.Duration
}

// place is a node, what belongs there and what is there.
type place struct {
	node      *v1.Node
	run, stay bool
	pods      []*v1.Pod // the oldest first
}

// decision is one decision under way.
type decision struct {
	View
	set       *appsv1.DaemonSet
	now       time.Time
	plan      Plan
	members   []*v1.Pod
	revisions []*appsv1.ControllerRevision // sorted
	places    []*place
	strays    []*v1.Pod // of nodes that are gone
	doomed    map[types.UID]bool
}

// Decide is pure.
func Decide(view View, now time.Time) (Plan, error) {
	d := decision{View: view, set: view.Set, now: now, doomed: map[types.UID]bool{}}
	d.plan.Status = *d.set.Status.DeepCopy()
	d.plan.Status.ObservedGeneration = d.set.Generation
	selector, err := metav1.LabelSelectorAsSelector(d.set.Spec.Selector)
	if err != nil || selector.Empty() {
		return d.plan, nil // a set that selects everything must not take everything
	}
	matches := func(pod *v1.Pod) bool { return selector.Matches(labels.Set(pod.Labels)) }
	d.members, d.plan.Adopt, d.plan.Release = pods.Claim(d.Pods, d.set, matches, pods.Any)
	if err := d.revise(selector); err != nil || d.plan.NewRevision != nil {
		return d.plan, err
	}
	d.sort()
	if d.set.DeletionTimestamp == nil && !d.Unseen {
		d.manage()
		if len(d.plan.Create) == 0 && len(d.plan.Delete) == 0 && d.set.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
			d.roll()
		}
		d.plan.Create = d.plan.Create[:min(len(d.plan.Create), BurstReplicas)]
		d.plan.Delete = d.plan.Delete[:min(len(d.plan.Delete), BurstReplicas)]
	}
	d.report()
	d.prune()
	return d.plan, nil
}

// revise finds the revision that pods shall be of.
func (d *decision) revise(selector labels.Selector) error {
	d.revisions, d.plan.AdoptRevisions = history.Claim(d.Revisions, d.set, selector)
	fresh, err := history.New(d.set, kind(), &d.set.Spec.Template, history.Next(d.revisions), d.set.Status.CollisionCount)
	if err != nil {
		return err
	}
	fresh.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] = fresh.Labels[history.HashLabel]
	found, renumbered := history.Find(d.revisions, fresh)
	switch {
	case found == nil:
		d.plan.NewRevision = fresh
		return nil
	case renumbered:
		d.plan.Renumbered = found
	}
	d.plan.Hash = found.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]
	return nil
}

// sort brings nodes and pods together.
func (d *decision) sort() {
	byName := map[string]*place{}
	for _, node := range d.Nodes {
		p := &place{node: node}
		p.run, p.stay = fits(d.set, node)
		d.places = append(d.places, p)
		byName[node.Name] = p
	}
	slices.SortFunc(d.places, func(a, b *place) int { return cmp.Compare(a.node.Name, b.node.Name) })
	for _, pod := range d.members {
		if p := byName[nodeOf(pod)]; p != nil {
			p.pods = append(p.pods, pod)
		} else {
			d.strays = append(d.strays, pod)
		}
	}
	for _, p := range d.places {
		slices.SortFunc(p.pods, func(a, b *v1.Pod) int {
			return cmp.Or(a.CreationTimestamp.Time.Compare(b.CreationTimestamp.Time), cmp.Compare(a.UID, b.UID))
		})
	}
}

func (d *decision) leaving(pod *v1.Pod) bool {
	return pod.DeletionTimestamp != nil || d.Deleted[pod.UID] || d.doomed[pod.UID]
}

func (d *decision) remove(pod *v1.Pod) {
	if !d.leaving(pod) {
		d.doomed[pod.UID] = true
		d.plan.Delete = append(d.plan.Delete, pod)
	}
}

func (d *decision) available(pod *v1.Pod) bool {
	if pod == nil || d.leaving(pod) {
		return false
	}
	ok, left := pods.Available(pod, d.set.Spec.MinReadySeconds, d.now)
	d.plan.Again = pods.Sooner(d.plan.Again, left)
	return ok
}

func (d *decision) updated(pod *v1.Pod) bool {
	return pod.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] == d.plan.Hash
}

// manage plans what each node needs: one pod where it belongs, none where it may not stay. During a roll-out with surge,
// an old and a new pod may stand beside each other.
func (d *decision) manage() {
	for _, pod := range d.strays {
		if pod.Spec.NodeName == "" { // never placed, and never to be; what was placed is for who removes a node's pods
			d.remove(pod)
		}
	}
	for _, p := range d.places {
		switch {
		case !p.stay:
			for _, pod := range p.pods {
				d.remove(pod)
			}
		case p.run && len(p.pods) == 0:
			d.plan.Create = append(d.plan.Create, p.node.Name)
		default:
			d.tidy(p)
		}
	}
}

// tidy ends what failed, and what is too much, on a node.
func (d *decision) tidy(p *place) {
	var live []*v1.Pod
	for _, pod := range p.pods {
		switch {
		case d.leaving(pod):
		case pod.Status.Phase == v1.PodFailed:
			if left := d.patience(p.node.Name, pod); left > 0 {
				d.plan.Again = pods.Sooner(d.plan.Again, left)
				continue
			}
			d.plan.Ended = append(d.plan.Ended, pod)
			d.remove(pod)
		case pod.Status.Phase == v1.PodSucceeded:
			d.plan.Ended = append(d.plan.Ended, pod)
			d.remove(pod)
		default:
			live = append(live, pod)
		}
	}
	// The best is what is up, and then what is oldest.
	slices.SortStableFunc(live, func(a, b *v1.Pod) int {
		switch up := d.available(a); {
		case up == d.available(b):
			return 0
		case up:
			return -1
		}
		return 1
	})
	if !d.surges() {
		for i := 1; i < len(live); i++ {
			d.remove(live[i])
		}
		return
	}
	var newest, oldest *v1.Pod
	for _, pod := range live {
		kept := &oldest
		if d.updated(pod) {
			kept = &newest
		}
		if *kept == nil {
			*kept = pod
		} else {
			d.remove(pod)
		}
	}
	if newest != nil && oldest != nil && d.available(newest) {
		d.remove(oldest)
	}
}

// patience is how long a failed pod is left, so that a node where pods fail is not kept busy with them.
func (d *decision) patience(node string, pod *v1.Pod) time.Duration {
	wait := FailedFirstSeconds << min(d.Failures[node], 10)
	return pod.CreationTimestamp.Add(time.Duration(min(wait, FailedMaxSeconds)) * time.Second).Sub(d.now)
}

// budgets are how many nodes may have two pods, or none, during a roll-out.
func (d *decision) budgets() (surge, unavailable int) {
	r := d.set.Spec.UpdateStrategy.RollingUpdate
	if d.set.Spec.UpdateStrategy.Type != appsv1.RollingUpdateDaemonSetStrategyType || r == nil {
		return 0, 0
	}
	wanted := 0
	for _, p := range d.places {
		if p.run {
			wanted++
		}
	}
	scaled := func(v *intstr.IntOrString) int {
		if v == nil {
			return 0
		}
		n, err := intstr.GetScaledValueFromIntOrPercent(v, wanted, true)
		if err != nil {
			return 0
		}
		return n
	}
	surge, unavailable = scaled(r.MaxSurge), scaled(r.MaxUnavailable)
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, unavailable
}

// roll plans the next pods of a roll-out. On each node that may run one there is exactly one pod now, or two under surge.
func (d *decision) roll() {
	surge, unavailable := d.budgets()
	var replace, candidates []*place
	for _, p := range d.places {
		if !p.run {
			continue
		}
		old, fresh := d.pair(p)
		switch {
		case fresh != nil && old != nil:
			surge-- // the new one is not available yet
		case fresh != nil:
			if !d.available(fresh) {
				unavailable--
			}
		case old == nil:
			unavailable--
		case !d.available(old):
			unavailable--
			replace = append(replace, p)
		default:
			candidates = append(candidates, p)
		}
	}
	withSurge := d.surges()
	budget := unavailable
	if withSurge {
		budget = surge
	}
	for _, p := range append(replace, candidates[:max(0, min(budget, len(candidates)))]...) {
		old, _ := d.pair(p)
		if withSurge {
			d.plan.Create = append(d.plan.Create, p.node.Name)
		} else {
			d.remove(old)
		}
	}
}

func (d *decision) surges() bool {
	surge, _ := d.budgets()
	return surge > 0
}

// pair are the live pods of an older and of the newest revision on a node.
func (d *decision) pair(p *place) (old, fresh *v1.Pod) {
	for _, pod := range p.pods {
		switch {
		case d.leaving(pod):
		case d.updated(pod):
			fresh = pod
		default:
			old = pod
		}
	}
	return old, fresh
}

// report counts nodes.
func (d *decision) report() {
	s := &d.plan.Status
	s.DesiredNumberScheduled, s.CurrentNumberScheduled, s.NumberMisscheduled, s.NumberReady = 0, 0, 0, 0
	s.UpdatedNumberScheduled, s.NumberAvailable = 0, 0
	for _, p := range d.places {
		if !p.run {
			if len(p.pods) > 0 {
				s.NumberMisscheduled++
			}
			continue
		}
		s.DesiredNumberScheduled++
		if len(p.pods) == 0 {
			continue
		}
		s.CurrentNumberScheduled++
		pod := p.pods[0]
		if old, fresh := d.pair(p); fresh != nil && (old == nil || d.available(fresh)) {
			pod = fresh
		}
		if ready, _ := pods.Ready(pod); ready {
			s.NumberReady++
		}
		if d.available(pod) {
			s.NumberAvailable++
		}
		if d.updated(pod) && !d.leaving(pod) {
			s.UpdatedNumberScheduled++
		}
	}
	s.NumberUnavailable = s.DesiredNumberScheduled - s.NumberAvailable
}

// prune plans the end of revisions that nothing needs, beyond the set's limit.
func (d *decision) prune() {
	needed := map[string]bool{d.plan.Hash: true}
	for _, pod := range d.members {
		needed[pod.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]] = true
	}
	d.plan.DeleteRevisions = history.Surplus(d.revisions, func(r *appsv1.ControllerRevision) bool {
		return needed[r.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]]
	}, pods.Value(d.set.Spec.RevisionHistoryLimit, 10))
}
