package pod

import (
	"cmp"
	"context"
	"fmt"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/util/dryrun"

	"github.com/podvine/podvine/agent/phase"
)

// evictionTries bounds how often an eviction looks at a pod that is changed all the time, as in Kubernetes.
const evictionTries = 20

// evictionREST is pods/eviction: a deletion that asks the guard first. Pods that serve nobody go without asking.
type evictionREST struct {
	store, status *genericregistry.Store
	guard         DisruptionGuard
}

// New implements rest.Storage.
func (r *evictionREST) New() runtime.Object { return &policyv1.Eviction{} }

// Destroy implements rest.Storage; the main store owns what is to be released.
func (r *evictionREST) Destroy() {}

// GroupVersionKind implements rest.GroupVersionKindProvider.
func (r *evictionREST) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return policyv1.SchemeGroupVersion.WithKind("Eviction")
}

// AcceptsGroupVersion implements rest.GroupVersionAcceptor.
func (r *evictionREST) AcceptsGroupVersion(gv schema.GroupVersion) bool {
	return gv == policyv1.SchemeGroupVersion
}

// Create implements rest.NamedCreater.
func (r *evictionREST) Create(ctx context.Context, name string, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	eviction, ok := obj.(*policyv1.Eviction)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a Eviction object: %#v", obj))
	}
	if name != eviction.Name {
		return nil, apierrors.NewBadRequest("name in URL does not match name in Eviction object")
	}
	how, err := deletion(eviction, options)
	if err != nil {
		return nil, err
	}
	if validate != nil {
		if err := validate(ctx, eviction.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	for range evictionTries {
		var again bool
		if again, err = r.evict(ctx, name, how.DeepCopy()); !again {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return &metav1.Status{Status: metav1.StatusSuccess}, nil
}

// evict looks at the pod and deletes it, if it may go. again tells that it was changed between the two.
func (r *evictionREST) evict(ctx context.Context, name string, how *metav1.DeleteOptions) (again bool, err error) {
	p, err := getPod(ctx, r.store, name)
	if err != nil {
		return false, err
	}
	given := cmp.Or(how.Preconditions, &metav1.Preconditions{})
	how.Preconditions = &metav1.Preconditions{UID: cmp.Or(given.UID, &p.UID), ResourceVersion: given.ResourceVersion}
	asSeen := func() { how.Preconditions.ResourceVersion = cmp.Or(given.ResourceVersion, &p.ResourceVersion) }
	switch {
	case p.Status.Phase == corev1.PodPending && p.DeletionTimestamp == nil:
		asSeen() // by now it may run, and be missed
		err := r.remove(ctx, name, how)
		return apierrors.IsConflict(err) && given.ResourceVersion == nil && *how.Preconditions.UID == p.UID, err
	case !serves(p) || r.guard == nil:
		return false, r.remove(ctx, name, how)
	}
	unlessChanged, err := r.guard.Disrupt(ctx, p, dryrun.IsDryRun(how.DryRun))
	if err != nil {
		return false, err
	}
	if unlessChanged != nil {
		asSeen()
	}
	err = r.remove(ctx, name, how)
	if apierrors.IsConflict(err) && unlessChanged != nil && given.ResourceVersion == nil {
		return false, unlessChanged
	}
	return false, err
}

// deletion returns how the pod is to be deleted: as the eviction says, with the request's dry run.
func deletion(e *policyv1.Eviction, options *metav1.CreateOptions) (*metav1.DeleteOptions, error) {
	how := &metav1.DeleteOptions{}
	if e.DeleteOptions != nil {
		how = e.DeleteOptions.DeepCopy()
	}
	switch {
	case len(how.DryRun) == 0:
		how.DryRun = options.DryRun
	case len(options.DryRun) > 0 && !reflect.DeepEqual(options.DryRun, how.DryRun):
		return nil, apierrors.NewBadRequest(fmt.Sprintf("Non-matching dry-run options in request and content: %v and %v", options.DryRun, how.DryRun))
	}
	if errs := metav1validation.ValidateDeleteOptions(how); len(errs) > 0 {
		return nil, apierrors.NewInvalid(schema.GroupKind{Group: metav1.GroupName, Kind: "DeleteOptions"}, "", errs)
	}
	return how, nil
}

// serves says whether the loss of the pod could be missed.
func serves(p *corev1.Pod) bool {
	ended := phase.Ended(p.Status.Phase)
	return !ended && p.Status.Phase != corev1.PodPending && p.DeletionTimestamp == nil
}

// remove notes on the pod why it goes, and deletes it. A resource version that the pod must have is that before the note.
func (r *evictionREST) remove(ctx context.Context, name string, how *metav1.DeleteOptions) error {
	if !dryrun.IsDryRun(how.DryRun) && r.status != nil {
		noted, err := r.note(ctx, name, how)
		if err != nil {
			return err
		}
		if how.Preconditions.ResourceVersion != nil {
			how.Preconditions.ResourceVersion = &noted.ResourceVersion
		}
	}
	_, _, err := r.store.Delete(ctx, name, rest.ValidateAllObjectFunc, how)
	return err
}

func (r *evictionREST) note(ctx context.Context, name string, how *metav1.DeleteOptions) (*corev1.Pod, error) {
	change := func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
		was, ok := old.(*corev1.Pod)
		if !ok {
			return nil, fmt.Errorf("unexpected object: %#v", old)
		}
		now := was.DeepCopy()
		if c := how.Preconditions; c != nil {
			if c.UID != nil && *c.UID != now.UID {
				return nil, apierrors.NewConflict(corev1.Resource("pods"), name, fmt.Errorf("precondition failed: UID in precondition: %v, UID in object meta: %v", *c.UID, now.UID))
			}
			if c.ResourceVersion != nil && *c.ResourceVersion != now.ResourceVersion {
				return nil, apierrors.NewConflict(corev1.Resource("pods"), name, fmt.Errorf("precondition failed: ResourceVersion in precondition: %v, ResourceVersion in object meta: %v", *c.ResourceVersion, now.ResourceVersion))
			}
		}
		setCondition(&now.Status, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
			Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting", LastTransitionTime: metav1.Now()})
		return now, nil
	}
	obj, _, err := r.status.Update(ctx, name, rest.DefaultUpdatedObjectInfo(nil, change), rest.ValidateAllObjectFunc,
		rest.ValidateAllObjectUpdateFunc, false, &metav1.UpdateOptions{})
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.Pod), nil
}
