package kubestore

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage"
)

// lateSource answers each attempt from a list.
type lateSource struct {
	answers []func() ([]Companion, error)
	asked   int
	done    int
}

func (s *lateSource) Companions(_ context.Context, attempt int) ([]Companion, error) {
	s.asked++
	return s.answers[min(attempt, len(s.answers)-1)]()
}

func (s *lateSource) Done() { s.done++ }

// TestLateCompanions: a source that is put into a context after it was made is asked for the next write only, again when
// its condition failed, and its error ends the write.
func TestLateCompanions(t *testing.T) {
	k := newKinds(t, Options{})
	maps, secrets := k.configMaps(t), k.secrets(t)
	secret := func(revision uint64) ([]Companion, error) {
		return []Companion{{Resource: schema.GroupResource{Resource: "secrets"}, Key: "/secrets/ns/s", Revision: revision,
			Object: &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "ns"}}}}, nil
	}
	wrong, right := func() ([]Companion, error) { return secret(77) }, func() ([]Companion, error) { return secret(0) }
	refuses := func() ([]Companion, error) { return nil, errors.New("refused") }
	ctx := WithLate(t.Context())

	source := &lateSource{answers: []func() ([]Companion, error){wrong, right}}
	LateOf(ctx).Set(source)
	if err := maps.Create(ctx, "/configmaps/ns/a", configMap("a", "1"), nil, 0); err != nil || source.asked != 2 || source.done != 1 {
		t.Fatalf("%v, asked %d times, done %d times", err, source.asked, source.done)
	}
	if err := secrets.Get(t.Context(), "/secrets/ns/s", storage.GetOptions{}, &corev1.Secret{}); err != nil {
		t.Fatalf("the companion: %v", err)
	}
	if err := maps.Create(ctx, "/configmaps/ns/b", configMap("b", "1"), nil, 0); err != nil || source.asked != 2 {
		t.Fatalf("the write after: %v, asked %d times", err, source.asked)
	}
	for name, source := range map[string]*lateSource{
		"always too late": {answers: []func() ([]Companion, error){wrong}},
		"refused":         {answers: []func() ([]Companion, error){wrong, refuses}},
	} {
		LateOf(ctx).Set(source)
		if err := maps.Create(ctx, "/configmaps/ns/c", configMap("c", "1"), nil, 0); err == nil || source.done != 1 {
			t.Errorf("%s: %v, done %d times", name, err, source.done)
		}
		if err := maps.Get(t.Context(), "/configmaps/ns/c", storage.GetOptions{}, &corev1.ConfigMap{}); !storage.IsNotFound(err) {
			t.Errorf("%s: it was written: %v", name, err)
		}
	}
	source = &lateSource{answers: []func() ([]Companion, error){right}}
	LateOf(ctx).Set(source)
	LateOf(ctx).Set(nil)
	if err := maps.Create(ctx, "/configmaps/ns/d", configMap("d", "1"), nil, 0); err != nil || source.asked != 0 {
		t.Errorf("taken away: %v, asked %d times", err, source.asked)
	}
}
