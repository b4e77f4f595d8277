// Package history keeps what a workload's template was, as ControllerRevisions: the objects that `kubectl rollout
// history` shows and `kubectl rollout undo` applies.
//
// Role: pure functions over API objects, shared by the loops of StatefulSets and DaemonSets. They make, compare,
// order and prune revisions; the loops write them.
//
// Concurrency: all functions are safe; none changes its arguments but [Sort].
package history

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"
)

const (
	// HashLabel of a revision is the hash of what it holds.
	HashLabel = "controller.kubernetes.io/hash"
	// maxPrefixBytes of the owner's name stay in a revision's, so that a hash fits behind.
	maxPrefixBytes = 223
)

// Data is what a revision holds: the template, as the patch that brings it back. kubectl compares it to the letter.
func Data(template *v1.PodTemplateSpec) ([]byte, error) {
	encoded, err := json.Marshal(template)
	if err != nil {
		return nil, fmt.Errorf("encode template: %w", err)
	}
	var fields map[string]any
	if err := json.Unmarshal(encoded, &fields); err != nil {
		return nil, fmt.Errorf("encode template: %w", err)
	}
	fields["$patch"] = "replace"
	data, err := json.Marshal(map[string]any{"spec": map[string]any{"template": fields}})
	if err != nil {
		return nil, fmt.Errorf("encode template: %w", err)
	}
	return data, nil
}

// Template is the template that a revision holds.
func Template(revision *appsv1.ControllerRevision) (*v1.PodTemplateSpec, error) {
	var held struct {
		Spec struct {
			Template v1.PodTemplateSpec `json:"template"`
		} `json:"spec"`
	}
	if err := json.Unmarshal(revision.Data.Raw, &held); err != nil {
		return nil, fmt.Errorf("decode revision %s: %w", revision.Name, err)
	}
	return &held.Spec.Template, nil
}

// New makes the revision of a template. Its name follows from the owner, the template and the number of collisions
// that there were.
func New(owner metav1.Object, kind schema.GroupVersionKind, template *v1.PodTemplateSpec, number int64, collisions *int32) (*appsv1.ControllerRevision, error) {
	data, err := Data(template)
	if err != nil {
		return nil, err
	}
	h := fnv.New32()
	h.Write(data) // a hash's Write never fails
	if collisions != nil {
		h.Write([]byte(strconv.FormatInt(int64(*collisions), 10)))
	}
	hash := rand.SafeEncodeString(strconv.FormatUint(uint64(h.Sum32()), 10))
	prefix := owner.GetName()
	if len(prefix) > maxPrefixBytes {
		prefix = prefix[:maxPrefixBytes]
	}
	labels := maps.Clone(template.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	labels[HashLabel] = hash
	return &appsv1.ControllerRevision{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: owner.GetNamespace(), Name: prefix + "-" + hash, Labels: labels, Annotations: maps.Clone(owner.GetAnnotations()),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(owner, kind)},
		},
		Data:     runtime.RawExtension{Raw: data},
		Revision: number,
	}, nil
}

// Equal tells whether two revisions hold the same, however it is written.
func Equal(a, b *appsv1.ControllerRevision) bool {
	if bytes.Equal(a.Data.Raw, b.Data.Raw) {
		return true
	}
	var x, y any
	if json.Unmarshal(a.Data.Raw, &x) != nil || json.Unmarshal(b.Data.Raw, &y) != nil {
		return false
	}
	return equality.Semantic.DeepEqual(x, y)
}

// Sort puts the oldest revision first.
func Sort(revisions []*appsv1.ControllerRevision) {
	slices.SortStableFunc(revisions, func(a, b *appsv1.ControllerRevision) int {
		return cmp.Or(cmp.Compare(a.Revision, b.Revision), a.CreationTimestamp.Time.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
}

// Claim sorts out the owner's revisions, sorted, and those among them to adopt: without a controller, and with labels that
// the owner selects.
func Claim(all []*appsv1.ControllerRevision, owner metav1.Object, selector labels.Selector) (own, adopt []*appsv1.ControllerRevision) {
	for _, r := range all {
		controller := metav1.GetControllerOfNoCopy(r)
		switch {
		case controller != nil && controller.UID == owner.GetUID():
			own = append(own, r)
		case controller == nil && selector.Matches(labels.Set(r.Labels)) && owner.GetDeletionTimestamp() == nil:
			adopt = append(adopt, r)
			own = append(own, r)
		}
	}
	Sort(own)
	return own, adopt
}

// Find looks for the revision that holds what fresh does, in sorted revisions. Found is nil when there is none; renumbered
// says that found is a copy which is to become the newest.
func Find(sorted []*appsv1.ControllerRevision, fresh *appsv1.ControllerRevision) (found *appsv1.ControllerRevision, renumbered bool) {
	for i := len(sorted) - 1; i >= 0; i-- {
		switch {
		case !Equal(sorted[i], fresh):
		case i == len(sorted)-1:
			return sorted[i], false
		default:
			next := sorted[i].DeepCopy()
			next.Revision = fresh.Revision
			return next, true
		}
	}
	return nil, false
}

// Next is the number of the revision after sorted ones.
func Next(sorted []*appsv1.ControllerRevision) int64 {
	if len(sorted) == 0 {
		return 1
	}
	return sorted[len(sorted)-1].Revision + 1
}

// Surplus are the oldest of the sorted revisions beyond the limit of those that nothing lives by; below zero, there is no limit.
func Surplus(sorted []*appsv1.ControllerRevision, lives func(*appsv1.ControllerRevision) bool, limit int32) []*appsv1.ControllerRevision {
	if limit < 0 {
		return nil
	}
	dead := slices.DeleteFunc(slices.Clone(sorted), lives)
	return dead[:max(0, len(dead)-int(limit))]
}
