package gc

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// OwnerState is what a live look at an owner found.
type OwnerState uint8

// States.
const (
	// Solid: the owner is there and stays, or it cannot be told and must be taken for it.
	Solid OwnerState = iota
	// Absent: there is no such owner.
	Absent
	// Waiting: the owner is being deleted and waits for its dependents.
	Waiting
)

// View is what a decision about one object is made on.
type View struct {
	// Object is its live metadata.
	Object metav1.Object
	// Owners are the states of its owners by their UID.
	Owners map[types.UID]OwnerState
	// Dependents are those that watches have shown.
	Dependents []Dependent
}

// Plan is what to do, at most one of the first four, then Visit.
type Plan struct {
	// Delete with this policy; empty is not at all.
	Delete metav1.DeletionPropagation
	// DropOwners are the references to take away.
	DropOwners []types.UID
	// Orphan: take the object's reference from all of its Dependents, then RemoveFinalizer.
	Orphan bool
	// RemoveFinalizer is the collector's own finalizer to take away.
	RemoveFinalizer string
	// Unblock: own references must no longer block an owner, or two would wait for each other.
	Unblock bool
	// Visit are dependents to look at.
	Visit []types.UID
}

// Decide is pure.
func Decide(view View) Plan {
	if view.Object.GetDeletionTimestamp() != nil {
		return decideDeleting(view)
	}
	var solid, absent, waiting []types.UID
	for _, ref := range view.Object.GetOwnerReferences() {
		switch view.Owners[ref.UID] {
		case Absent:
			absent = append(absent, ref.UID)
		case Waiting:
			waiting = append(waiting, ref.UID)
		default:
			solid = append(solid, ref.UID)
		}
	}
	switch {
	case len(absent)+len(waiting) == 0:
		return Plan{}
	case len(solid) > 0: // someone still wants it
		return Plan{DropOwners: append(absent, waiting...)}
	case len(waiting) > 0 && len(view.Dependents) > 0:
		cycle := slices.ContainsFunc(view.Dependents, func(d Dependent) bool { return d.Waits })
		return Plan{Delete: metav1.DeletePropagationForeground, Unblock: cycle}
	}
	finalizers := view.Object.GetFinalizers()
	switch {
	case slices.Contains(finalizers, metav1.FinalizerOrphanDependents):
		return Plan{Delete: metav1.DeletePropagationOrphan}
	case slices.Contains(finalizers, metav1.FinalizerDeleteDependents):
		return Plan{Delete: metav1.DeletePropagationForeground}
	}
	return Plan{Delete: metav1.DeletePropagationBackground}
}

// decideDeleting serves the finalizers that are the collector's.
func decideDeleting(view View) Plan {
	finalizers := view.Object.GetFinalizers()
	switch {
	case slices.Contains(finalizers, metav1.FinalizerOrphanDependents):
		return Plan{Orphan: true, RemoveFinalizer: metav1.FinalizerOrphanDependents}
	case !slices.Contains(finalizers, metav1.FinalizerDeleteDependents):
		return Plan{}
	}
	plan, blocked := Plan{}, false
	for _, d := range view.Dependents {
		blocked = blocked || d.Blocks
		if !d.Waits {
			plan.Visit = append(plan.Visit, d.UID)
		}
	}
	if !blocked {
		plan.RemoveFinalizer = metav1.FinalizerDeleteDependents
	}
	return plan
}
