package gossip

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hashicorp/memberlist"
)

// keyBytes selects AES-256.
const keyBytes = 32

// NewKey returns a fresh random key for a keyring.
func NewKey() []byte {
	key := make([]byte, keyBytes)
	rand.Read(key) // never fails: crypto/rand ends the process instead
	return key
}

// loadKeyring reads the keys from path, the first being the one that encrypts; the file is serf's own format, a JSON list
// of base64 strings, and serf rewrites it when keys rotate. Where there is no file it is made with the given key.
func loadKeyring(path string, first []byte) (*memberlist.Keyring, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := writeKeyring(path, [][]byte{first}); err != nil {
			return nil, err
		}
		content, err = os.ReadFile(path)
	}
	if err != nil {
		return nil, fmt.Errorf("open gossip keys: %w", err)
	}
	var texts []string
	if err := json.Unmarshal(content, &texts); err != nil {
		return nil, fmt.Errorf("read gossip keys from %s: %w", path, err)
	}
	if len(texts) == 0 {
		return nil, fmt.Errorf("read gossip keys from %s: it holds none", path)
	}
	keys := make([][]byte, len(texts))
	for i, text := range texts {
		if keys[i], err = base64.StdEncoding.DecodeString(text); err != nil {
			return nil, fmt.Errorf("read gossip key %d from %s: %w", i, path, err)
		}
	}
	keyring, err := memberlist.NewKeyring(keys, keys[0])
	if err != nil {
		return nil, fmt.Errorf("use gossip keys from %s: %w", path, err)
	}
	return keyring, nil
}

func keyringFile(dir string) string { return filepath.Join(dir, "gossip-keys.json") }

// writeKeyring makes the file appear whole.
func writeKeyring(path string, keys [][]byte) error {
	texts := make([]string, len(keys))
	for i, key := range keys {
		texts[i] = base64.StdEncoding.EncodeToString(key)
	}
	content, err := json.Marshal(texts)
	if err != nil {
		return fmt.Errorf("encode gossip keys: %w", err)
	}
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		return fmt.Errorf("write gossip keys: %w", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write gossip keys: %w", err)
	}
	return nil
}

// Keys are the keys of the mesh, the one that encrypts first: whoever joins needs them.
func (m *Mesh) Keys() [][]byte { return m.keyring.GetKeys() }
