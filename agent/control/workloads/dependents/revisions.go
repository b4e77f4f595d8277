package dependents

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	appsclient "k8s.io/client-go/kubernetes/typed/apps/v1"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/workloads/history"
)

// Revisions writes the revisions of one kind of owner.
type Revisions struct {
	Client kubernetes.Interface
	// Kind of the owners.
	Kind schema.GroupVersionKind
}

func (r Revisions) of(namespace string) appsclient.ControllerRevisionInterface {
	return r.Client.AppsV1().ControllerRevisions(namespace)
}

// Adopt makes the owner the controller of revisions. live reads the owner from the API.
func (r Revisions) Adopt(ctx context.Context, owner loop.Owner, revisions []*appsv1.ControllerRevision, live func() (metav1.Object, error)) error {
	if len(revisions) == 0 {
		return nil
	}
	object, err := live()
	if err := Confirm(owner, object, err); err != nil {
		return err
	}
	for _, revision := range revisions {
		patch, err := Adoption(revision, owner, r.Kind)
		if err != nil {
			return err
		}
		if _, err := r.of(revision.Namespace).Patch(ctx, revision.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return fmt.Errorf("adopt revision %s: %w", revision.Name, err)
		}
	}
	return nil
}

// Create makes a revision, whose event brings the next decision. collides says that something else has the name.
func (r Revisions) Create(ctx context.Context, owner metav1.Object, revision *appsv1.ControllerRevision) (collides bool, err error) {
	_, err = r.of(revision.Namespace).Create(ctx, revision, metav1.CreateOptions{})
	switch {
	case apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause):
		return false, nil
	case !apierrors.IsAlreadyExists(err):
		return false, err
	}
	there, err := r.of(revision.Namespace).Get(ctx, revision.Name, metav1.GetOptions{})
	if err != nil {
		return false, err
	}
	// One that holds the same and is the owner's was made just now and is not shown yet.
	return !history.Equal(there, revision) || !metav1.IsControlledBy(there, owner), nil
}

// Renumber writes the number of a revision; nil is none.
func (r Revisions) Renumber(ctx context.Context, revision *appsv1.ControllerRevision) error {
	if revision == nil {
		return nil
	}
	if _, err := r.of(revision.Namespace).Update(ctx, revision, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("renumber revision %s: %w", revision.Name, err)
	}
	return nil
}

// Delete deletes revisions, each under its UID.
func (r Revisions) Delete(ctx context.Context, revisions []*appsv1.ControllerRevision) error {
	for _, revision := range revisions {
		options := metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(revision.UID))}
		if err := Gone(r.of(revision.Namespace).Delete(ctx, revision.Name, options)); err != nil {
			return fmt.Errorf("delete revision %s: %w", revision.Name, err)
		}
	}
	return nil
}

// Collided is the number of collisions after one more.
func Collided(count *int32) *int32 {
	next := int32(1)
	if count != nil {
		next += *count
	}
	return &next
}
