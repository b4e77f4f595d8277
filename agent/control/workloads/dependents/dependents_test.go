package dependents

import (
	"errors"
	"slices"
	"sync"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestInBatches: every index once, in batches that double, and no batch after a failure.
func TestInBatches(t *testing.T) {
	var mu sync.Mutex
	run := func(count, broken int) (seen []int, err error) {
		err = InBatches(count, func(i int) error {
			mu.Lock()
			defer mu.Unlock()
			seen = append(seen, i)
			if i == broken {
				return errors.New("refused")
			}
			return nil
		})
		slices.Sort(seen)
		return seen, err
	}
	if seen, err := run(10, -1); err != nil || len(seen) != 10 || seen[0] != 0 || seen[9] != 9 {
		t.Errorf("all: %v, %v", seen, err)
	}
	if seen, err := run(100, 0); err == nil || len(seen) != 1 {
		t.Errorf("the first is refused: %v, %v", seen, err)
	}
	if seen, err := run(100, 4); err == nil || len(seen) != 7 {
		t.Errorf("one of the third batch is refused: %v, %v; want 1, 2 and 4", seen, err)
	}
	if seen, err := run(0, 0); err != nil || len(seen) != 0 {
		t.Errorf("none: %v, %v", seen, err)
	}
}

// TestConfirm: only a living owner of the same UID may adopt.
func TestConfirm(t *testing.T) {
	owner := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "o", UID: "1"}}
	another, ending := owner.DeepCopy(), owner.DeepCopy()
	another.UID, ending.DeletionTimestamp = "2", &metav1.Time{}
	if err := Confirm(owner, owner.DeepCopy(), nil); err != nil {
		t.Error(err)
	}
	for name, live := range map[string]metav1.Object{"another": another, "one that ends": ending} {
		if Confirm(owner, live, nil) == nil {
			t.Errorf("%s may adopt", name)
		}
	}
	if Confirm(owner, nil, errors.New("not found")) == nil {
		t.Error("one that is gone may adopt")
	}
}
