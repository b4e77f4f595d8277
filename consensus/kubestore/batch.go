package kubestore

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"

	"github.com/podvine/podvine/consensus"
	"github.com/podvine/podvine/consensus/store"
)

// maxBatchBytes bounds one transaction of UpdateAll, as log entries are bounded; a single larger object still gets one.
const maxBatchBytes = 1 << 20

// batched is one object of a batch on its way into the log.
type batched struct {
	*write
	index int
}

// UpdateAll does what as many GuaranteedUpdates do, each with its own error, but in as few transactions as fit: one for
// each megabyte. Objects that conflict are taken out of their transaction and updated alone. update must be repeatable.
func (r *resource) UpdateAll(ctx context.Context, keys []string, preconditions []*storage.Preconditions,
	update func(i int, input runtime.Object) (runtime.Object, error),
) []error {
	errs := make([]error, len(keys))
	try := func(i int) storage.UpdateFunc {
		return storage.SimpleUpdate(func(input runtime.Object) (runtime.Object, error) { return update(i, input) })
	}
	var batch []batched
	var alone []int
	taken := make(map[string]bool, len(keys))
	for i, key := range keys {
		w := r.prepareUpdate(ctx, key, preconditions[i], try(i))
		if w == nil || taken[w.op.Key] {
			alone = append(alone, i) // it is refused there, or waits for newer state
			continue
		}
		taken[w.op.Key] = true
		batch = append(batch, batched{w, i})
	}
	for len(batch) > 0 {
		n := fitting(batch)
		result, err := r.commitBatch(ctx, batch[:n])
		switch {
		case err != nil:
			for _, b := range batch[:n] {
				errs[b.index] = err
			}
		case result.Code == store.CodeConflict:
			alone = append(alone, batch[result.FailedOp].index)
			batch = slices.Delete(batch, result.FailedOp, result.FailedOp+1)
			continue
		}
		batch = batch[n:]
	}
	for _, i := range alone {
		errs[i] = r.GuaranteedUpdate(ctx, keys[i], r.newFunc(), false, preconditions[i], try(i), nil)
	}
	return errs
}

// fitting is how many of the batch go into the next transaction, at least one.
func fitting(batch []batched) int {
	size := 0
	for n, b := range batch {
		if size += len(b.op.Value); n > 0 && (size > maxBatchBytes || n == store.MaxOpsPerCommand) {
			return n
		}
	}
	return len(batch)
}

// prepareUpdate makes the write of one update from the local state; nil when there is none to make from it.
func (r *resource) prepareUpdate(ctx context.Context, key string, preconditions *storage.Preconditions, try storage.UpdateFunc) *write {
	key, err := r.prepareKey(key, false)
	if err != nil {
		return nil
	}
	cur := r.current(key)
	u, err := r.tryUpdate(ctx, key, cur, false, preconditions, try)
	if err != nil || u.unchanged {
		return nil
	}
	w, err := r.newEncodedWrite(ctx, key, u.plain, revisionOf(cur.entry))
	if err != nil {
		return nil
	}
	w.op.ExpiresUnixMilli = u.expires
	return w
}

func (r *resource) commitBatch(ctx context.Context, batch []batched) (store.Result, error) {
	ops := make([]store.Op, len(batch))
	for i, b := range batch {
		ops[i] = b.op
	}
	result, err := r.b.replica.Propose(ctx, consensus.Proposal{
		Command: store.Command{Ops: ops, Term: termOf(ctx)},
		Attach:  func(op int, e *store.Entry) bool { return batch[op].attach(e) },
	})
	switch {
	case err != nil:
		return result, proposeError(err)
	case result.Code == store.CodeFenced:
		return result, unavailable(ErrFenced)
	case result.Code != store.CodeCommitted && result.Code != store.CodeConflict:
		return result, storage.NewInternalError(fmt.Errorf("command was not applied: code %d", result.Code))
	}
	return result, nil
}
