package service

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"

	"github.com/podvine/podvine/consensus/kubestore"
)

// errUndecided ends a try of an update whose companions are not attached yet.
var errUndecided = errors.New("the records of this update are not attached yet")

// claiming is the storage of services: a service and the records of its addresses and ports are written in one
// transaction. It is safe for concurrent use.
type claiming struct {
	storage.Interface
	records *records
}

// Create implements storage.Interface.
func (c *claiming) Create(ctx context.Context, key string, obj, out runtime.Object, ttl uint64) error {
	s := obj.(*corev1.Service)
	companions, err := c.records.companions(ctx, s, changeOf(nil, s))
	if err != nil {
		return err
	}
	return lost(c.Interface.Create(kubestore.WithCompanions(ctx, companions...), key, obj, out, ttl))
}

// lost says that a claim failed, whatever record it was.
func lost(err error) error {
	if companion := (*kubestore.CompanionError)(nil); errors.As(err, &companion) {
		return fmt.Errorf("%w: %w", errLost, err)
	}
	return err
}

// tried is an update that was decided for one revision of a service.
type tried struct {
	revision uint64
	output   *corev1.Service
	ttl      *uint64
	change   Change
}

// GuaranteedUpdate implements storage.Interface. What an update claims is known only when it was tried, but has to be
// attached before: a try that claims something else than what is attached ends, and the update goes on with what that
// try made, if the service is still the same.
func (c *claiming) GuaranteedUpdate(ctx context.Context, key string, destination runtime.Object, ignoreNotFound bool,
	preconditions *storage.Preconditions, tryUpdate storage.UpdateFunc, cached runtime.Object) error {
	var decided tried
	for range maxAttempts {
		with := ctx
		if !decided.change.Empty() {
			companions, err := c.records.companions(ctx, decided.output, decided.change)
			if err != nil {
				return err
			}
			with = kubestore.WithCompanions(ctx, companions...)
		}
		var next tried
		err := c.Interface.GuaranteedUpdate(with, key, destination, ignoreNotFound, preconditions,
			func(input runtime.Object, meta storage.ResponseMeta) (runtime.Object, *uint64, error) {
				if decided.output != nil && decided.revision == meta.ResourceVersion {
					return decided.output.DeepCopy(), decided.ttl, nil
				}
				old := input.(*corev1.Service).DeepCopy()
				output, ttl, err := tryUpdate(input, meta)
				if err != nil {
					return nil, nil, err
				}
				s := output.(*corev1.Service)
				if change := changeOf(old, s); !reflect.DeepEqual(change, decided.change) {
					next = tried{revision: meta.ResourceVersion, output: s.DeepCopy(), ttl: ttl, change: change}
					return nil, nil, errUndecided
				}
				return output, ttl, nil
			}, cached)
		if !errors.Is(err, errUndecided) {
			return lost(err)
		}
		decided = next
	}
	return fmt.Errorf("update %s: %w in %d attempts", key, errUndecided, maxAttempts)
}

// Delete implements storage.Interface. It deletes the revision whose records it knows, and looks again when the
// service or a record changed meanwhile.
func (c *claiming) Delete(ctx context.Context, key string, out runtime.Object, preconditions *storage.Preconditions,
	validate storage.ValidateObjectFunc, cached runtime.Object, options storage.DeleteOptions) error {
	if options.ExpectTransformOrDecodeError {
		return c.Interface.Delete(ctx, key, out, preconditions, validate, cached, options)
	}
	var last error
	for range maxAttempts {
		var current corev1.Service
		if err := c.Get(ctx, key, storage.GetOptions{}, &current); err != nil {
			return err
		}
		if err := preconditions.Check(key, &current); err != nil {
			return err
		}
		companions, err := c.records.companions(ctx, &current, changeOf(&current, nil))
		if err != nil {
			return err
		}
		exact := &storage.Preconditions{UID: &current.UID, ResourceVersion: &current.ResourceVersion}
		last = lost(c.Interface.Delete(kubestore.WithCompanions(ctx, companions...), key, out, exact, validate, nil, options))
		if !errors.Is(last, errLost) && !storage.IsInvalidObj(last) {
			return last
		}
	}
	return last
}

// companions are the writes of records that a change of a service amounts to. A claim holds only if there is no
// record; one that is released is removed only if it is the service's own, as it is now.
func (r *records) companions(ctx context.Context, s *corev1.Service, change Change) ([]kubestore.Companion, error) {
	var out []kubestore.Companion
	for _, address := range change.ClaimAddresses {
		out = append(out, kubestore.Companion{Resource: r.addresses.resource, Key: r.addresses.key(address), Object: stamped(AddressRecord(s, address))})
	}
	for _, port := range change.ClaimPorts {
		claim, err := r.claimPort(ctx, s, port)
		if err != nil {
			return nil, err
		}
		out = append(out, claim)
	}
	for _, address := range change.ReleaseAddresses {
		var record networkingv1.IPAddress
		if err := r.addresses.find(ctx, address, &record); err != nil {
			return nil, err
		}
		if ref := record.Spec.ParentRef; ref == nil || ref.Namespace != s.Namespace || ref.Name != s.Name {
			continue
		}
		release, err := r.addresses.release(address, record.ResourceVersion)
		if err != nil {
			return nil, err
		}
		out = append(out, release)
	}
	for _, port := range change.ReleasePorts {
		var record corev1.RangeAllocation
		if err := r.ports.find(ctx, portName(port), &record); err != nil {
			return nil, err
		}
		if string(record.Data) != ownerOf(s) {
			continue
		}
		release, err := r.ports.release(portName(port), record.ResourceVersion)
		if err != nil {
			return nil, err
		}
		out = append(out, release)
	}
	return out, nil
}

// claimPort writes the record of a port that has none, or takes over one that a service left behind.
func (r *records) claimPort(ctx context.Context, s *corev1.Service, port int32) (kubestore.Companion, error) {
	claim := kubestore.Companion{Resource: r.ports.resource, Key: r.ports.key(portName(port)), Object: stamped(portRecord(s, port))}
	record, live, err := r.portRecord(ctx, port)
	if err != nil || live || record.Name == "" {
		return claim, err // a live record makes the claim fail
	}
	stale, err := r.ports.release(portName(port), record.ResourceVersion)
	claim.Revision = stale.Revision
	return claim, err
}

// release is the removal of a record at a revision.
func (c *collection) release(name, version string) (kubestore.Companion, error) {
	revision, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		return kubestore.Companion{}, fmt.Errorf("read version of %s: %w", name, err)
	}
	return kubestore.Companion{Resource: c.resource, Key: c.key(name), Revision: revision}, nil
}
