package sealing

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func newRing(t *testing.T, keys ...Key) *Ring {
	t.Helper()
	r, err := NewRing(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSealedOpensOnlyWhereItBelongs(t *testing.T) {
	r := newRing(t, NewKey(1))
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		at := rapid.SliceOf(rapid.Byte()).Draw(t, "at")
		sealed, err := r.Seal(plain, at)
		if err != nil {
			t.Fatal(err)
		}
		got, stale, err := r.Open(sealed, at)
		if err != nil || stale || !bytes.Equal(got, plain) {
			t.Fatalf("opened %q, %v, %v", got, stale, err)
		}
		if len(plain) > 8 && bytes.Contains(sealed, plain) {
			t.Fatal("the plain value shows")
		}
		if _, _, err := r.Open(sealed, append(at, 'x')); !errors.Is(err, ErrTampered) {
			t.Fatalf("a value opened at another key: %v", err)
		}
		i := rapid.IntRange(0, len(sealed)-1).Draw(t, "damage")
		sealed[i] ^= 1
		if _, _, err := r.Open(sealed, at); !errors.Is(err, ErrTampered) && !errors.Is(err, ErrUnknownKey) {
			t.Fatalf("a value damaged at %d opened: %v", i, err)
		}
		if _, _, err := r.Open(sealed[:i], at); !errors.Is(err, ErrTampered) && !errors.Is(err, ErrUnknownKey) {
			t.Fatalf("a value cut at %d opened: %v", i, err)
		}
	})
}

func TestRotation(t *testing.T) {
	one, two := NewKey(1), NewKey(2)
	r := newRing(t, one)
	old, err := r.Seal([]byte("secret"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Rotate(two, one); err != nil {
		t.Fatal(err)
	}
	if plain, stale, err := r.Open(old, nil); err != nil || !stale || string(plain) != "secret" {
		t.Fatalf("an old value: %q, stale %v, %v", plain, stale, err)
	}
	sealed, err := r.Seal([]byte("secret"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, stale, err := r.Open(sealed, nil); err != nil || stale {
		t.Fatalf("a new value is stale: %v, %v", stale, err)
	}
	if err := r.Rotate(two); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Open(old, nil); !errors.Is(err, ErrUnknownKey) {
		t.Fatalf("a value of a dropped key opened: %v", err)
	}
	if err := r.Rotate(two, two); err == nil {
		t.Fatal("a ring took a number twice")
	}
	if err := r.Rotate(); err == nil {
		t.Fatal("a ring took no keys")
	}
}

func TestExhaustedKeyRefuses(t *testing.T) {
	k := NewKey(1)
	r := newRing(t, k)
	r.first().seals.Store(MaxSealsPerKey)
	if _, err := r.Seal(nil, nil); !errors.Is(err, ErrExhausted) {
		t.Fatal(err)
	}
	if err := r.Rotate(NewKey(2), k); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Seal(nil, nil); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkSeal(b *testing.B) {
	r, err := NewRing(NewKey(1))
	if err != nil {
		b.Fatal(err)
	}
	plain, at := make([]byte, 1024), []byte("/secrets/default/name")
	for b.Loop() {
		if _, err := r.Seal(plain, at); err != nil {
			b.Fatal(err)
		}
	}
}
