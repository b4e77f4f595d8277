package kubestore

import (
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage"

	"github.com/podvine/podvine/consensus/store"
)

// Companion is a write of another object that happens together with the write it accompanies, or keeps it from happening.
type Companion struct {
	// Resource is the other object's resource; its storage must exist.
	Resource schema.GroupResource
	// Key is the other object's storage key, as its registry's KeyFunc makes it.
	Key string
	// Object is what to write; nil deletes the key, or only checks it when Check is set. It is not changed, and no
	// resource version is read from it.
	Object runtime.Object
	// Revision is the resource version that the object must have now. 0 asks that it does not exist.
	Revision uint64
	// AnyRevision drops the condition.
	AnyRevision bool
	// Check writes nothing: the accompanied write happens only if the condition holds.
	Check bool
}

type companionsKey struct{}

// WithCompanions returns a context whose next write carries more writes along: all of them happen, or none. When a
// companion's condition fails, the write returns a [CompanionError]. An update that changes nothing is still written.
func WithCompanions(ctx context.Context, companions ...Companion) context.Context {
	return context.WithValue(ctx, companionsKey{}, append(slices.Clip(companionsOf(ctx)), companions...))
}

type termKey struct{}

// WithTerm returns a context whose writes happen only while the leader's term is this one: what a loop decided before it
// lost the lead is not written after. See [consensus.Replica.Leading].
func WithTerm(ctx context.Context, term uint64) context.Context {
	return context.WithValue(ctx, termKey{}, term)
}

func termOf(ctx context.Context) uint64 {
	term, _ := ctx.Value(termKey{}).(uint64)
	return term
}

func companionsOf(ctx context.Context) []Companion {
	c, _ := ctx.Value(companionsKey{}).([]Companion)
	return c
}

func hasCompanions(ctx context.Context) bool { return len(companionsOf(ctx)) > 0 }

// companionWrite is a companion ready for the log.
type companionWrite struct {
	write
}

// failure names the condition that found e.
func (c *companionWrite) failure(e *store.Entry) error {
	reason := metav1.StatusReasonConflict
	switch {
	case c.op.Expect == store.ExpectAbsent: // whatever became of it since
		reason = metav1.StatusReasonAlreadyExists
	case e == nil:
		reason = metav1.StatusReasonNotFound
	}
	return &CompanionError{Resource: c.r.group, Key: c.op.Key, Reason: reason}
}

func (b *Backend) companionWrites(ctx context.Context) ([]*companionWrite, error) {
	companions := companionsOf(ctx)
	if len(companions) == 0 {
		return nil, nil
	}
	writes := make([]*companionWrite, len(companions))
	for i := range companions {
		w, err := b.companionWrite(ctx, &companions[i])
		if err != nil {
			return nil, storage.NewInternalError(fmt.Errorf("prepare companion %s %s: %w", companions[i].Resource, companions[i].Key, err))
		}
		writes[i] = w
	}
	return writes, nil
}

func (b *Backend) companionWrite(ctx context.Context, c *Companion) (*companionWrite, error) {
	r := b.resource(c.Resource)
	if r == nil {
		return nil, fmt.Errorf("no storage for %s", c.Resource)
	}
	key, err := r.prepareKey(c.Key, false)
	if err != nil {
		return nil, err
	}
	expect := int64(c.Revision)
	if c.AnyRevision {
		expect = store.ExpectAny
	}
	if c.Object == nil {
		kind := store.OpDelete
		if c.Check {
			kind = store.OpCheck
		}
		return &companionWrite{write{r: r, op: store.Op{Kind: kind, Table: r.table, Key: key, Expect: expect}}}, nil
	}
	object := c.Object.DeepCopyObject()
	if err := r.versioner.PrepareObjectForStorage(object); err != nil {
		return nil, err
	}
	w, err := r.newWrite(ctx, key, object, expect)
	if err != nil {
		return nil, err
	}
	return &companionWrite{*w}, nil
}
