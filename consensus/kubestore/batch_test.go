package kubestore

import (
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/storage"
)

// TestUpdateAllSharesATransaction updates what can be updated in one log entry and says of each other one why not.
func TestUpdateAllSharesATransaction(t *testing.T) {
	k := newKinds(t, Options{})
	s := k.configMaps(t)
	var keys []string
	var conditions []*storage.Preconditions
	for i := range 6 {
		keys = append(keys, fmt.Sprintf("/configmaps/ns/c%d", i))
		conditions = append(conditions, nil)
		if i != 3 {
			mustCreate(t, s, keys[i], configMap(fmt.Sprintf("c%d", i), "old"), nil)
		}
	}
	wrong := types.UID("another")
	conditions[4] = &storage.Preconditions{UID: &wrong}
	refused := errors.New("refused")
	before := k.replica.Status().LastIndex
	errs := s.(*resource).UpdateAll(t.Context(), keys, conditions, func(i int, input runtime.Object) (runtime.Object, error) {
		if i == 1 {
			return nil, refused
		}
		input.(*corev1.ConfigMap).Data = map[string]string{"value": fmt.Sprint("new", i)}
		return input, nil
	})
	if got := k.replica.Status().LastIndex - before; got != 1 {
		t.Errorf("%d log entries, want 1", got)
	}
	for i, err := range errs {
		switch i {
		case 1:
			if !errors.Is(err, refused) {
				t.Errorf("1: %v, want the update's own error", err)
			}
		case 3:
			if !storage.IsNotFound(err) {
				t.Errorf("3: %v, want not found", err)
			}
		case 4:
			if !storage.IsInvalidObj(err) {
				t.Errorf("4: %v, want a failed precondition", err)
			}
		default:
			var got corev1.ConfigMap
			if getErr := s.Get(t.Context(), keys[i], storage.GetOptions{}, &got); getErr != nil || err != nil || got.Data["value"] != fmt.Sprint("new", i) {
				t.Errorf("%d: %v %v %v", i, err, getErr, got.Data)
			}
		}
	}
}

// TestUpdateAllTakesConflictsOut lets another writer come between preparing and committing: only that object is done again.
func TestUpdateAllTakesConflictsOut(t *testing.T) {
	k := newKinds(t, Options{})
	s := k.configMaps(t)
	keys := []string{"/configmaps/ns/a", "/configmaps/ns/b", "/configmaps/ns/c"}
	for i, name := range []string{"a", "b", "c"} {
		mustCreate(t, s, keys[i], configMap(name, "old"), nil)
	}
	set := func(value string) storage.UpdateFunc {
		return storage.SimpleUpdate(func(input runtime.Object) (runtime.Object, error) {
			input.(*corev1.ConfigMap).Data["by"] = value
			return input, nil
		})
	}
	interfered := false
	errs := s.(*resource).UpdateAll(t.Context(), keys, make([]*storage.Preconditions, 3), func(i int, input runtime.Object) (runtime.Object, error) {
		if i == 2 && !interfered {
			interfered = true
			if err := s.GuaranteedUpdate(t.Context(), keys[1], &corev1.ConfigMap{}, false, nil, set("another"), nil); err != nil {
				t.Error(err)
			}
		}
		input.(*corev1.ConfigMap).Data["batch"] = fmt.Sprint(i)
		return input, nil
	})
	for i, key := range keys {
		var got corev1.ConfigMap
		if err := s.Get(t.Context(), key, storage.GetOptions{}, &got); err != nil || errs[i] != nil || got.Data["batch"] != fmt.Sprint(i) {
			t.Errorf("%s: %v %v %v", key, errs[i], err, got.Data)
		}
		if i == 1 && got.Data["by"] != "another" {
			t.Errorf("the other writer's change is lost: %v", got.Data)
		}
	}
}
