package deployment

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/utils/dump"

	"github.com/podvine/podvine/agent/control/workloads/pods"
)

// Annotations that a Deployment and its sets carry; kubectl reads the revision.
const (
	annotationRevision = "deployment.kubernetes.io/revision"
	annotationHistory  = "deployment.kubernetes.io/revision-history"
	annotationDesired  = "deployment.kubernetes.io/desired-replicas"
	annotationMaximum  = "deployment.kubernetes.io/max-replicas"
	annotationRollback = "deprecated.deployment.rollback.to"
)

// maxHistoryBytes bounds the list of earlier revisions in an annotation, as Kubernetes does.
const maxHistoryBytes = 2000

func replicas(set *appsv1.ReplicaSet) int32 { return pods.Value(set.Spec.Replicas, 1) }

func wanted(d *appsv1.Deployment) int32 { return pods.Value(d.Spec.Replicas, 1) }

func rolling(d *appsv1.Deployment) bool {
	return d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType
}

// surge and unavailable are the pods that a rollout may have above and miss below the wanted ones. Shares are
// rounded up for the former and down for the latter; both zero would never move, so then one may be missing.
func fences(d *appsv1.Deployment) (surge, unavailable int32) {
	if !rolling(d) {
		return 0, 0
	}
	quarter := intstr.FromString("25%")
	from := func(value *intstr.IntOrString, up bool) int32 {
		n, err := intstr.GetScaledValueFromIntOrPercent(value, int(wanted(d)), up)
		if err != nil || n < 0 {
			return 0 // validation keeps these out
		}
		return int32(min(n, math.MaxInt32))
	}
	up, down := &quarter, &quarter
	if r := d.Spec.Strategy.RollingUpdate; r != nil {
		up, down = pods.Value(&r.MaxSurge, up), pods.Value(&r.MaxUnavailable, down)
	}
	if up == nil {
		up = &quarter
	}
	if down == nil {
		down = &quarter
	}
	surge, unavailable = from(up, true), from(down, false)
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, min(unavailable, wanted(d))
}

// templateEqual compares two templates but for the hash label.
func templateEqual(a, b *v1.PodTemplateSpec) bool {
	x, y := a.DeepCopy(), b.DeepCopy()
	delete(x.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	delete(y.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
	return equality.Semantic.DeepEqual(x, y)
}

// hash of a template, changed by the number of collisions there were.
func hash(template *v1.PodTemplateSpec, collisions *int32) string {
	h := fnv.New32a()
	fmt.Fprintf(h, "%v", dump.ForHash(*template)) // a hash's Write never fails
	if collisions != nil {
		var b [8]byte
		binary.LittleEndian.PutUint32(b[:], uint32(*collisions))
		h.Write(b[:])
	}
	return rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
}

// maxSetNameBytes leaves room for the pods' own suffix.
const maxSetNameBytes = 253

// newSet makes the set for the Deployment's template, still without replicas.
func newSet(d *appsv1.Deployment) *appsv1.ReplicaSet {
	template := *d.Spec.Template.DeepCopy()
	suffix := hash(&template, d.Status.CollisionCount)
	if template.Labels == nil {
		template.Labels = map[string]string{}
	}
	template.Labels[appsv1.DefaultDeploymentUniqueLabelKey] = suffix
	selector := d.Spec.Selector.DeepCopy()
	if selector.MatchLabels == nil {
		selector.MatchLabels = map[string]string{}
	}
	selector.MatchLabels[appsv1.DefaultDeploymentUniqueLabelKey] = suffix
	name := d.Name
	if room := maxSetNameBytes - len(suffix) - 1; len(name) > room {
		name = name[:room]
	}
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: d.Namespace, Name: name + "-" + suffix, Labels: maps.Clone(template.Labels),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, appsv1.SchemeGroupVersion.WithKind("Deployment"))}},
		Spec: appsv1.ReplicaSetSpec{Replicas: new(int32), MinReadySeconds: d.Spec.MinReadySeconds,
			Selector: selector, Template: template},
	}
}

// revision of a set or Deployment; 0 when there is none.
func revision(object metav1.Object) int64 {
	n, err := strconv.ParseInt(object.GetAnnotations()[annotationRevision], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// annotate brings a set's annotations to what its Deployment says, and its revision to at least next. The
// revisions it had before are kept in a list.
func annotate(d *appsv1.Deployment, set *appsv1.ReplicaSet, next int64) {
	if set.Annotations == nil {
		set.Annotations = map[string]string{}
	}
	for key, value := range d.Annotations {
		switch key {
		case v1.LastAppliedConfigAnnotation, annotationRevision, annotationHistory, annotationDesired, annotationMaximum, annotationRollback:
		default:
			set.Annotations[key] = value
		}
	}
	old, had := set.Annotations[annotationRevision]
	if revision(set) >= next {
		return
	}
	set.Annotations[annotationRevision] = strconv.FormatInt(next, 10)
	if !had {
		return
	}
	history := old
	if before := set.Annotations[annotationHistory]; before != "" {
		history = before + "," + old
	}
	for len(history) > maxHistoryBytes {
		_, rest, ok := strings.Cut(history, ",")
		if !ok {
			break
		}
		history = rest
	}
	set.Annotations[annotationHistory] = history
}

// annotateSize notes for whom the set was scaled, which tells a scaling of the Deployment from a rollout.
func annotateSize(d *appsv1.Deployment, set *appsv1.ReplicaSet) {
	if set.Annotations == nil {
		set.Annotations = map[string]string{}
	}
	surge, _ := fences(d)
	set.Annotations[annotationDesired] = strconv.Itoa(int(wanted(d)))
	set.Annotations[annotationMaximum] = strconv.Itoa(int(wanted(d) + surge))
}

func annotated(set *appsv1.ReplicaSet, key string) (int32, bool) {
	n, err := strconv.ParseInt(set.Annotations[key], 10, 32)
	return int32(n), err == nil
}

func sum(sets []*appsv1.ReplicaSet, of func(*appsv1.ReplicaSet) int32) (total int32) {
	for _, set := range sets {
		if set != nil {
			total += of(set)
		}
	}
	return total
}

func available(set *appsv1.ReplicaSet) int32 { return set.Status.AvailableReplicas }

// certain are the available pods that stay when the set comes down to its size: its status may still count more.
func certain(set *appsv1.ReplicaSet) int32 { return min(available(set), replicas(set)) }

func active(sets []*appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	return slices.DeleteFunc(slices.Clone(sets), func(s *appsv1.ReplicaSet) bool { return s == nil || replicas(s) == 0 })
}

func byAge(a, b *appsv1.ReplicaSet) int {
	return cmp.Or(a.CreationTimestamp.Time.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

func byRevision(a, b *appsv1.ReplicaSet) int {
	return cmp.Or(cmp.Compare(revision(a), revision(b)), byAge(a, b))
}
