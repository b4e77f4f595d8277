package kubestore

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"time"

	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"

	"github.com/podvine/podvine/consensus"
	"github.com/podvine/podvine/consensus/store"
)

// maxSlackBytes is how much unused room behind an encoded value is kept rather than copied away.
const maxSlackBytes = 64

// write is one object on its way into the log.
type write struct {
	op    store.Op
	plain []byte
	// object is decoded from plain, nil for deletions and custom resources.
	object runtime.Object
	// attached is set once object is shared and bears its version.
	attached bool
	r        *resource
}

// newWrite encodes object, which is the caller's and is only read, and reads it back for those who will share it.
func (r *resource) newWrite(ctx context.Context, key string, object runtime.Object, expect int64) (*write, error) {
	plain, err := runtime.Encode(r.codec, object)
	if err != nil {
		return nil, err
	}
	return r.newEncodedWrite(ctx, key, plain, expect)
}

func (r *resource) newEncodedWrite(ctx context.Context, key string, plain []byte, expect int64) (*write, error) {
	if cap(plain)-len(plain) > maxSlackBytes {
		plain = bytes.Clone(plain) // it stays in memory as long as the object
	}
	sealed, err := r.seal(ctx, key, plain)
	if err != nil {
		return nil, err
	}
	w := &write{r: r, plain: plain, op: store.Op{Kind: store.OpPut, Table: r.table, Key: key, Expect: expect, Value: sealed}}
	if r.unstructured || !r.b.objects.enabled() {
		return w, nil
	}
	if w.object, _, err = r.codec.Decode(plain, nil, r.newFunc()); err != nil {
		return nil, fmt.Errorf("read back %s: %w", key, err)
	}
	return w, nil
}

// attach runs before the entry is visible: it saves others from decoding what is decoded here.
func (w *write) attach(e *store.Entry) bool {
	e.Value = w.op.Value
	if w.object == nil {
		return true
	}
	if err := w.r.versioner.UpdateObject(w.object, uint64(e.Revision)); err != nil {
		return true
	}
	w.share(e)
	return true
}

func (w *write) share(e *store.Entry) {
	w.attached = true
	w.r.b.objects.add(e, &store.Attachment{Object: w.object, Owner: w.r.owner, Plain: w.plain})
}

// adopt does what attach does for a write that another node applied first: its entry is visible already.
func (w *write) adopt(revision int64) {
	if w.attached || w.object == nil {
		return
	}
	if err := w.r.versioner.UpdateObject(w.object, uint64(revision)); err != nil {
		return
	}
	if e, _ := w.r.b.replica.Store().Get(w.r.table, w.op.Key); e != nil && e.Revision == revision {
		w.share(e)
	}
}

// load puts what was written at revision into out.
func (w *write) load(revision int64, out runtime.Object) error {
	if w.object != nil && reflect.TypeOf(out) == w.r.owner {
		assign(out, w.object)
		return nil
	}
	_, err := w.r.decode(w.plain, revision, out)
	return err
}

// commit proposes a write with the companions of ctx. A conflict over the write itself is a result, over a companion an error.
func (r *resource) commit(ctx context.Context, w *write) (store.Result, error) {
	if source := takeLate(ctx); source != nil {
		return r.commitLate(ctx, w, source)
	}
	return r.commitWith(ctx, w)
}

func (r *resource) commitWith(ctx context.Context, w *write) (_ store.Result, err error) {
	defer func(began time.Time) { r.measure(w.verb(), began, err) }(time.Now())
	companions, err := r.b.companionWrites(ctx)
	if err != nil {
		return store.Result{}, err
	}
	ops := make([]store.Op, 1+len(companions))
	ops[0] = w.op
	for i, c := range companions {
		ops[i+1] = c.op
	}
	result, err := r.b.replica.Propose(ctx, consensus.Proposal{
		Command: store.Command{Ops: ops, Term: termOf(ctx)},
		Attach: func(op int, e *store.Entry) bool {
			if op > 0 {
				return companions[op-1].attach(e)
			}
			return w.attach(e)
		},
	})
	if err != nil {
		return result, proposeError(err)
	}
	if result.Code == store.CodeCommitted {
		w.adopt(result.FirstRevision)
	}
	if result.Code == store.CodeConflict && result.FailedOp > 0 {
		return result, companions[result.FailedOp-1].failure(result.Current)
	}
	if result.Code == store.CodeFenced {
		return result, unavailable(ErrFenced)
	}
	if result.Code != store.CodeCommitted && result.Code != store.CodeConflict {
		return result, storage.NewInternalError(fmt.Errorf("command was not applied: code %d", result.Code))
	}
	return result, nil
}

func (r *resource) expiry(ttlSeconds uint64) int64 {
	if ttlSeconds == 0 {
		return 0
	}
	return r.b.replica.Now().Add(time.Duration(ttlSeconds) * time.Second).UnixMilli()
}

// Create implements storage.Interface.
func (r *resource) Create(ctx context.Context, key string, obj, out runtime.Object, ttl uint64) error {
	key, err := r.prepareKey(key, false)
	if err != nil {
		return err
	}
	if version, err := r.versioner.ObjectResourceVersion(obj); err == nil && version != 0 {
		return storage.ErrResourceVersionSetOnCreate
	}
	if err := r.versioner.PrepareObjectForStorage(obj); err != nil {
		return fmt.Errorf("prepare object: %w", err)
	}
	w, err := r.newWrite(ctx, key, obj, store.ExpectAbsent)
	if err != nil {
		return err
	}
	w.op.ExpiresUnixMilli = r.expiry(ttl)
	result, err := r.commit(ctx, w)
	if err != nil {
		return err
	}
	if result.Code == store.CodeConflict {
		return storage.NewKeyExistsError(key, 0)
	}
	if out == nil {
		return nil
	}
	return w.load(result.FirstRevision, out)
}

// current is what a write starts from. The local store may be behind; fresh says that it was not.
type current struct {
	entry *store.Entry
	fresh bool
}

func (r *resource) current(key string) current {
	e, _ := r.b.replica.Store().Get(r.table, key)
	return current{entry: e}
}

// refresh reads again, as new as any acknowledged write. It reports whether something changed.
func (r *resource) refresh(ctx context.Context, key string, was current) (current, bool, error) {
	if _, err := r.b.replica.ReadRevision(ctx); err != nil {
		return was, false, unavailable(err)
	}
	now := r.current(key)
	now.fresh = true
	return now, revisionOf(now.entry) != revisionOf(was.entry), nil
}

func revisionOf(e *store.Entry) int64 {
	if e == nil {
		return 0
	}
	return e.Revision
}

// retry decides what to do about cause: go on from newer state when there is one, give up otherwise.
func (r *resource) retry(ctx context.Context, key string, was current, cause error) (current, error) {
	if was.fresh {
		return was, cause
	}
	now, changed, err := r.refresh(ctx, key, was)
	if err != nil {
		return now, err
	}
	if !changed {
		return now, cause
	}
	return now, nil
}

// Delete implements storage.Interface. A suggestion is not needed: the local store is as near.
func (r *resource) Delete(ctx context.Context, key string, out runtime.Object, preconditions *storage.Preconditions,
	validate storage.ValidateObjectFunc, _ runtime.Object, opts storage.DeleteOptions,
) error {
	key, err := r.prepareKey(key, false)
	if err != nil {
		return err
	}
	if _, err := conversion.EnforcePtr(out); err != nil {
		return fmt.Errorf("unable to convert output object to pointer: %w", err)
	}
	for cur := r.current(key); ; {
		cause := r.checkDelete(ctx, key, cur, preconditions, validate, opts)
		if cause != nil {
			if cur, err = r.retry(ctx, key, cur, cause); err != nil {
				return err
			}
			continue
		}
		w := &write{r: r, op: store.Op{Kind: store.OpDelete, Table: r.table, Key: key, Expect: cur.entry.Revision}}
		result, err := r.commit(ctx, w)
		if err != nil {
			return err
		}
		if result.Code == store.CodeConflict {
			cur = current{entry: result.Current, fresh: true}
			continue
		}
		if opts.ExpectTransformOrDecodeError {
			return nil
		}
		if err := r.load(ctx, cur.entry, out); err != nil {
			return err
		}
		return r.versioner.UpdateObject(out, uint64(result.FirstRevision))
	}
}

func (r *resource) checkDelete(ctx context.Context, key string, cur current, preconditions *storage.Preconditions,
	validate storage.ValidateObjectFunc, opts storage.DeleteOptions,
) error {
	if cur.entry == nil {
		return storage.NewKeyNotFoundError(key, 0)
	}
	object, err := r.object(ctx, cur.entry)
	if opts.ExpectTransformOrDecodeError {
		if err == nil {
			return storage.NewCorruptObjError(key, fmt.Errorf("%q has no transform or decode error", key))
		}
		return validate(ctx, nil)
	}
	if err != nil {
		return err
	}
	if preconditions != nil {
		if err := preconditions.Check(key, object); err != nil {
			return err
		}
	}
	return validate(ctx, object)
}

// GuaranteedUpdate implements storage.Interface. A suggestion is not needed: the local store is as near.
func (r *resource) GuaranteedUpdate(ctx context.Context, key string, destination runtime.Object, ignoreNotFound bool,
	preconditions *storage.Preconditions, tryUpdate storage.UpdateFunc, _ runtime.Object,
) error {
	key, err := r.prepareKey(key, false)
	if err != nil {
		return err
	}
	if _, err := conversion.EnforcePtr(destination); err != nil {
		return fmt.Errorf("unable to convert output object to pointer: %w", err)
	}
	for cur := r.current(key); ; {
		u, cause := r.tryUpdate(ctx, key, cur, ignoreNotFound, preconditions, tryUpdate)
		if cause != nil {
			if cur, err = r.retry(ctx, key, cur, cause); err != nil {
				return err
			}
			continue
		}
		if u.unchanged {
			if !cur.fresh {
				now, changed, err := r.refresh(ctx, key, cur)
				if err != nil {
					return err
				}
				if cur = now; changed {
					continue
				}
			}
			return r.load(ctx, cur.entry, destination)
		}
		w, err := r.newEncodedWrite(ctx, key, u.plain, revisionOf(cur.entry))
		if err != nil {
			return err
		}
		w.op.ExpiresUnixMilli = u.expires
		result, err := r.commit(ctx, w)
		if err != nil {
			return err
		}
		if result.Code == store.CodeConflict {
			cur = current{entry: result.Current, fresh: true}
			continue
		}
		return w.load(result.FirstRevision, destination)
	}
}

// update is what an update function made of the current object.
type update struct {
	plain     []byte
	expires   int64
	unchanged bool
}

func (r *resource) tryUpdate(ctx context.Context, key string, cur current, ignoreNotFound bool,
	preconditions *storage.Preconditions, try storage.UpdateFunc,
) (update, error) {
	in, a, err := r.forUpdate(ctx, key, cur.entry, ignoreNotFound)
	if err != nil {
		return update{}, err
	}
	if err := preconditions.Check(key, in); err != nil {
		return update{}, err
	}
	meta := storage.ResponseMeta{ResourceVersion: uint64(revisionOf(cur.entry))}
	var expires int64
	if cur.entry != nil && cur.entry.ExpiresUnixMilli != 0 {
		expires = cur.entry.ExpiresUnixMilli
		meta.TTL = (expires - r.b.replica.Now().UnixMilli()) / int64(time.Second/time.Millisecond)
	}
	ret, ttl, err := try(in, meta)
	if err != nil {
		return update{}, err
	}
	if ttl != nil {
		expires = r.expiry(*ttl)
	}
	if err := r.versioner.PrepareObjectForStorage(ret); err != nil {
		return update{}, fmt.Errorf("prepare object: %w", err)
	}
	plain, err := runtime.Encode(r.codec, ret)
	if err != nil {
		return update{}, err
	}
	u := update{plain: plain, expires: expires}
	u.unchanged = cur.entry != nil && !a.Stale && bytes.Equal(plain, a.Plain) && !hasCompanions(ctx)
	return u, nil
}

// forUpdate returns an object that the update function may change, and what it was made of.
func (r *resource) forUpdate(ctx context.Context, key string, e *store.Entry, ignoreNotFound bool) (runtime.Object, *store.Attachment, error) {
	if e == nil {
		if !ignoreNotFound {
			return nil, nil, storage.NewKeyNotFoundError(key, 0)
		}
		return r.newFunc(), nil, nil
	}
	a, err := r.attachment(ctx, e)
	if err != nil {
		return nil, nil, err
	}
	object := a.Object.(runtime.Object)
	if !r.unstructured {
		object = object.DeepCopyObject()
	}
	return object, a, nil
}
