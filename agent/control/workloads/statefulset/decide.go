package statefulset

import (
	"cmp"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podvine/podvine/agent/control/workloads/history"
	"github.com/podvine/podvine/agent/control/workloads/pods"
	"github.com/podvine/podvine/agent/phase"
)

// View is what a decision about one StatefulSet is made on. Nothing in it is changed.
type View struct {
	Set *appsv1.StatefulSet
	// Pods and Revisions of the namespace whose controller is the set, or that have none.
	Pods      []*v1.Pod
	Revisions []*appsv1.ControllerRevision
	// Claims of the set's pods, by name.
	Claims map[string]*v1.PersistentVolumeClaim
	// Deleted are those of Pods that the loop deleted already.
	Deleted map[types.UID]bool
}

// Removal is a pod to delete.
type Removal struct {
	Pod *v1.Pod
	// Reason of an event beyond that of the deletion; "" is none.
	Reason string
	// Exact says that the pod may go only as it was seen: it may have become available since.
	Exact bool
}

// Plan is what shall be done, in this order.
type Plan struct {
	Adopt, Release []*v1.Pod
	AdoptRevisions []*appsv1.ControllerRevision
	// NewRevision is to be made before anything that follows can be decided.
	NewRevision *appsv1.ControllerRevision
	// Renumbered is an older revision that becomes the newest.
	Renumbered *appsv1.ControllerRevision

	UpdateClaims, CreateClaims []*v1.PersistentVolumeClaim
	Update                     []*v1.Pod // labels only
	Create                     []*v1.Pod
	Delete                     []Removal
	// Status that the set should report.
	Status          appsv1.StatefulSetStatus
	DeleteRevisions []*appsv1.ControllerRevision
	// Again is when the decision will change by the passing of time alone (minReadySeconds); 0 is never.
	Again time.Duration
}

// Decide is pure.
func Decide(view View, now time.Time) (Plan, error) {
	d := decision{View: view, now: now, set: view.Set}
	d.plan.Status = *d.set.Status.DeepCopy()
	d.plan.Status.ObservedGeneration = d.set.Generation
	selector, err := metav1.LabelSelectorAsSelector(d.set.Spec.Selector)
	if err != nil || selector.Empty() {
		return d.plan, nil // a set that selects everything must not take everything
	}
	matches := func(pod *v1.Pod) bool {
		_, named := ordinal(d.set, pod.Name)
		return named && selector.Matches(labels.Set(pod.Labels))
	}
	d.members, d.plan.Adopt, d.plan.Release = pods.Claim(d.Pods, d.set, matches, pods.Any)
	if err := d.revise(selector); err != nil || d.plan.NewRevision != nil {
		return d.plan, err
	}
	d.sort()
	d.report()
	if d.set.DeletionTimestamp == nil {
		d.keepClaims()
		if err := d.step(); err != nil {
			return d.plan, err
		}
	}
	d.complete()
	d.prune()
	return d.plan, nil
}

// decision is one decision under way.
type decision struct {
	View
	set  *appsv1.StatefulSet
	now  time.Time
	plan Plan

	members         []*v1.Pod
	revisions       []*appsv1.ControllerRevision // sorted
	current, update *appsv1.ControllerRevision

	// wanted holds the pods of the set's ordinals, nil where there is none; surplus those beyond, the highest first.
	wanted, surplus []*v1.Pod
}

// revise finds the revisions that pods are and shall be of.
func (d *decision) revise(selector labels.Selector) error {
	d.revisions, d.plan.AdoptRevisions = history.Claim(d.Revisions, d.set, selector)
	fresh, err := history.New(d.set, kind(), &d.set.Spec.Template, history.Next(d.revisions), d.set.Status.CollisionCount)
	if err != nil {
		return err
	}
	found, renumbered := history.Find(d.revisions, fresh)
	switch {
	case found == nil:
		d.plan.NewRevision = fresh
		return nil
	case renumbered:
		d.plan.Renumbered = found
	}
	d.update, d.current = found, found
	for _, r := range d.revisions {
		if r.Name == d.set.Status.CurrentRevision {
			d.current = r
		}
	}
	return nil
}

// sort puts the pods into their places.
func (d *decision) sort() {
	d.wanted = make([]*v1.Pod, size(d.set))
	for _, pod := range d.members {
		n, _ := ordinal(d.set, pod.Name)
		if i := n - first(d.set); i >= 0 && i < len(d.wanted) {
			d.wanted[i] = pod
		} else {
			d.surplus = append(d.surplus, pod)
		}
	}
	slices.SortFunc(d.surplus, func(a, b *v1.Pod) int {
		x, _ := ordinal(d.set, a.Name)
		y, _ := ordinal(d.set, b.Name)
		return cmp.Compare(y, x)
	})
}

func (d *decision) terminating(pod *v1.Pod) bool {
	return pod.DeletionTimestamp != nil || d.Deleted[pod.UID]
}

func running(pod *v1.Pod) bool {
	ready, _ := pods.Ready(pod)
	return ready && pod.Status.Phase == v1.PodRunning
}

// available tells whether the pod counts as up: ready for long enough, and not being deleted.
func (d *decision) available(pod *v1.Pod) bool {
	if pod == nil || d.terminating(pod) || !running(pod) {
		return false
	}
	ok, left := pods.Available(pod, d.set.Spec.MinReadySeconds, d.now)
	d.plan.Again = pods.Sooner(d.plan.Again, left)
	return ok
}

func (d *decision) healthy(pod *v1.Pod) bool { return running(pod) && !d.terminating(pod) }

// report counts the pods.
func (d *decision) report() {
	s := &d.plan.Status
	s.CurrentRevision, s.UpdateRevision = d.current.Name, d.update.Name
	s.Replicas, s.ReadyReplicas, s.AvailableReplicas, s.CurrentReplicas, s.UpdatedReplicas = 0, 0, 0, 0, 0
	if s.CollisionCount == nil {
		s.CollisionCount = new(int32)
	}
	for _, pod := range d.members {
		s.Replicas++
		if running(pod) {
			s.ReadyReplicas++
		}
		if d.available(pod) {
			s.AvailableReplicas++
		}
		if d.terminating(pod) {
			continue
		}
		if revisionOf(pod) == d.current.Name {
			s.CurrentReplicas++
		}
		if revisionOf(pod) == d.update.Name {
			s.UpdatedReplicas++
		}
	}
}

func revisionOf(pod *v1.Pod) string { return pod.Labels[appsv1.StatefulSetRevisionLabel] }

// keepClaims makes the claims of all pods belong to whom they end with.
func (d *decision) keepClaims() {
	for _, pod := range d.members {
		n, _ := ordinal(d.set, pod.Name)
		inRange := n >= first(d.set) && n < first(d.set)+len(d.wanted)
		for _, name := range claimNames(d.set, n) {
			claim := d.Claims[name]
			if claim == nil || claim.DeletionTimestamp != nil {
				continue
			}
			owners := claimOwners(d.set, pod, inRange, claim.OwnerReferences)
			if !equality.Semantic.DeepEqual(owners, claim.OwnerReferences) {
				next := claim.DeepCopy()
				next.OwnerReferences = owners
				d.plan.UpdateClaims = append(d.plan.UpdateClaims, next)
			}
		}
	}
}

// step plans what may be done now: first the pods that are wanted, from the lowest, then those that are too many, from
// the highest, then those of an older revision, from the highest. Pods in order wait for each other.
func (d *decision) step() error {
	ordered := d.set.Spec.PodManagementPolicy != appsv1.ParallelPodManagement
	for i, pod := range d.wanted {
		wait, err := d.want(i, pod)
		if err != nil || wait && ordered {
			return err
		}
	}
	if d.shrink(ordered) && ordered {
		return nil
	}
	if d.set.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType {
		d.roll()
	}
	return nil
}

// want plans what a wanted pod needs; wait says that the pods behind it have to wait for it.
func (d *decision) want(i int, pod *v1.Pod) (wait bool, err error) {
	n := first(d.set) + i
	switch {
	case pod == nil:
		return true, d.make(n)
	case d.terminating(pod):
		return true, nil // its name is free when it is known gone, not before
	case pod.Status.Phase == v1.PodFailed:
		d.plan.Delete = append(d.plan.Delete, Removal{Pod: pod, Reason: "RecreatingFailedPod"})
		return true, nil
	case pod.Status.Phase == v1.PodSucceeded:
		d.plan.Delete = append(d.plan.Delete, Removal{Pod: pod, Reason: "RecreatingTerminatedPod"})
		return true, nil
	}
	if pod.Status.Phase == v1.PodPending {
		d.makeClaims(n)
	}
	if next := identified(pod, n); next != nil {
		d.plan.Update = append(d.plan.Update, next)
	}
	return !d.available(pod), nil
}

// make plans the pod of an ordinal and its claims.
func (d *decision) make(n int) error {
	for _, name := range claimNames(d.set, n) {
		if claim := d.Claims[name]; claim != nil && stale(claim, podName(d.set, n)) {
			return nil // its end brings the next decision
		}
	}
	template, revision := &d.set.Spec.Template, d.update
	if d.keepsCurrent(n) && d.current != d.update {
		old, err := history.Template(d.current)
		if err != nil {
			return err
		}
		template, revision = old, d.current
	}
	d.makeClaims(n)
	d.plan.Create = append(d.plan.Create, newPod(d.set, template, revision.Name, n))
	return nil
}

func (d *decision) makeClaims(n int) {
	for i := range d.set.Spec.VolumeClaimTemplates {
		if template := &d.set.Spec.VolumeClaimTemplates[i]; d.Claims[claimName(d.set, template.Name, n)] == nil {
			d.plan.CreateClaims = append(d.plan.CreateClaims, newClaim(d.set, template, n))
		}
	}
}

// keepsCurrent tells whether a new pod of the ordinal is of the revision before the update: it is below the partition.
func (d *decision) keepsCurrent(n int) bool {
	strategy := &d.set.Spec.UpdateStrategy
	if strategy.Type != appsv1.RollingUpdateStatefulSetStrategyType {
		return false
	}
	if strategy.RollingUpdate == nil {
		return n < first(d.set)+int(d.set.Status.CurrentReplicas)
	}
	return n < first(d.set)+d.partition()
}

func (d *decision) partition() int {
	if r := d.set.Spec.UpdateStrategy.RollingUpdate; r != nil {
		return int(pods.Value(r.Partition, 0))
	}
	return 0
}

// shrink plans the end of pods beyond the wanted ones; wait says that more is to be done before anything else.
func (d *decision) shrink(ordered bool) (wait bool) {
	// The lowest pod that is not healthy may end: nothing that it waits for could make it healthy. Nothing at all could one that has
	// ended by itself; Kubernetes waits for ever where two such are left.
	var lowest *v1.Pod
	for i := len(d.surplus) - 1; i >= 0 && lowest == nil; i-- {
		if !d.healthy(d.surplus[i]) {
			lowest = d.surplus[i]
		}
	}
	for _, pod := range d.surplus {
		switch {
		case d.terminating(pod):
		case ordered && pod != lowest && !phase.Ended(pod.Status.Phase) && !d.available(pod):
		default:
			d.plan.Delete = append(d.plan.Delete, Removal{Pod: pod})
		}
		if ordered {
			return true
		}
	}
	return false
}

// roll plans the end of pods of an older revision, the highest first, as many as may be away: pods that are not available
// count, wherever they are, and to replace one of those costs nothing.
func (d *decision) roll() {
	budget := maxUnavailable(d.set)
	going := map[*v1.Pod]bool{}
	for _, r := range d.plan.Delete {
		going[r.Pod] = true
	}
	for _, pod := range d.wanted {
		if !d.available(pod) {
			budget--
		}
	}
	for i := len(d.wanted) - 1; i >= d.partition(); i-- {
		pod := d.wanted[i]
		if pod == nil || going[pod] || d.terminating(pod) || revisionOf(pod) == d.update.Name {
			continue
		}
		if d.available(pod) {
			if budget--; budget < 0 {
				return // those below wait for it
			}
		}
		d.plan.Delete = append(d.plan.Delete, Removal{Pod: pod, Exact: true})
	}
}

// maxUnavailable is how many of the wanted pods may be away; percentages are rounded up.
func maxUnavailable(set *appsv1.StatefulSet) int {
	r := set.Spec.UpdateStrategy.RollingUpdate
	if r == nil || r.MaxUnavailable == nil {
		return 1
	}
	n, err := intstr.GetScaledValueFromIntOrPercent(r.MaxUnavailable, size(set), true)
	if err != nil {
		return 1
	}
	return max(1, n)
}

// complete makes the update's revision the current one when all pods are of it.
func (d *decision) complete() {
	s, count := &d.plan.Status, int32(len(d.wanted))
	if d.set.Spec.UpdateStrategy.Type == appsv1.RollingUpdateStatefulSetStrategyType &&
		s.UpdatedReplicas == count && s.ReadyReplicas == count && s.Replicas == count {
		s.CurrentReplicas, s.CurrentRevision = s.UpdatedReplicas, s.UpdateRevision
	}
}

// prune plans the end of revisions that nothing needs, beyond the set's limit.
func (d *decision) prune() {
	needed := map[string]bool{d.current.Name: true, d.update.Name: true}
	for _, pod := range d.members {
		needed[revisionOf(pod)] = true
	}
	d.plan.DeleteRevisions = history.Surplus(d.revisions, func(r *appsv1.ControllerRevision) bool { return needed[r.Name] },
		pods.Value(d.set.Spec.RevisionHistoryLimit, 10))
}
