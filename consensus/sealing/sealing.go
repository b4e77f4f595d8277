// Package sealing encrypts values before they enter the replicated log, with keys that rotate.
//
// Role. A [Ring] holds data keys: it seals with the first and opens with any of them. [Ring.Transformer] fits the storage
// seam of k8s.io/apiserver. A value sealed with an older key is reported as stale, so that the next write of its object,
// even one that changes nothing, seals it anew.
//
// A sealed value is a version byte, the key's number (32 bits, big-endian), a 12-byte random nonce and the AES-256-GCM
// ciphertext. Version, number and the storage key are authenticated, so that a value cannot be moved to another key. Each
// key seals at most [MaxSealsPerKey] values, far below what random nonces allow.
//
// Concurrency. All methods may be called from any goroutine; a rotation takes effect for the next value.
package sealing

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"k8s.io/apiserver/pkg/storage/value"
)

const (
	// KeyBytes is the length of a data key.
	KeyBytes = 32
	// MaxKeys bounds a ring.
	MaxKeys = 16
	// MaxSealsPerKey is how many values one key seals in this process before it refuses; rotate long before.
	MaxSealsPerKey = 1 << 31

	sealVersion  = 1
	headerBytes  = 1 + 4
	nonceBytes   = 12
	overheadSize = headerBytes + nonceBytes + 16
)

var (
	// ErrUnknownKey says that a value was sealed with a key that the ring does not hold.
	ErrUnknownKey = errors.New("value is sealed with a key that this node does not hold")
	// ErrTampered says that a value does not open: it was changed, or belongs to another key.
	ErrTampered = errors.New("sealed value is damaged or belongs to another object")
	// ErrExhausted says that the first key has sealed too many values.
	ErrExhausted = errors.New("data key has sealed too many values: rotate it")
)

// Key is a data key. Numbers are never used again.
type Key struct {
	Number uint32
	Secret [KeyBytes]byte
}

// NewKey returns a random key.
func NewKey(number uint32) Key {
	k := Key{Number: number}
	rand.Read(k.Secret[:]) // never fails, see crypto/rand
	return k
}

// ringKey is a key ready for use.
type ringKey struct {
	number uint32
	aead   cipher.AEAD
	seals  atomic.Int64
}

// Ring seals and opens values. Make it with [NewRing].
type Ring struct {
	mu   sync.RWMutex
	keys []*ringKey
}

// NewRing returns a ring that seals with the first key and opens with all of them.
func NewRing(keys ...Key) (*Ring, error) {
	r := &Ring{}
	if err := r.Rotate(keys...); err != nil {
		return nil, err
	}
	return r, nil
}

// Rotate replaces the keys. To rotate on several nodes, first add the new key at the end everywhere, then put it first.
func (r *Ring) Rotate(keys ...Key) error {
	if len(keys) == 0 || len(keys) > MaxKeys {
		return fmt.Errorf("rotate keys: got %d, want 1 to %d", len(keys), MaxKeys)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	next := make([]*ringKey, 0, len(keys))
	for i := range keys {
		k, err := newRingKey(&keys[i])
		if err != nil {
			return err
		}
		for _, other := range next {
			if other.number == k.number {
				return fmt.Errorf("rotate keys: number %d appears twice", k.number)
			}
		}
		for _, old := range r.keys {
			if old.number == k.number {
				k.seals.Store(old.seals.Load())
			}
		}
		next = append(next, k)
	}
	r.keys = next
	return nil
}

func newRingKey(k *Key) (*ringKey, error) {
	block, err := aes.NewCipher(k.Secret[:])
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("make cipher: %w", err)
	}
	return &ringKey{number: k.Number, aead: aead}, nil
}

func (r *Ring) first() *ringKey {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys[0]
}

// find returns the key of a number and whether it is the first.
func (r *Ring) find(number uint32) (*ringKey, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for i, k := range r.keys {
		if k.number == number {
			return k, i == 0
		}
	}
	return nil, false
}

// Seal encrypts plain for the storage key at.
func (r *Ring) Seal(plain, at []byte) ([]byte, error) {
	k := r.first()
	if k.seals.Add(1) > MaxSealsPerKey {
		return nil, ErrExhausted
	}
	out := make([]byte, headerBytes+nonceBytes, len(plain)+overheadSize)
	out[0] = sealVersion
	binary.BigEndian.PutUint32(out[1:], k.number)
	nonce := out[headerBytes : headerBytes+nonceBytes]
	rand.Read(nonce) // never fails, see crypto/rand
	return k.aead.Seal(out, nonce, plain, authenticated(out[:headerBytes], at)), nil
}

// Open decrypts what [Ring.Seal] made for the same storage key. stale says that another key is first now.
func (r *Ring) Open(sealed, at []byte) (plain []byte, stale bool, err error) {
	if len(sealed) < overheadSize || sealed[0] != sealVersion {
		return nil, false, ErrTampered
	}
	k, isFirst := r.find(binary.BigEndian.Uint32(sealed[1:]))
	if k == nil {
		return nil, false, ErrUnknownKey
	}
	nonce := sealed[headerBytes : headerBytes+nonceBytes]
	plain, err = k.aead.Open(nil, nonce, sealed[headerBytes+nonceBytes:], authenticated(sealed[:headerBytes], at))
	if err != nil {
		return nil, false, ErrTampered
	}
	return plain, !isFirst, nil
}

func authenticated(header, at []byte) []byte {
	return append(append(make([]byte, 0, len(header)+len(at)), header...), at...)
}

// Transformer returns the ring as the API server's storage takes it.
func (r *Ring) Transformer() value.Transformer { return transformer{r} }

type transformer struct{ ring *Ring }

// TransformFromStorage implements value.Transformer.
func (t transformer) TransformFromStorage(_ context.Context, data []byte, at value.Context) ([]byte, bool, error) {
	return t.ring.Open(data, at.AuthenticatedData())
}

// TransformToStorage implements value.Transformer.
func (t transformer) TransformToStorage(_ context.Context, data []byte, at value.Context) ([]byte, error) {
	return t.ring.Seal(data, at.AuthenticatedData())
}
