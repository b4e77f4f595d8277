package kubestore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"

	"github.com/podvine/podvine/consensus/store"
)

// eventView is an event as one resource's codec sees it, built once and shared by that resource's watches.
type eventView struct {
	r  *resource
	ev *store.Event

	attrs    sync.Once
	attrsErr error
	now      attributes
	before   attributes

	current side
	removed side
}

type attributes struct {
	labels labels.Set
	fields fields.Set
}

// side is the object that an event shows, plain for this process and wrapped for the wire.
type side struct {
	once    sync.Once
	plain   runtime.Object
	wrapped runtime.Object
	err     error
}

// view returns the event's shared view. Custom resources of several versions share a table; only the first codec's view
// is kept.
func (r *resource) view(ev *store.Event) *eventView {
	if a := ev.Attachment(); a != nil {
		if a.Owner == r.owner {
			return a.Object.(*eventView)
		}
		return &eventView{r: r, ev: ev}
	}
	a := r.b.events.add(ev, &store.Attachment{Owner: r.owner, Object: &eventView{r: r, ev: ev}})
	if a.Owner != r.owner {
		return &eventView{r: r, ev: ev}
	}
	return a.Object.(*eventView)
}

// classify tells what the event is to a watch with this predicate; "" is nothing.
func (v *eventView) classify(ctx context.Context, pred *storage.SelectionPredicate, everything bool) (watch.EventType, error) {
	ctx = context.WithoutCancel(ctx) // what is read here is kept for the other watches
	now, before := v.ev.Current != nil, v.ev.Previous != nil
	if !everything {
		var err error
		if now, err = v.matches(ctx, v.ev.Current, pred, true); err != nil {
			return "", err
		}
		if before, err = v.matches(ctx, v.ev.Previous, pred, false); err != nil {
			return "", err
		}
	}
	switch {
	case now && before:
		return watch.Modified, nil
	case now:
		return watch.Added, nil
	case before:
		return watch.Deleted, nil
	default:
		return "", nil
	}
}

func (v *eventView) matches(ctx context.Context, e *store.Entry, pred *storage.SelectionPredicate, isNow bool) (bool, error) {
	if e == nil {
		return false, nil
	}
	sharded := pred.ShardSelector != nil && !pred.ShardSelector.Empty()
	if v.r.attrs == nil || sharded {
		object, err := v.r.object(ctx, e)
		if err != nil {
			return false, err
		}
		ok, err := pred.Matches(object)
		return ok && err == nil, nil
	}
	v.attrs.Do(func() { v.attrsErr = v.readAttributes(ctx) })
	if v.attrsErr != nil {
		return false, v.attrsErr
	}
	a := &v.before
	if isNow {
		a = &v.now
	}
	return pred.MatchesObjectAttributes(a.labels, a.fields), nil
}

// fields returns the fields of the object as it is and as it was, nil for one that is not there.
func (v *eventView) fields(ctx context.Context) (now, before fields.Set, err error) {
	v.attrs.Do(func() { v.attrsErr = v.readAttributes(context.WithoutCancel(ctx)) })
	present := func(e *store.Entry, a *attributes) fields.Set {
		if e != nil && a.fields == nil {
			return fields.Set{}
		}
		return a.fields
	}
	return present(v.ev.Current, &v.now), present(v.ev.Previous, &v.before), v.attrsErr
}

func (v *eventView) readAttributes(ctx context.Context) error {
	read := func(e *store.Entry, into *attributes) error {
		if e == nil {
			return nil
		}
		object, err := v.r.object(ctx, e)
		if err != nil {
			return err
		}
		into.labels, into.fields, err = v.r.attrs(object)
		return err
	}
	if err := read(v.ev.Current, &v.now); err != nil {
		return err
	}
	return read(v.ev.Previous, &v.before)
}

// object returns what the event shows: the new object, or for a deletion the old one at the deletion's revision.
func (v *eventView) object(ctx context.Context, kind watch.EventType, plain bool) (runtime.Object, error) {
	s, e := &v.current, v.ev.Current
	if kind == watch.Deleted {
		s, e = &v.removed, v.ev.Previous
	}
	ctx = context.WithoutCancel(ctx)
	s.once.Do(func() {
		if s.plain, s.err = v.r.object(ctx, e); s.err != nil {
			return
		}
		if kind == watch.Deleted {
			if s.plain, s.err = v.r.withRevision(s.plain, v.ev.Revision); s.err != nil {
				return
			}
		}
		s.wrapped = s.plain
		if m, ok := s.plain.(metaObject); ok {
			s.wrapped = &sharedObject{metaObject: m}
		}
	})
	if plain {
		return s.plain, s.err
	}
	return s.wrapped, s.err
}

type metaObject interface {
	runtime.Object
	metav1.Object
}

// sharedObject is an object whose encodings are made once for all who ask. It is read-only.
type sharedObject struct {
	metaObject

	mu        sync.Mutex
	encodings map[runtime.Identifier]*encoding
}

var _ runtime.CacheableObject = (*sharedObject)(nil)

type encoding struct {
	once sync.Once
	raw  []byte
	err  error
}

// GetObject implements runtime.CacheableObject: a copy whose top-level fields the caller may set.
func (s *sharedObject) GetObject() runtime.Object {
	if _, ok := s.metaObject.(runtime.Unstructured); ok {
		return s.metaObject.DeepCopyObject()
	}
	return shallow(s.metaObject)
}

// DeepCopyObject implements runtime.Object.
func (s *sharedObject) DeepCopyObject() runtime.Object {
	return &sharedObject{metaObject: s.metaObject.DeepCopyObject().(metaObject)}
}

// CacheEncode implements runtime.CacheableObject.
func (s *sharedObject) CacheEncode(id runtime.Identifier, encode func(runtime.Object, io.Writer) error, w io.Writer) error {
	s.mu.Lock()
	e := s.encodings[id]
	if e == nil {
		if s.encodings == nil {
			s.encodings = map[runtime.Identifier]*encoding{}
		}
		e = &encoding{}
		s.encodings[id] = e
	}
	s.mu.Unlock()
	e.once.Do(func() {
		var b bytes.Buffer
		e.err = encode(s.GetObject(), &b)
		e.raw = b.Bytes()
	})
	if e.err != nil {
		return e.err
	}
	if splice, ok := w.(runtime.Splice); ok {
		splice.Splice(e.raw)
		return nil
	}
	if _, err := w.Write(e.raw); err != nil {
		return fmt.Errorf("write shared encoding: %w", err)
	}
	return nil
}
