package agent

import (
	"cmp"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/podvine/podvine/agent/backup"
	"github.com/podvine/podvine/consensus/sealing"
)

// dataKeysFile is the file in the data folder.
const dataKeysFile = "data-keys.json"

// maxDataKeys bounds the keys; the oldest is dropped, and with it what backups of its time hold of Secrets.
const (
	maxDataKeys = sealing.MaxKeys - 1
	// maxPendingDataKeys bounds those that not all replicas hold yet.
	maxPendingDataKeys = 4
)

// storedKey is a data key as it stands in the file that only replicas hold, readable by root alone.
type storedKey struct {
	Number uint32 `json:"number"`
	Secret []byte `json:"secret"`
	// Made is when; zero for the first of a cluster.
	Made time.Time `json:"made,omitzero"`
	// Pending says that not all replicas hold the key yet: until they do it only opens.
	Pending bool `json:"pending,omitempty"`
}

// dataKeys are the keys that seal Secrets before they reach the log, on disk and in the ring that uses them. The first
// one seals, the others open what was sealed before. Replicas that tell each other of keys in any order hold the same in the end:
// a key is never changed, and once it is not pending it never is again.
type dataKeys struct {
	path string
	ring *sealing.Ring

	mu     sync.Mutex
	stored []storedKey
}

// sortDataKeys puts the key that seals first: the newest that is not pending.
func sortDataKeys(keys []storedKey) {
	slices.SortFunc(keys, func(a, b storedKey) int {
		if a.Pending != b.Pending {
			if b.Pending {
				return -1
			}
			return 1
		}
		return cmp.Or(b.Made.Compare(a.Made), cmp.Compare(b.Number, a.Number))
	})
}

// mergeDataKeys returns what two replicas hold together, in order, without those that are too many. Pure.
func mergeDataKeys(ours, theirs []storedKey) ([]storedKey, error) {
	merged := slices.Clone(ours)
	for _, key := range theirs {
		i := slices.IndexFunc(merged, func(k storedKey) bool { return k.Number == key.Number })
		switch {
		case i < 0:
			merged = append(merged, key)
		case subtle.ConstantTimeCompare(merged[i].Secret, key.Secret) != 1:
			return nil, fmt.Errorf("merge data keys: there are two of number %d", key.Number)
		default:
			merged[i].Pending = merged[i].Pending && key.Pending
		}
	}
	sortDataKeys(merged)
	for len(merged) > maxDataKeys {
		oldest := len(merged) - 1
		for oldest > 0 && merged[oldest].Pending {
			oldest--
		}
		merged = slices.Delete(merged, oldest, oldest+1)
	}
	return merged, nil
}

// openDataKeys loads the keys. A cluster without a store yet gets its first key here; where there is a store, a missing file
// is an error, because another key would open none of its Secrets.
func openDataKeys(path, store string) (*dataKeys, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, storeErr := os.Stat(store); storeErr == nil {
			return nil, fmt.Errorf("read data keys: %w, but there is a store in %s: restore the file, or its Secrets cannot be read", err, store)
		}
		key := sealing.NewKey(1)
		stored := []storedKey{{Number: key.Number, Secret: key.Secret[:]}}
		if err := writeJSON(path, stored); err != nil {
			return nil, err
		}
		content, err = json.Marshal(stored)
	}
	if err != nil {
		return nil, fmt.Errorf("read data keys: %w", err)
	}
	stored, err := parseDataKeys(content)
	if err != nil {
		return nil, fmt.Errorf("read data keys from %s: %w", path, err)
	}
	ring, err := sealing.NewRing(sealingKeys(stored)...)
	if err != nil {
		return nil, fmt.Errorf("read data keys from %s: %w", path, err)
	}
	return &dataKeys{path: path, ring: ring, stored: stored}, nil
}

func parseDataKeys(content []byte) ([]storedKey, error) {
	var stored []storedKey
	if err := json.Unmarshal(content, &stored); err != nil {
		return nil, err
	}
	for _, key := range stored {
		if len(key.Secret) != sealing.KeyBytes {
			return nil, fmt.Errorf("key %d has %d bytes, not %d", key.Number, len(key.Secret), sealing.KeyBytes)
		}
	}
	sortDataKeys(stored)
	return stored, nil
}

func sealingKeys(stored []storedKey) []sealing.Key {
	keys := make([]sealing.Key, len(stored))
	for i, key := range stored {
		keys[i].Number = key.Number
		copy(keys[i].Secret[:], key.Secret)
	}
	return keys
}

// change makes the keys durable and then uses them.
func (k *dataKeys) change(next func([]storedKey) ([]storedKey, error)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	stored, err := next(slices.Clone(k.stored))
	if err != nil {
		return err
	}
	if slices.EqualFunc(stored, k.stored, func(a, b storedKey) bool { return a.Number == b.Number && a.Pending == b.Pending }) {
		return nil
	}
	if err := writeJSON(k.path, stored); err != nil {
		return err
	}
	if err := k.ring.Rotate(sealingKeys(stored)...); err != nil {
		return err
	}
	k.stored = stored
	return nil
}

// adopt takes the keys that another replica has.
func (k *dataKeys) adopt(content []byte) error {
	theirs, err := parseDataKeys(content)
	if err != nil {
		return fmt.Errorf("adopt data keys: %w", err)
	}
	return k.change(func(ours []storedKey) ([]storedKey, error) { return mergeDataKeys(ours, theirs) })
}

// add makes a pending key. There may be one already: whoever made that rotation necessary may know it.
func (k *dataKeys) add(now time.Time) error {
	return k.change(func(ours []storedKey) ([]storedKey, error) {
		pending := 0
		for _, key := range ours {
			if key.Pending {
				pending++
			}
		}
		if pending >= maxPendingDataKeys {
			return nil, fmt.Errorf("make a data key: %d wait already until all replicas hold them", pending)
		}
		key := sealing.NewKey(rand.Uint32N(math.MaxUint32)) // two leaders must not make two of a number
		return mergeDataKeys(ours, []storedKey{{Number: key.Number, Secret: key.Secret[:], Made: now.UTC(), Pending: true}})
	})
}

// settle has pending keys seal: all replicas hold them.
func (k *dataKeys) settle(numbers []uint32) error {
	return k.change(func(ours []storedKey) ([]storedKey, error) {
		for i := range ours {
			ours[i].Pending = ours[i].Pending && !slices.Contains(numbers, ours[i].Number)
		}
		sortDataKeys(ours)
		return ours, nil
	})
}

// export is what another replica adopts, and the numbers of the keys in it that are pending.
func (k *dataKeys) export() (content []byte, pending []uint32, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, key := range k.stored {
		if key.Pending {
			pending = append(pending, key.Number)
		}
	}
	content, err = json.Marshal(k.stored)
	return content, pending, err
}

// prints name the keys.
func (k *dataKeys) prints() []backup.KeyPrint {
	k.mu.Lock()
	defer k.mu.Unlock()
	prints := make([]backup.KeyPrint, len(k.stored))
	for i, key := range k.stored {
		prints[i] = backup.PrintOf(key.Number, key.Secret)
	}
	return prints
}
