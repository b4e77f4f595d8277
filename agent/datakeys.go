package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/podvine/podvine/agent/backup"
	"github.com/podvine/podvine/consensus/sealing"
)

// dataKeysFile is the file in the data folder.
const dataKeysFile = "data-keys.json"

// storedKey is a data key as it stands in the file that only replicas hold, readable by root alone.
type storedKey struct {
	Number uint32 `json:"number"`
	Secret []byte `json:"secret"`
}

// dataKeys are the keys that seal Secrets before they reach the log, on disk and in the ring that uses them. The first key
// seals.
type dataKeys struct {
	path string
	ring *sealing.Ring

	mu     sync.Mutex
	stored []storedKey
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
		stored := []storedKey{{key.Number, key.Secret[:]}}
		if err := writeJSON(path, stored); err != nil {
			return nil, err
		}
		content, err = json.Marshal(stored)
	}
	if err != nil {
		return nil, fmt.Errorf("read data keys: %w", err)
	}
	stored, keys, err := parseDataKeys(content)
	if err != nil {
		return nil, fmt.Errorf("read data keys from %s: %w", path, err)
	}
	ring, err := sealing.NewRing(keys...)
	if err != nil {
		return nil, fmt.Errorf("read data keys from %s: %w", path, err)
	}
	return &dataKeys{path: path, ring: ring, stored: stored}, nil
}

func parseDataKeys(content []byte) ([]storedKey, []sealing.Key, error) {
	var stored []storedKey
	if err := json.Unmarshal(content, &stored); err != nil {
		return nil, nil, err
	}
	keys := make([]sealing.Key, len(stored))
	for i, key := range stored {
		if len(key.Secret) != sealing.KeyBytes {
			return nil, nil, fmt.Errorf("key %d has %d bytes, not %d", key.Number, len(key.Secret), sealing.KeyBytes)
		}
		keys[i].Number = key.Number
		copy(keys[i].Secret[:], key.Secret)
	}
	return stored, keys, nil
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
