package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/podvine/podvine/consensus/sealing"
)

// dataKeysFile is the file in the data folder.
const dataKeysFile = "data-keys.json"

// storedKey is a data key as it stands in the file that only replicas hold, readable by root alone.
type storedKey struct {
	Number uint32 `json:"number"`
	Secret []byte `json:"secret"`
}

// openDataKeys returns the ring that seals Secrets before they reach the log. The first key of the file seals. A cluster
// without a store yet gets its first key here; where there is a store, a missing file is an error, because another key
// would open none of its Secrets.
func openDataKeys(path, store string) (*sealing.Ring, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, storeErr := os.Stat(store); storeErr == nil {
			return nil, fmt.Errorf("read data keys: %w, but there is a store in %s: restore the file, or its Secrets cannot be read", err, store)
		}
		key := sealing.NewKey(1)
		if err := writeJSON(path, []storedKey{{key.Number, key.Secret[:]}}); err != nil {
			return nil, err
		}
		return sealing.NewRing(key)
	}
	if err != nil {
		return nil, fmt.Errorf("read data keys: %w", err)
	}
	var stored []storedKey
	if err := json.Unmarshal(content, &stored); err != nil {
		return nil, fmt.Errorf("read data keys from %s: %w", path, err)
	}
	keys := make([]sealing.Key, len(stored))
	for i, key := range stored {
		if len(key.Secret) != sealing.KeyBytes {
			return nil, fmt.Errorf("read data keys from %s: key %d has %d bytes, not %d", path, key.Number, len(key.Secret), sealing.KeyBytes)
		}
		keys[i].Number = key.Number
		copy(keys[i].Secret[:], key.Secret)
	}
	ring, err := sealing.NewRing(keys...)
	if err != nil {
		return nil, fmt.Errorf("read data keys from %s: %w", path, err)
	}
	return ring, nil
}
