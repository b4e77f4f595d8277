package kubestore

import (
	"context"
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/value"

	"github.com/podvine/podvine/consensus/store"
)

// unseal returns the codec's bytes of an entry.
func (r *resource) unseal(ctx context.Context, e *store.Entry) (plain []byte, stale bool, err error) {
	t := r.transformer.Load()
	if t == nil {
		return e.Value, false, nil
	}
	plain, stale, err = (*t).TransformFromStorage(ctx, e.Value, value.DefaultContext(e.Key))
	if err != nil {
		return nil, false, storage.NewInternalError(err)
	}
	return plain, stale, nil
}

// seal returns the bytes to store.
func (r *resource) seal(ctx context.Context, key string, plain []byte) ([]byte, error) {
	t := r.transformer.Load()
	if t == nil {
		return plain, nil
	}
	sealed, err := (*t).TransformToStorage(ctx, plain, value.DefaultContext(key))
	if err != nil {
		return nil, storage.NewInternalError(err)
	}
	return sealed, nil
}

// decode reads the codec's bytes into a new object.
func (r *resource) decode(plain []byte, revision int64, into runtime.Object) (runtime.Object, error) {
	object, _, err := r.codec.Decode(plain, nil, into)
	if err != nil {
		return nil, err
	}
	if err := r.versioner.UpdateObject(object, uint64(revision)); err != nil {
		return nil, fmt.Errorf("set resource version: %w", err)
	}
	return object, nil
}

// attachment returns an entry's decoded form, decoding it when it is not at hand. Custom resources are decoded each time.
func (r *resource) attachment(ctx context.Context, e *store.Entry) (*store.Attachment, error) {
	if a := e.Attachment(); a != nil && a.Owner == r.owner {
		a.Recent.Store(true)
		return a, nil
	}
	plain, stale, err := r.unseal(ctx, e)
	if err != nil {
		return nil, err
	}
	object, err := r.decode(plain, e.Revision, r.newFunc())
	if err != nil {
		return nil, err
	}
	a := &store.Attachment{Object: object, Owner: r.owner, Plain: plain, Stale: stale}
	if !r.unstructured {
		r.b.objects.add(e, a)
	}
	return a, nil
}

// object returns an entry's decoded form: shared and read-only, but for custom resources.
func (r *resource) object(ctx context.Context, e *store.Entry) (runtime.Object, error) {
	a, err := r.attachment(ctx, e)
	if err != nil {
		return nil, err
	}
	return a.Object.(runtime.Object), nil
}

// load puts an entry into out: a shallow copy when out has the shared object's type.
func (r *resource) load(ctx context.Context, e *store.Entry, out runtime.Object) error {
	if !r.unstructured && reflect.TypeOf(out) == r.owner {
		object, err := r.object(ctx, e)
		if err != nil {
			return err
		}
		assign(out, object)
		return nil
	}
	plain, _, err := r.unseal(ctx, e)
	if err != nil {
		return err
	}
	_, err = r.decode(plain, e.Revision, out)
	return err
}

// assign makes out a shallow copy of object, which has its type.
func assign(out, object runtime.Object) {
	reflect.ValueOf(out).Elem().Set(reflect.ValueOf(object).Elem())
}

// shallow returns a copy whose top-level fields and metadata may be changed.
func shallow(object runtime.Object) runtime.Object {
	from := reflect.ValueOf(object).Elem()
	to := reflect.New(from.Type())
	to.Elem().Set(from)
	return to.Interface().(runtime.Object)
}

// withRevision returns a copy of object that shows another revision.
func (r *resource) withRevision(object runtime.Object, revision int64) (runtime.Object, error) {
	if r.unstructured {
		object = object.DeepCopyObject()
	} else {
		object = shallow(object)
	}
	return object, r.versioner.UpdateObject(object, uint64(revision))
}
