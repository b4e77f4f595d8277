package deployment

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/podvine/podvine/agent/control/workloads/pods"
	"github.com/podvine/podvine/agent/phase"
)

// View is what a decision about one Deployment is made on. Nothing in it is changed.
type View struct {
	Deployment *appsv1.Deployment
	// Sets of the namespace whose controller is the Deployment, or that have none.
	Sets []*appsv1.ReplicaSet
	// Pods of these sets by the set's UID; only the Recreate strategy looks at them.
	Pods map[types.UID][]*v1.Pod
}

// Plan is what shall be done, in this order.
type Plan struct {
	Adopt, Release []*appsv1.ReplicaSet
	// Revision that the Deployment shall be annotated with; empty leaves it.
	Revision string
	// Create is the set for a new template.
	Create *appsv1.ReplicaSet
	// Update are changed copies of sets.
	Update []*appsv1.ReplicaSet
	// Events tell of the sizes changed by Create and Update.
	Events []string
	// Delete are sets beyond the history limit.
	Delete []*appsv1.ReplicaSet
	Status appsv1.DeploymentStatus
	// Again is when the passing of time alone may change the status; 0 is never.
	Again time.Duration
}

// rollout is a decision in the making: copies of the sets, changed as planned.
type rollout struct {
	d        *appsv1.Deployment
	now      time.Time
	current  *appsv1.ReplicaSet // the one of the template; nil when there is none
	old      []*appsv1.ReplicaSet
	original map[types.UID]*appsv1.ReplicaSet
	pods     map[types.UID][]*v1.Pod
	status   appsv1.DeploymentStatus // with the conditions so far
	plan     Plan
}

// Decide is pure.
func Decide(view View, now time.Time) Plan {
	d := view.Deployment
	r := &rollout{d: d, now: now, pods: view.Pods, original: map[types.UID]*appsv1.ReplicaSet{}, status: *d.Status.DeepCopy()}
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil || selector.Empty() {
		r.plan.Status = r.status
		r.plan.Status.ObservedGeneration = d.Generation
		return r.plan
	}
	r.claim(view.Sets, selector)
	switch {
	case d.DeletionTimestamp != nil:
		r.finish(false)
		return r.plan
	case d.Spec.Paused:
		r.notePause()
		r.identify(false)
		r.scaleAll()
		r.prune()
		r.finish(false)
	case r.resized():
		r.notePause()
		r.identify(false)
		r.scaleAll()
		r.finish(false)
	case rolling(d):
		r.notePause()
		r.identify(true)
		r.roll()
		r.finish(true)
	default:
		r.notePause()
		r.recreate()
		r.finish(true)
	}
	r.collect()
	return r.plan
}

// claim sorts the sets into those of the Deployment, those to adopt and those to release, and finds the one of
// the current template: the oldest that has it.
func (r *rollout) claim(sets []*appsv1.ReplicaSet, selector labels.Selector) {
	var mine []*appsv1.ReplicaSet
	for _, set := range sets {
		owner, matches := metav1.GetControllerOfNoCopy(set), selector.Matches(labels.Set(set.Labels))
		leaving := r.d.DeletionTimestamp != nil
		switch {
		case owner != nil && owner.UID != r.d.UID:
			continue
		case owner != nil && !matches:
			if !leaving {
				r.plan.Release = append(r.plan.Release, set)
			}
			continue
		case owner == nil && (!matches || leaving || set.DeletionTimestamp != nil):
			continue
		case owner == nil:
			r.plan.Adopt = append(r.plan.Adopt, set)
		}
		r.original[set.UID] = set
		mine = append(mine, set.DeepCopy())
	}
	slices.SortFunc(mine, byAge)
	for _, set := range mine {
		if r.current == nil && templateEqual(&set.Spec.Template, &r.d.Spec.Template) {
			r.current = set
		} else {
			r.old = append(r.old, set)
		}
	}
}

func (r *rollout) all() []*appsv1.ReplicaSet { return append(slices.Clone(r.old), r.current) }

// resized tells whether the Deployment's size changed since its sets were scaled: that is spread over all sets
// before a rollout goes on.
func (r *rollout) resized() bool {
	return slices.ContainsFunc(active(r.all()), func(set *appsv1.ReplicaSet) bool {
		desired, ok := annotated(set, annotationDesired)
		return ok && desired != wanted(r.d)
	})
}

// identify gives the current set its revision, and makes it when it is not there and create says so.
func (r *rollout) identify(create bool) {
	next := int64(1)
	for _, set := range r.old {
		next = max(next, revision(set)+1)
	}
	if r.current != nil {
		annotate(r.d, r.current, next)
		r.current.Spec.MinReadySeconds = r.d.Spec.MinReadySeconds
		r.setRevision(revision(r.current))
		if condition(r.status.Conditions, appsv1.DeploymentProgressing) == nil && deadline(r.d) {
			r.progress(v1.ConditionTrue, reasonFound, fmt.Sprintf("Found new replica set %q", r.current.Name))
		}
		return
	}
	if !create {
		return
	}
	set := newSet(r.d)
	annotate(r.d, set, next)
	annotateSize(r.d, set)
	r.current = set
	size := r.grown()
	set.Spec.Replicas = &size
	r.plan.Create = set
	if size > 0 {
		r.plan.Events = append(r.plan.Events, fmt.Sprintf("Scaled up replica set %s from 0 to %d", set.Name, size))
	}
	r.setRevision(next)
	if deadline(r.d) {
		r.progress(v1.ConditionTrue, reasonCreated, fmt.Sprintf("Created new replica set %q", set.Name))
	}
}

func (r *rollout) setRevision(n int64) {
	if n != revision(r.d) {
		r.plan.Revision = strconv.FormatInt(n, 10)
	}
}

// scale plans a set's size; it reports whether that changes anything.
func (r *rollout) scale(set *appsv1.ReplicaSet, size int32) bool {
	from := replicas(set)
	if from == size {
		return false
	}
	direction := "up"
	if size < from {
		direction = "down"
	}
	r.plan.Events = append(r.plan.Events, fmt.Sprintf("Scaled %s replica set %s from %d to %d", direction, set.Name, from, size))
	set.Spec.Replicas = &size
	annotateSize(r.d, set)
	return true
}

// grown is the size that the current set may have now: up to the wanted one, as far as the surge has room.
func (r *rollout) grown() int32 {
	size := replicas(r.current)
	if !rolling(r.d) {
		return wanted(r.d)
	}
	surge, _ := fences(r.d)
	room := wanted(r.d) + surge - sum(r.all(), replicas)
	return size + max(0, min(room, wanted(r.d)-size))
}

// roll takes one step of a rolling update: grow the current set, or else shrink the old ones.
func (r *rollout) roll() {
	size := wanted(r.d)
	if replicas(r.current) < size {
		size = r.grown()
	}
	if r.plan.Create == nil && r.scale(r.current, size) {
		return
	}
	if r.shrinkOld() {
		return
	}
	if complete(r.d, &r.d.Status) {
		r.prune()
	}
}

// shrinkOld takes from the old sets what the wanted availability does not need: first pods that are not
// available anyway, then the oldest set's.
func (r *rollout) shrinkOld() bool {
	if sum(r.old, replicas) == 0 {
		return false
	}
	_, unavailable := fences(r.d)
	least := wanted(r.d) - unavailable
	missing := replicas(r.current) - certain(r.current)
	room := sum(r.all(), replicas) - least - missing
	if room <= 0 {
		return false
	}
	changed := false
	for _, set := range r.old {
		broken := replicas(set) - certain(set)
		if take := min(room, broken); take > 0 {
			changed = r.scale(set, replicas(set)-take) || changed
			room -= take
		}
	}
	spare := sum(r.all(), certain) - least
	for _, set := range r.old {
		if take := min(spare, room, replicas(set)); take > 0 {
			changed = r.scale(set, replicas(set)-take) || changed
			spare -= take
			room -= take
		}
	}
	return changed
}

// recreate takes one step of the Recreate strategy: all old pods end before the first new one starts.
func (r *rollout) recreate() {
	r.identify(false)
	stopped := false
	for _, set := range r.old {
		stopped = r.scale(set, 0) || stopped
	}
	if stopped || r.oldPodsRun() {
		return
	}
	if r.current == nil {
		r.identify(true)
	} else if r.scale(r.current, wanted(r.d)) {
		return
	}
	if complete(r.d, &r.d.Status) {
		r.prune()
	}
}

func (r *rollout) oldPodsRun() bool {
	for _, set := range r.old {
		if set.Status.Replicas > 0 {
			return true // its pods are not all shown yet
		}
		if slices.ContainsFunc(r.pods[set.UID], func(p *v1.Pod) bool { return !phase.Ended(p.Status.Phase) }) {
			return true
		}
	}
	return false
}

// scaleAll spreads a change of the Deployment's size over its sets.
func (r *rollout) scaleAll() {
	live := active(r.all())
	switch {
	case len(live) == 1:
		r.resize(live[0], wanted(r.d))
	case len(live) == 0:
		if latest := r.latest(); latest != nil {
			r.resize(latest, wanted(r.d))
		}
	case r.saturated():
		for _, set := range r.old {
			r.resize(set, 0)
		}
	case rolling(r.d):
		r.scaleProportionally(live)
	}
}

// resize is scale that also notes an unchanged size as the right one, or the resizing would never be over.
func (r *rollout) resize(set *appsv1.ReplicaSet, size int32) {
	if !r.scale(set, size) {
		annotateSize(r.d, set)
	}
}

func (r *rollout) latest() *appsv1.ReplicaSet {
	if r.current != nil || len(r.old) == 0 {
		return r.current
	}
	return r.old[len(r.old)-1]
}

// saturated: the current set alone is already all that is wanted.
func (r *rollout) saturated() bool {
	if r.current == nil {
		return false
	}
	desired, ok := annotated(r.current, annotationDesired)
	want := wanted(r.d)
	return ok && desired == want && replicas(r.current) == want && available(r.current) == want
}

// scaleProportionally gives each set its share of the change; what rounding leaves goes to the largest.
func (r *rollout) scaleProportionally(live []*appsv1.ReplicaSet) {
	surge, _ := fences(r.d)
	allowed := int32(0)
	if wanted(r.d) > 0 {
		allowed = wanted(r.d) + surge
	}
	change := allowed - sum(live, replicas)
	slices.SortFunc(live, func(a, b *appsv1.ReplicaSet) int {
		age := byAge(a, b)
		if change >= 0 {
			age = -age // among equals grow the newer, shrink the older
		}
		return cmp.Or(cmp.Compare(replicas(b), replicas(a)), age)
	})
	added := int32(0)
	sizes := make([]int32, len(live))
	for i, set := range live {
		part := int32(0)
		if change > 0 {
			part = min(r.share(set, surge), change-added)
		} else if change < 0 {
			part = max(r.share(set, surge), change-added)
		}
		sizes[i], added = replicas(set)+part, added+part
	}
	for i, set := range live {
		if i == 0 {
			sizes[0] = max(0, sizes[0]+change-added)
		}
		r.resize(set, sizes[i])
	}
}

// share is a set's part of a resizing: it keeps its share of the whole.
func (r *rollout) share(set *appsv1.ReplicaSet, surge int32) int32 {
	if wanted(r.d) == 0 {
		return -replicas(set)
	}
	before, ok := annotated(set, annotationMaximum)
	if !ok || before == 0 {
		before = r.d.Status.Replicas
	}
	if before == 0 {
		return 0
	}
	after := float64(replicas(set)) * float64(wanted(r.d)+surge) / float64(before)
	return int32(math.Round(after)) - replicas(set)
}

// prune plans the deletion of the oldest empty sets beyond the history limit.
func (r *rollout) prune() {
	limit := pods.Value(r.d.Spec.RevisionHistoryLimit, math.MaxInt32)
	alive := slices.DeleteFunc(slices.Clone(r.old), func(s *appsv1.ReplicaSet) bool { return s.DeletionTimestamp != nil })
	excess := len(alive) - int(limit)
	if excess <= 0 {
		return
	}
	slices.SortFunc(alive, byRevision)
	for _, set := range alive[:excess] {
		if set.Status.Replicas == 0 && replicas(set) == 0 && set.Generation <= set.Status.ObservedGeneration {
			r.plan.Delete = append(r.plan.Delete, r.original[set.UID])
		}
	}
}

// collect puts the changed sets into the plan.
func (r *rollout) collect() {
	for _, set := range r.all() {
		if set == nil || set == r.plan.Create {
			continue
		}
		if before := r.original[set.UID]; !equality.Semantic.DeepEqual(before, set) {
			r.plan.Update = append(r.plan.Update, set)
		}
	}
}
