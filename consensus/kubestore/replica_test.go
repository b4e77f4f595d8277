package kubestore

import (
	"testing"

	"github.com/podvine/podvine/consensus"
	"github.com/podvine/podvine/consensus/store"
)

// advance writes a key of no resource and returns its revision.
func advance(t testing.TB, replica *consensus.Replica) int64 {
	t.Helper()
	result, err := replica.Propose(t.Context(), consensus.Proposal{Command: store.Command{Ops: []store.Op{
		{Kind: store.OpPut, Table: "/advance", Key: "/advance/key", Expect: store.ExpectAny, Value: []byte("x")},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return result.Revision
}
