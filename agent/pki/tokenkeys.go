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
	// TokenKeySettle is how long after it was made a key begins to sign: until then the other replicas have it.
	TokenKeySettle = 2 * time.Minute
	// tokenKeyPause is how often a replica that makes no keys looks whether one that is due has come.
	tokenKeyPause = time.Hour
	// maxTokenKeys bounds the folder.
	maxTokenKeys = 64
)

// TokenKeys is the rotating set of service-account signing keys. The newest that has settled signs, all verify. Safe for
// concurrent use.
type TokenKeys struct {
	dir string
	now func() time.Time
	// makes tells whether this replica is to make the keys that are due.
	makes func() bool

	mu   sync.RWMutex // guards keys
	keys []tokenKey   // oldest first, never empty
}

type tokenKey struct {
	id   string
	made time.Time
	// retire is when the key verifies no more, whatever its age; zero if nobody has said so.
	retire time.Time
	key    crypto.Signer
	file   string
}

// retireFile holds the time at which the key retires.
func (k tokenKey) retireFile() string { return strings.TrimSuffix(k.file, ".key") + ".retire" }

// retired tells whether the key's time is over, whether it was dropped already or not.
func (k tokenKey) retired(now time.Time) bool { return !k.retire.IsZero() && !now.Before(k.retire) }

// SigningKey is the key that signs new tokens, and its id (the JWT's kid).
func (t *TokenKeys) SigningKey() (id string, key crypto.Signer) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	signing := t.keys[signingKey(t.keys, t.now())]
	return signing.id, signing.key
}

// signingKey chooses the newest key that has settled, else the oldest. Pure.
func signingKey(keys []tokenKey, now time.Time) int {
	for i, k := range slices.Backward(keys) {
		if !now.Before(k.made.Add(TokenKeySettle)) {
			return i
		}
	}
	return 0
}

// PublicKey finds a key that may verify a token.
func (t *TokenKeys) PublicKey(id string) (crypto.PublicKey, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, k := range t.keys {
		if k.id == id && !k.retired(t.now()) {
			return k.key.Public(), true
		}
	}
	return nil, false
}

// PublicKeys are all keys that may verify a token, the newest first.
func (t *TokenKeys) PublicKeys() []IdentifiedKey {
	t.mu.RLock()
	defer t.mu.RUnlock()
	out := make([]IdentifiedKey, 0, len(t.keys))
	for _, k := range slices.Backward(t.keys) {
		if !k.retired(t.now()) {
			out = append(out, IdentifiedKey{ID: k.id, Key: k.key.Public()})
		}
	}
	return out
}

// IdentifiedKey is a public key with its id.
type IdentifiedKey struct {
	ID  string
	Key crypto.PublicKey
}

func openTokenKeys(dir string, clock func() time.Time, makes func() bool) (*TokenKeys, error) {
	now := clock()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make key folder: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.key"))
	if err != nil {
		return nil, fmt.Errorf("list token keys: %w", err)
	}
	t := &TokenKeys{dir: dir, now: clock, makes: makes}
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

// loadTokenKey reads UNIXSECONDS.key, or UNIXSECONDS-ID.key of one whose name another key had already.
func loadTokenKey(file string) (tokenKey, error) {
	made, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".key"), "-")
	seconds, err := strconv.ParseInt(made, 10, 64)
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
	k := tokenKey{id: id, made: time.Unix(seconds, 0), key: key, file: file}
	text, err := os.ReadFile(k.retireFile())
	if err == nil {
		k.retire, err = time.Parse(time.RFC3339, strings.TrimSpace(string(text)))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return tokenKey{}, fmt.Errorf("load when token key %s retires: %w", file, err)
	}
	return k, nil
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

// planTokenKeys decides, from the keys (oldest first), whether one is due, which are to be dropped, and when to decide again.
// Pure.
func planTokenKeys(keys []tokenKey, now time.Time) (due bool, drop []int, next time.Time) {
	const day = 24 * time.Hour
	next = keys[len(keys)-1].made.Add(TokenKeySignsDays * day)
	if due = !now.Before(next); due {
		next = now.Add(TokenKeySignsDays * day)
	}
	for i := 0; i+1 < len(keys); i++ { // a key stops signing when the next one does
		end := keys[i+1].made.Add(TokenKeyKeptDays * day)
		if retire := keys[i].retire; !retire.IsZero() && retire.Before(end) {
			end = retire
		}
		switch {
		case !now.Before(end), len(keys)-len(drop) > maxTokenKeys:
			drop = append(drop, i)
		case end.Before(next):
			next = end
		}
	}
	return due, drop, next
}

// rotate makes and drops keys as they are due, and returns when to look again.
func (t *TokenKeys) rotate(now time.Time) (time.Time, error) {
	t.mu.RLock()
	due, drop, next := planTokenKeys(t.keys, now)
	t.mu.RUnlock()
	switch {
	case due && t.makes():
		if err := t.add(now); err != nil {
			return now, err
		}
	case due:
		next = now.Add(tokenKeyPause)
	}
	return next, t.drop(drop)
}

func (t *TokenKeys) drop(indices []int) error {
	t.mu.Lock()
	var kept, dropped []tokenKey
	for i, k := range t.keys {
		if slices.Contains(indices, i) {
			dropped = append(dropped, k)
		} else {
			kept = append(kept, k)
		}
	}
	t.keys = kept
	t.mu.Unlock()
	for _, k := range dropped {
		for _, file := range []string{k.file, k.retireFile()} {
			if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("drop token key: %w", err)
			}
		}
	}
	return nil
}

// Rotate makes a key, and has the others verify no more once the overlap has passed after it signs.
func (t *TokenKeys) Rotate(now time.Time, overlap time.Duration) error {
	t.mu.RLock()
	newest := t.keys[len(t.keys)-1].made
	t.mu.RUnlock()
	if !now.After(newest.Add(time.Second)) {
		now = newest.Add(time.Second) // a file is named by its second
	}
	if err := t.add(now); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range len(t.keys) - 1 {
		if err := t.retireLocked(i, now.Add(TokenKeySettle+overlap)); err != nil {
			return err
		}
	}
	return nil
}

// retireLocked has a key verify no more from then on, or from earlier if that was so already.
func (t *TokenKeys) retireLocked(i int, at time.Time) error {
	k := &t.keys[i]
	if at = at.UTC().Truncate(time.Second); at.IsZero() || !k.retire.IsZero() && !at.Before(k.retire) {
		return nil
	}
	if err := writeFile(k.retireFile(), []byte(at.Format(time.RFC3339)+"\n"), 0o600); err != nil {
		return err
	}
	k.retire = at
	return nil
}

// TokenKeyStatus is a key as an operator sees it.
type TokenKeyStatus struct {
	ID   string    `json:"id"`
	Made time.Time `json:"made"`
	// Signs says that new tokens are signed with it. Retires is when it verifies no more, if somebody has said so.
	Signs   bool       `json:"signs"`
	Retires *time.Time `json:"retires,omitempty"`
}

// Status lists the keys, the newest first.
func (t *TokenKeys) Status() []TokenKeyStatus {
	t.mu.RLock()
	defer t.mu.RUnlock()
	signing := signingKey(t.keys, t.now())
	var all []TokenKeyStatus
	for i, k := range slices.Backward(t.keys) {
		one := TokenKeyStatus{ID: k.id, Made: k.made.UTC(), Signs: i == signing}
		if !k.retire.IsZero() {
			one.Retires = &k.retire
		}
		all = append(all, one)
	}
	return all
}
