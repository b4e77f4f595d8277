package gc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
)

// orphansAtOnce bounds the requests under way for one owner that lets its dependents go.
const orphansAtOnce = 16

func (l *Loop) reconcile(ctx context.Context, key string) (time.Duration, error) {
	identity, dependents, doubtful, ok := l.graph.Find(types.UID(key))
	if !ok || !doubtful {
		return 0, nil
	}
	live, err := l.client(identity).Get(ctx, identity.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && live.UID != identity.UID {
		l.look(l.graph.Forget(identity.UID))
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	view := View{Object: live, Dependents: dependents, Owners: map[types.UID]OwnerState{}}
	again := time.Duration(0)
	if live.DeletionTimestamp == nil {
		for _, ref := range live.OwnerReferences {
			state, unseen, err := l.owner(ctx, identity, live, ref)
			if errors.Is(err, errUnknownKind) {
				return 0, nil // nothing can be decided; it is looked at again when the kind is there
			}
			if err != nil {
				return 0, err
			}
			if view.Owners[ref.UID] = state; unseen && state != Absent {
				again = unseenOwnerSeconds * time.Second
			}
		}
	}
	plan := Decide(view)
	if err := l.apply(ctx, identity, live, plan, dependents); err != nil {
		return 0, err
	}
	if plan.Delete != "" {
		again = 0
	}
	return again, nil
}

// errUnknownKind is met where nobody serves an owner's kind.
var errUnknownKind = errors.New("the owner's kind is not served")

func (l *Loop) client(i Identity) metadata.ResourceInterface {
	return l.cfg.Metadata.Resource(i.Resource).Namespace(i.Namespace)
}

// owner looks at an owner live. unseen: its watch would not tell of its end (yet).
func (l *Loop) owner(ctx context.Context, child Identity, object *metav1.PartialObjectMetadata, ref metav1.OwnerReference) (state OwnerState, unseen bool, err error) {
	if _, ok := l.absent.Get(absentKey{ref.UID, child.Namespace}); ok {
		return Absent, false, nil
	}
	known, seen := l.graph.Owner(ref.UID)
	if seen && known.Namespace != "" && known.Namespace != child.Namespace {
		l.tellForeign(object, ref)
	}
	version, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return Solid, false, nil //nolint:nilerr // nothing can be found out about it, now or ever
	}
	k, listed, ok := l.kind(version.WithKind(ref.Kind), child.UID)
	if !ok {
		return Solid, false, errUnknownKind
	}
	namespace := child.Namespace
	if !k.namespaced {
		namespace = ""
	} else if namespace == "" {
		l.tellForeign(object, ref)
		return Solid, false, nil // a cluster-wide object cannot name which namespace it means
	}
	owner, err := l.cfg.Metadata.Resource(k.resource).Namespace(namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err) || err == nil && owner.UID != ref.UID:
		l.absent.Add(absentKey{ref.UID, child.Namespace}, nil)
		return Absent, false, nil
	case err != nil:
		return Solid, false, err
	case owner.DeletionTimestamp != nil && slices.Contains(owner.Finalizers, metav1.FinalizerDeleteDependents):
		return Waiting, !seen, nil
	}
	return Solid, !seen || !listed, nil
}

// absentKey names the namespace too: an owner in another one is absent only from here.
type absentKey struct {
	uid       types.UID
	namespace string
}

// tellForeign tells that an owner reference points into another namespace, which is why the object may go.
func (l *Loop) tellForeign(object *metav1.PartialObjectMetadata, ref metav1.OwnerReference) {
	l.recorder.Eventf(object, v1.EventTypeWarning, "OwnerRefInvalidNamespace",
		"ownerRef [%s/%s, namespace: %s, name: %s, uid: %s] does not exist in namespace %q",
		ref.APIVersion, ref.Kind, object.Namespace, ref.Name, ref.UID, object.Namespace)
}

// apply does what the plan says, under the version that it was made on.
func (l *Loop) apply(ctx context.Context, i Identity, live *metav1.PartialObjectMetadata, plan Plan, dependents []Dependent) error {
	var err error
	switch {
	case plan.Orphan:
		if err = l.orphan(ctx, i, dependents); err == nil {
			err = l.dropFinalizer(ctx, i, live, plan.RemoveFinalizer)
		}
	case plan.RemoveFinalizer != "":
		err = l.dropFinalizer(ctx, i, live, plan.RemoveFinalizer)
	case len(plan.DropOwners) > 0:
		rest := slices.DeleteFunc(slices.Clone(live.OwnerReferences), func(ref metav1.OwnerReference) bool {
			return slices.Contains(plan.DropOwners, ref.UID)
		})
		err = l.patchOwners(ctx, i, live, rest)
	case plan.Delete != "":
		err = l.delete(ctx, i, live, plan)
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	l.look(plan.Visit)
	return nil
}

func (l *Loop) delete(ctx context.Context, i Identity, live *metav1.PartialObjectMetadata, plan Plan) error {
	if plan.Unblock {
		refs := slices.Clone(live.OwnerReferences)
		for n := range refs {
			refs[n].BlockOwnerDeletion = nil
		}
		if err := l.patchOwners(ctx, i, live, refs); err != nil {
			return err
		}
		live.ResourceVersion = "" // changed just now, by us
	}
	options := metav1.DeleteOptions{PropagationPolicy: &plan.Delete, Preconditions: metav1.NewUIDPreconditions(string(i.UID))}
	if live.ResourceVersion != "" {
		options.Preconditions.ResourceVersion = &live.ResourceVersion
	}
	return l.client(i).Delete(ctx, i.Name, options)
}

func (l *Loop) patchOwners(ctx context.Context, i Identity, live *metav1.PartialObjectMetadata, owners []metav1.OwnerReference) error {
	if len(owners) == 0 {
		owners = nil // a merge patch removes by null
	}
	return l.patch(ctx, i, map[string]any{"resourceVersion": live.ResourceVersion, "ownerReferences": owners})
}

func (l *Loop) dropFinalizer(ctx context.Context, i Identity, live *metav1.PartialObjectMetadata, finalizer string) error {
	rest := slices.DeleteFunc(slices.Clone(live.Finalizers), func(f string) bool { return f == finalizer })
	if len(rest) == 0 {
		rest = nil
	}
	return l.patch(ctx, i, map[string]any{"resourceVersion": live.ResourceVersion, "finalizers": rest})
}

// patch merges into the metadata; merge patches are served for every kind, custom ones included.
func (l *Loop) patch(ctx context.Context, i Identity, meta map[string]any) error {
	if meta["resourceVersion"] == "" {
		delete(meta, "resourceVersion")
	}
	body, err := json.Marshal(map[string]any{"metadata": meta})
	if err != nil {
		return fmt.Errorf("encode patch of %s: %w", i.Name, err)
	}
	_, err = l.client(i).Patch(ctx, i.Name, types.MergePatchType, body, metav1.PatchOptions{})
	return err
}

// orphan takes the owner's reference from its dependents.
func (l *Loop) orphan(ctx context.Context, owner Identity, dependents []Dependent) error {
	errs := make([]error, len(dependents))
	var group sync.WaitGroup
	slots := make(chan struct{}, orphansAtOnce)
	for n, d := range dependents {
		slots <- struct{}{}
		group.Go(func() {
			defer func() { <-slots }()
			errs[n] = l.release(ctx, owner.UID, d.Identity)
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

func (l *Loop) release(ctx context.Context, owner types.UID, dependent Identity) error {
	live, err := l.client(dependent).Get(ctx, dependent.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && live.UID != dependent.UID {
		return nil
	}
	if err != nil {
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(live.OwnerReferences), func(ref metav1.OwnerReference) bool { return ref.UID == owner })
	if len(rest) == len(live.OwnerReferences) {
		return nil
	}
	if err := l.patchOwners(ctx, dependent, live, rest); !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}
