package pki

import (
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The life of a key that signs service-account tokens.
const (
	// TokenKeyBits is the size; RS256 is what every verifier of OpenID tokens knows.
	TokenKeyBits = 2048
	// TokenKeySignsDays is how long a key signs before a new one takes over.
	TokenKeySignsDays = 90
	// TokenKeyKeptDays is how long a key still verifies after it signed its last: longer than any token lives.
	TokenKeyKeptDays = 400
	// maxTokenKeys bounds the folder.
	maxTokenKeys = 64
)

// TokenKeys is the rotating set of service-account signing keys. The newest signs, all verify. Safe for concurrent use.
type TokenKeys struct {
	dir string

	mu   sync.RWMutex // guards keys
	keys []tokenKey   // oldest first, never empty
}

type tokenKey struct {
	id   string
	made time.Time
	key  crypto.Signer
	file string
}

// SigningKey is the key that signs new tokens, and its id (the JWT's kid).
func (t *TokenKeys) SigningKey() (id string, key crypto.Signer) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	newest := t.keys[len(t.keys)-1]
	return newest.id, newest.key
}

// PublicKey finds a key that may verify a token.
func (t *TokenKeys) PublicKey(id string) (crypto.PublicKey, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, k := range t.keys {
		if k.id == id {
			return k.key.Public(), true
		}
	}
	return nil, false
}

// PublicKeys are all keys that may verify a token, the signing one first.
func (t *TokenKeys) PublicKeys() []IdentifiedKey {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]IdentifiedKey, 0, len(t.keys))
	for _, k := range slices.Backward(t.keys) {
		out = append(out, IdentifiedKey{ID: k.id, Key: k.key.Public()})
	}
	return out
}

// IdentifiedKey is a public key with its id.
type IdentifiedKey struct {
	ID  string
	Key crypto.PublicKey
}

func openTokenKeys(dir string, now time.Time) (*TokenKeys, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make key folder: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.key"))
	if err != nil {
		return nil, fmt.Errorf("list token keys: %w", err)
	}
	t := &TokenKeys{dir: dir}
	for _, file := range files {
		k, err := loadTokenKey(file)
		if err != nil {
			return nil, err
		}
		t.keys = append(t.keys, k)
	}
	sortTokenKeys(t.keys)
	if len(t.keys) == 0 {
		if err := t.add(now); err != nil {
			return nil, err
		}
	}
	return t, nil
}

// sortTokenKeys puts the oldest first.
func sortTokenKeys(keys []tokenKey) {
	slices.SortFunc(keys, func(a, b tokenKey) int { return cmp.Or(a.made.Compare(b.made), cmp.Compare(a.id, b.id)) })
}

// loadTokenKey reads UNIXSECONDS.key.
func loadTokenKey(file string) (tokenKey, error) {
	seconds, err := strconv.ParseInt(strings.TrimSuffix(filepath.Base(file), ".key"), 10, 64)
	if err != nil {
		return tokenKey{}, fmt.Errorf("load token key %s: the name is not a time in Unix seconds", file)
	}
	content, err := readSecret(file)
	if err != nil {
		return tokenKey{}, err
	}
	key, err := parseKey(file, content)
	if err != nil {
		return tokenKey{}, err
	}
	id, err := keyID(key.Public())
	if err != nil {
		return tokenKey{}, err
	}
	return tokenKey{id: id, made: time.Unix(seconds, 0), key: key, file: file}, nil
}

// keyID names a public key as Kubernetes does: the hash of its PKIX form.
func keyID(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", fmt.Errorf("name public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

func (t *TokenKeys) add(now time.Time) error {
	key, err := rsa.GenerateKey(rand.Reader, TokenKeyBits)
	if err != nil {
		return fmt.Errorf("make token key: %w", err)
	}
	content, err := encodeKey(key)
	if err != nil {
		return err
	}
	id, err := keyID(key.Public())
	if err != nil {
		return err
	}
	file := filepath.Join(t.dir, strconv.FormatInt(now.Unix(), 10)+".key")
	if err := writeFile(file, content, 0o600); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keys = append(t.keys, tokenKey{id: id, made: now, key: key, file: file})
	return nil
}

// planTokenKeys decides, from when the keys were made (oldest first), whether to make one, how many of the oldest to
// drop, and when to decide again. Pure.
func planTokenKeys(made []time.Time, now time.Time) (add bool, drop int, next time.Time) {
	const day = 24 * time.Hour
	newest := made[len(made)-1]
	due := newest.Add(TokenKeySignsDays * day)
	if add = !now.Before(due); add {
		due = now.Add(TokenKeySignsDays * day)
	}
	next = due
	for i := 0; i+1 < len(made); i++ { // a key stops signing when the next is made
		end := made[i+1].Add(TokenKeyKeptDays * day)
		if now.Before(end) {
			if end.Before(next) {
				next = end
			}
			break
		}
		drop++
	}
	return add, max(drop, len(made)-maxTokenKeys), next
}

// rotate makes and drops keys as they are due, and returns when to look again.
func (t *TokenKeys) rotate(now time.Time) (time.Time, error) {
	t.mu.RLock()
	made := make([]time.Time, 0, len(t.keys))
	for _, k := range t.keys {
		made = append(made, k.made)
	}
	t.mu.RUnlock()
	add, drop, next := planTokenKeys(made, now)
	if add {
		if err := t.add(now); err != nil {
			return now, err
		}
	}
	t.mu.Lock()
	dropped := slices.Clone(t.keys[:drop])
	t.keys = slices.Clone(t.keys[drop:])
	t.mu.Unlock()
	for _, k := range dropped {
		if err := os.Remove(k.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return now, fmt.Errorf("drop token key: %w", err)
		}
	}
	return next, nil
}
