package agent

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/podvine/podvine/consensus/sealing"
)

// Replicas that tell each other of their keys, in whatever order, hold the same, in the same order.
func TestReplicasAgreeOnDataKeys(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		drawn := rapid.SliceOfNDistinct(rapid.Uint32Range(1, 30), 1, maxDataKeys, rapid.ID[uint32]).Draw(t, "numbers")
		draw := func(name string) (keys []storedKey) {
			for _, number := range drawn {
				if rapid.Bool().Draw(t, name+"has") {
					keys = append(keys, storedKey{Number: number, Secret: []byte{byte(number)}, Made: time.Unix(int64(number/3), 0), Pending: rapid.Bool().Draw(t, name+"pending")})
				}
			}
			sortDataKeys(keys)
			return keys
		}
		a, b := draw("a"), draw("b")
		one, err := mergeDataKeys(a, b)
		other, otherErr := mergeDataKeys(b, a)
		if err != nil || otherErr != nil {
			t.Fatal(err, otherErr)
		}
		same := func(a, b storedKey) bool { return a.Number == b.Number && a.Pending == b.Pending }
		if !slices.EqualFunc(one, other, same) {
			t.Fatalf("%v and %v", one, other)
		}
		if again, err := mergeDataKeys(one, b); err != nil || !slices.EqualFunc(one, again, same) {
			t.Fatalf("the repetition makes %v of %v", again, one)
		}
	})
}

func TestDataKeysRotate(t *testing.T) {
	folder := t.TempDir()
	open := func(name string) *dataKeys {
		t.Helper()
		keys, err := openDataKeys(filepath.Join(folder, name), filepath.Join(folder, "nothing"))
		if err != nil {
			t.Fatal(err)
		}
		return keys
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	seal := func(k *dataKeys) []byte {
		t.Helper()
		sealed, err := k.ring.Seal([]byte("word"), []byte("at"))
		must(err)
		return sealed
	}
	leader := open("leader")
	first, _, err := leader.export()
	must(err)
	must(writeSecret(filepath.Join(folder, "follower"), first))
	follower := open("follower")
	before := seal(follower)

	must(leader.add(time.Unix(1, 0)))
	waiting, pending, err := leader.export()
	must(err)
	if len(pending) != 1 || len(leader.prints()) != 2 {
		t.Fatalf("pending %v, %v", pending, leader.prints())
	}
	if _, stale, err := leader.ring.Open(before, []byte("at")); stale || err != nil {
		t.Errorf("a pending key seals: stale %t, %v", stale, err)
	}
	must(follower.adopt(waiting))
	must(leader.settle(nil))
	if _, stale, _ := leader.ring.Open(before, []byte("at")); stale {
		t.Error("a key seals that not all replicas are known to hold")
	}
	must(leader.settle(pending))
	sealed := seal(leader)
	if plain, _, err := follower.ring.Open(sealed, []byte("at")); err != nil || string(plain) != "word" {
		t.Errorf("the follower opens %q, %v", plain, err)
	}
	settled, _, err := leader.export()
	must(err)
	must(follower.adopt(settled))
	must(follower.adopt(waiting)) // an old message changes nothing
	if _, stale, err := follower.ring.Open(before, []byte("at")); !stale || err != nil {
		t.Errorf("what the first key sealed: stale %t, %v", stale, err)
	}
	if again := open("follower"); len(again.prints()) != 2 || again.prints()[0] != leader.prints()[0] {
		t.Errorf("opened again: %v, the leader has %v", again.prints(), leader.prints())
	}
	for i := range 2 * maxDataKeys {
		must(leader.add(time.Unix(int64(10+i), 0)))
		_, pending, err := leader.export()
		must(err)
		must(leader.settle(pending))
	}
	for i := range maxPendingDataKeys {
		must(leader.add(time.Unix(int64(100+i), 0)))
	}
	if err := leader.add(time.Unix(200, 0)); err == nil {
		t.Error("keys that wait have no bound")
	}
	if held := len(leader.prints()); held != maxDataKeys || held >= sealing.MaxKeys {
		t.Errorf("%d keys are kept", held)
	}
	if _, _, err := leader.ring.Open(before, []byte("at")); !errors.Is(err, sealing.ErrUnknownKey) {
		t.Errorf("the oldest key: %v", err)
	}
	if err := leader.adopt([]byte(`[{"number":1,"secret":"AAAA"}]`)); err == nil {
		t.Error("a key of the wrong length was adopted")
	}
}
