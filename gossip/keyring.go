package gossip

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

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
		if content, err = json.Marshal([]string{base64.StdEncoding.EncodeToString(first)}); err != nil {
			return nil, fmt.Errorf("encode gossip keys: %w", err)
		}
		err = os.WriteFile(path, content, 0o600)
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
