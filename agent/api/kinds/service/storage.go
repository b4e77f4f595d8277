package service

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/util/dryrun"

	"github.com/podvine/podvine/agent/api/kinds"
)

// maxAttempts is how often a write is begun anew because another service took the chosen address or port meanwhile.
const maxAttempts = 16

// errLost says that a claim was lost to another service between choosing and writing.
var errLost = errors.New("address or node port was taken meanwhile")

// extend makes the store of services allocate: addresses and ports are chosen before validation, as in Kubernetes,
// and recorded with the service.
func extend(env kinds.Env, store *genericregistry.Store, storages map[string]rest.Storage) error {
	taken, err := openRecords(env)
	if err != nil {
		return err
	}
	chooser := &allocator{
		view:     taken,
		families: taken.families(),
		primary:  taken.seed[0],
		ports:    portRange{first: env.Settings.NodePortFirst, last: env.Settings.NodePortLast},
		random:   rand.Uint64N,
	}
	store.BeginCreate = func(ctx context.Context, obj runtime.Object, options *metav1.CreateOptions) (genericregistry.FinishFunc, error) {
		s := obj.(*corev1.Service)
		alignClusterIPs(s, nil)
		return finishNothing, chooser.fill(ctx, s, nil, dryrun.IsDryRun(options.DryRun))
	}
	store.BeginUpdate = func(ctx context.Context, obj, old runtime.Object, options *metav1.UpdateOptions) (genericregistry.FinishFunc, error) {
		s, was := obj.(*corev1.Service), old.(*corev1.Service)
		adoptAllocated(s, was)
		alignClusterIPs(s, was)
		return finishNothing, chooser.fill(ctx, s, was, dryrun.IsDryRun(options.DryRun))
	}
	store.Storage.Storage = &claiming{Interface: store.Storage.Storage, records: taken}
	main, ok := storages["services"].(*kinds.REST)
	if !ok {
		return fmt.Errorf("extend storage of services: it is a %T", storages["services"])
	}
	storages["services"] = &serviceREST{main}
	return nil
}

func finishNothing(context.Context, bool) {}

// serviceREST begins a write anew when it lost a claim.
type serviceREST struct{ *kinds.REST }

// Create implements rest.Creater.
func (r *serviceREST) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	for attempt := 1; ; attempt++ {
		created, err := r.REST.Create(ctx, obj.DeepCopyObject(), validate, options)
		if attempt == maxAttempts || !errors.Is(err, errLost) {
			return created, err
		}
	}
}

// Update implements rest.Updater.
func (r *serviceREST) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc,
	update rest.ValidateObjectUpdateFunc, force bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	for attempt := 1; ; attempt++ {
		updated, created, err := r.REST.Update(ctx, name, info, create, update, force, options)
		if attempt == maxAttempts || !errors.Is(err, errLost) {
			return updated, created, err
		}
	}
}

// claiming is the storage of services, which writes and removes the records of addresses and ports with each service.
// It is safe for concurrent use.
type claiming struct {
	storage.Interface
	records *records
}

// Create implements storage.Interface.
func (c *claiming) Create(ctx context.Context, key string, obj, out runtime.Object, ttl uint64) error {
	s := obj.(*corev1.Service)
	change := changeOf(nil, s)
	if err := c.records.claim(ctx, s, change); err != nil {
		return err
	}
	if err := c.Interface.Create(ctx, key, obj, out, ttl); err != nil {
		return withUndone(err, c.records.undo(ctx, s, change))
	}
	return nil
}

// GuaranteedUpdate implements storage.Interface.
func (c *claiming) GuaranteedUpdate(ctx context.Context, key string, destination runtime.Object, ignoreNotFound bool,
	preconditions *storage.Preconditions, tryUpdate storage.UpdateFunc, cached runtime.Object) error {
	var claimed Change
	var s *corev1.Service
	err := c.Interface.GuaranteedUpdate(ctx, key, destination, ignoreNotFound, preconditions,
		func(input runtime.Object, meta storage.ResponseMeta) (runtime.Object, *uint64, error) {
			if err := c.records.undo(ctx, s, claimed); err != nil {
				return nil, nil, err
			}
			claimed = Change{}
			old := input.(*corev1.Service).DeepCopy()
			output, ttl, err := tryUpdate(input, meta)
			if err != nil {
				return nil, nil, err
			}
			s = output.(*corev1.Service)
			change := changeOf(old, s)
			if err := c.records.claim(ctx, s, change); err != nil {
				return nil, nil, err
			}
			claimed = change
			return output, ttl, nil
		}, cached)
	if err != nil {
		if s == nil {
			return err
		}
		return withUndone(err, c.records.undo(ctx, s, claimed))
	}
	return c.records.release(ctx, s, claimed)
}

// Delete implements storage.Interface.
func (c *claiming) Delete(ctx context.Context, key string, out runtime.Object, preconditions *storage.Preconditions,
	validate storage.ValidateObjectFunc, cached runtime.Object, options storage.DeleteOptions) error {
	if err := c.Interface.Delete(ctx, key, out, preconditions, validate, cached, options); err != nil {
		return err
	}
	s := out.(*corev1.Service)
	return c.records.release(ctx, s, changeOf(s, nil))
}

// withUndone keeps err as it is, whose type callers look at, unless undoing failed too.
func withUndone(err, undo error) error {
	if undo == nil {
		return err
	}
	return errors.Join(err, undo)
}

// claim writes the records that a change claims, or none.
func (r *records) claim(ctx context.Context, s *corev1.Service, change Change) error {
	var done Change
	fail := func(what string, err error) error {
		if storage.IsExist(err) {
			err = errLost
		}
		return withUndone(fmt.Errorf("claim %s: %w", what, err), r.undo(ctx, s, done))
	}
	for _, address := range change.ClaimAddresses {
		if err := r.addresses.Create(ctx, r.addresses.key(address), AddressRecord(s, address), &networkingv1.IPAddress{}, 0); err != nil {
			return fail(address, err)
		}
		done.ClaimAddresses = append(done.ClaimAddresses, address)
	}
	for _, port := range change.ClaimPorts {
		if err := r.ports.Create(ctx, r.ports.key(portName(port)), portRecord(s, port), &corev1.RangeAllocation{}, 0); err != nil {
			return fail("node port "+portName(port), err)
		}
		done.ClaimPorts = append(done.ClaimPorts, port)
	}
	return nil
}

// undo removes the records that a change claimed.
func (r *records) undo(ctx context.Context, s *corev1.Service, change Change) error {
	return r.release(ctx, s, Change{ReleaseAddresses: change.ClaimAddresses, ReleasePorts: change.ClaimPorts})
}

// release removes the records that a change releases, where they are still those of the service.
func (r *records) release(ctx context.Context, s *corev1.Service, change Change) error {
	var errs []error
	for _, address := range change.ReleaseAddresses {
		err := r.addresses.Delete(ctx, r.addresses.key(address), &networkingv1.IPAddress{}, nil, func(_ context.Context, obj runtime.Object) error {
			if ref := obj.(*networkingv1.IPAddress).Spec.ParentRef; ref == nil || ref.Namespace != s.Namespace || ref.Name != s.Name {
				return errLost
			}
			return nil
		}, nil, storage.DeleteOptions{})
		if err != nil && !storage.IsNotFound(err) && !errors.Is(err, errLost) {
			errs = append(errs, fmt.Errorf("release %s: %w", address, err))
		}
	}
	for _, port := range change.ReleasePorts {
		err := r.ports.Delete(ctx, r.ports.key(portName(port)), &corev1.RangeAllocation{}, nil, func(_ context.Context, obj runtime.Object) error {
			if string(obj.(*corev1.RangeAllocation).Data) != ownerOf(s) {
				return errLost
			}
			return nil
		}, nil, storage.DeleteOptions{})
		if err != nil && !storage.IsNotFound(err) && !errors.Is(err, errLost) {
			errs = append(errs, fmt.Errorf("release node port %d: %w", port, err))
		}
	}
	return errors.Join(errs...)
}
