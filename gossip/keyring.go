package gossip

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hashicorp/memberlist"
	"github.com/hashicorp/serf/serf"
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

// RotateKey gives all living members a new key, has them use it, and takes the old ones away. It is an error when one of them did
// not do so, and may then be repeated. A member that is away meanwhile must get the keys by another way; see [Mesh.AdoptKeys].
func (m *Mesh) RotateKey() error {
	manager, old := m.serf.KeyManager(), m.Keys()
	fresh := base64.StdEncoding.EncodeToString(NewKey())
	if response, err := manager.InstallKey(fresh); err != nil {
		return fmt.Errorf("give members a new gossip key: %w%s", err, complaints(response))
	}
	if response, err := manager.UseKey(fresh); err != nil {
		return fmt.Errorf("have members use the new gossip key: %w%s", err, complaints(response))
	}
	for _, key := range old {
		if response, err := manager.RemoveKey(base64.StdEncoding.EncodeToString(key)); err != nil {
			return fmt.Errorf("take an old gossip key away from members: %w%s", err, complaints(response))
		}
	}
	return nil
}

// complaints are what members said.
func complaints(response *serf.KeyResponse) string {
	var text strings.Builder
	if response != nil {
		for member, message := range response.Messages {
			fmt.Fprintf(&text, "; %s: %s", member, message)
		}
	}
	return text.String()
}

// AdoptKeys has this member use the keys that another one uses, the first of which encrypts, and no others. It reports whether
// that changes anything.
func (m *Mesh) AdoptKeys(keys [][]byte) (bool, error) {
	if len(keys) == 0 || bytes.Equal(keys[0], m.keyring.GetPrimaryKey()) {
		return false, nil
	}
	for _, key := range keys {
		if err := m.keyring.AddKey(key); err != nil {
			return false, fmt.Errorf("adopt gossip key: %w", err)
		}
	}
	if err := m.keyring.UseKey(keys[0]); err != nil {
		return false, fmt.Errorf("adopt gossip key: %w", err)
	}
	for _, key := range m.keyring.GetKeys() {
		if slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) }) {
			continue
		}
		if err := m.keyring.RemoveKey(key); err != nil {
			return false, fmt.Errorf("drop gossip key: %w", err)
		}
	}
	return true, writeKeyring(keyringFile(m.dir), m.keyring.GetKeys())
}
