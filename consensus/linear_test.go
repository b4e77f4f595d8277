package consensus

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/podvine/podvine/consensus/store"
)

const (
	linearClients    = 8
	linearOpsPerStep = 60
	linearKeys       = 3
	linearSteps      = 4
)

type linearKind int

const (
	linearRead linearKind = iota
	linearPut
	linearCreate
	linearDelete
)

type linearInput struct {
	key   int
	kind  linearKind
	value string
}

// linearOutput is what a client saw. An unknown write fits whether it happened or not.
type linearOutput struct {
	value    string
	ok       bool
	unknown  bool
	rejected bool
}

// linearModel is one register a key; "" is absent.
func linearModel() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
			byKey := make([][]porcupine.Operation, linearKeys)
			for _, op := range history {
				k := op.Input.(linearInput).key
				byKey[k] = append(byKey[k], op)
			}
			return byKey
		},
		Init: func() []any { return []any{""} },
		Step: func(state, input, output any) []any {
			return linearStep(state.(string), input.(linearInput), output.(linearOutput))
		},
		DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
	}
	return m.ToModel()
}

func linearStep(state string, in linearInput, out linearOutput) []any {
	after, ok := state, true
	switch in.kind {
	case linearRead:
		if out.unknown || out.value == state {
			return []any{state}
		}
		return nil
	case linearPut:
		after = in.value
	case linearCreate:
		if ok = state == ""; ok {
			after = in.value
		}
	case linearDelete:
		after = ""
	}
	if out.unknown {
		return []any{state, after}
	}
	if ok != out.ok {
		return nil
	}
	return []any{after}
}

// linearRun lets clients work on one replica after another, each opened on the last one's directory.
type linearRun struct {
	replica atomic.Pointer[Replica]
	start   time.Time
	mu      sync.Mutex
	history []porcupine.Operation
}

func (l *linearRun) do(ctx context.Context, in linearInput) linearOutput {
	r := l.replica.Load()
	key := fmt.Sprint("key-", in.key)
	if in.kind == linearRead {
		if _, err := r.ReadRevision(ctx); err != nil {
			return linearOutput{rejected: true}
		}
		return linearOutput{value: read(r, key)}
	}
	c := putCommand(key, in.value, store.ExpectAny)
	switch in.kind {
	case linearCreate:
		c.Ops[0].Expect = store.ExpectAbsent
	case linearDelete:
		c.Ops[0].Kind, c.Ops[0].Value = store.OpDelete, nil
	}
	result, err := r.Propose(ctx, Proposal{Command: c})
	if err != nil {
		unknown := errors.Is(err, ErrUnknownOutcome)
		return linearOutput{unknown: unknown, rejected: !unknown}
	}
	return linearOutput{ok: result.Code == store.CodeCommitted}
}

func (l *linearRun) client(ctx context.Context, id, step int) {
	rng := rand.New(rand.NewPCG(uint64(id), uint64(step)))
	for i := range linearOpsPerStep {
		in := linearInput{key: rng.IntN(linearKeys), kind: linearKind(rng.IntN(4)), value: fmt.Sprintf("%d-%d-%d", step, id, i)}
		call := time.Since(l.start).Nanoseconds()
		out := l.do(ctx, in)
		end := time.Since(l.start).Nanoseconds()
		if out.rejected {
			continue // it never reached the log
		}
		if out.unknown {
			end = math.MaxInt64
		}
		l.mu.Lock()
		l.history = append(l.history, porcupine.Operation{ClientId: id, Input: in, Call: call, Output: out, Return: end})
		l.mu.Unlock()
		if out.unknown {
			return // a client whose answer was lost does nothing after it
		}
	}
}

// TestHistoriesAreLinearizable runs clients against a replica that is closed and reopened under them.
func TestHistoriesAreLinearizable(t *testing.T) {
	cfg := testConfig(t.TempDir())
	l := &linearRun{start: time.Now()}
	for step := range linearSteps {
		r := open(t, cfg)
		l.replica.Store(r)
		var clients sync.WaitGroup
		for id := range linearClients {
			clients.Go(func() { l.client(t.Context(), id+step*linearClients, step) })
		}
		if step%2 == 1 {
			eventually(t, 10*time.Second, "half the writes", func() bool { return r.Store().Revision() > int64(step)*linearClients*linearOpsPerStep/4 })
		} else {
			clients.Wait()
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		clients.Wait()
	}
	result, _ := porcupine.CheckOperationsVerbose(linearModel(), l.history, 30*time.Second)
	if result != porcupine.Ok {
		t.Fatalf("%d operations: %v", len(l.history), result)
	}
	if len(l.history) < linearClients*linearOpsPerStep {
		t.Fatalf("only %d operations were recorded", len(l.history))
	}
}
