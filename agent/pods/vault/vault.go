// Package vault keeps on disk, encrypted with a key of this node, what its pods
// need when nobody else answers: their specs and records, ConfigMaps, Secrets
// and tokens.
//
// Ownership: a Vault owns its folder. Each entry is one file, replaced
// atomically, and outlives a power cut once Put has returned.
//
// Concurrency: safe for use by many goroutines; two writers of one entry leave
// one of the two values.
package vault

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const keyBytes = 32

// ErrMissing is returned for an entry that is not there.
var ErrMissing = fmt.Errorf("no such entry: %w", fs.ErrNotExist)

// Vault is one folder of encrypted entries.
type Vault struct {
	dir  string
	aead cipher.AEAD
}

// Open opens the vault in dir, making it and its key when missing.
func Open(dir string) (*Vault, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make vault: %w", err)
	}
	key, err := loadKey(filepath.Join(dir, "key"))
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("use vault key: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("use vault key: %w", err)
	}
	return &Vault{dir: dir, aead: aead}, nil
}

func loadKey(path string) ([]byte, error) {
	key, err := os.ReadFile(path)
	if err == nil && len(key) != keyBytes {
		return nil, fmt.Errorf("vault key %s has %d bytes instead of %d", path, len(key), keyBytes)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	key = make([]byte, keyBytes)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("make vault key: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make vault key: %w", err)
	}
	_, werr := f.Write(key)
	if err := errors.Join(werr, f.Sync(), f.Close(), syncFolder(filepath.Dir(path))); err != nil {
		return nil, fmt.Errorf("write vault key: %w", err)
	}
	return key, nil
}

type entry struct {
	Key   string `json:"key"`
	Value []byte `json:"value"`
}

func (v *Vault) path(kind, key string) string {
	sum := sha256.Sum256([]byte(key))
	return filepath.Join(v.dir, kind, hex.EncodeToString(sum[:]))
}

// makeFolder makes a kind's folder, its name included, once and for all.
func (v *Vault) makeFolder(kind string) error {
	err := os.Mkdir(filepath.Join(v.dir, kind), 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("make vault folder: %w", err)
	}
	return syncFolder(v.dir)
}

// Put stores value, anything that encodes to JSON, under kind and key.
func (v *Vault) Put(kind, key string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", kind, err)
	}
	plain, err := json.Marshal(entry{key, raw})
	if err != nil {
		return fmt.Errorf("encode %s: %w", kind, err)
	}
	nonce := make([]byte, v.aead.NonceSize(), v.aead.NonceSize()+len(plain)+v.aead.Overhead())
	if _, err := rand.Read(nonce); err != nil {
		return fmt.Errorf("encrypt %s: %w", kind, err)
	}
	sealed := v.aead.Seal(nonce, nonce, plain, []byte(kind))
	if err := v.makeFolder(kind); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Join(v.dir, kind), ".new-*")
	if err != nil {
		return fmt.Errorf("store %s: %w", kind, err)
	}
	_, werr := tmp.Write(sealed)
	if err := errors.Join(werr, tmp.Sync(), tmp.Close()); err != nil {
		return fmt.Errorf("store %s: %w", kind, errors.Join(err, os.Remove(tmp.Name())))
	}
	if err := os.Rename(tmp.Name(), v.path(kind, key)); err != nil {
		return fmt.Errorf("store %s: %w", kind, errors.Join(err, os.Remove(tmp.Name())))
	}
	return syncFolder(filepath.Join(v.dir, kind))
}

// syncFolder makes the names in a folder outlive a power cut.
func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open vault folder: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync vault folder: %w", err)
	}
	return nil
}

// Get loads an entry into value.
func (v *Vault) Get(kind, key string, value any) error {
	e, err := v.load(kind, v.path(kind, key))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s %s: %w", kind, key, ErrMissing)
	}
	if err != nil {
		return err
	}
	if err := json.Unmarshal(e.Value, value); err != nil {
		return fmt.Errorf("decode %s: %w", kind, err)
	}
	return nil
}

func (v *Vault) load(kind, path string) (entry, error) {
	sealed, err := os.ReadFile(path)
	if err != nil {
		return entry{}, err
	}
	n := v.aead.NonceSize()
	if len(sealed) < n {
		return entry{}, fmt.Errorf("open vault entry %s: too short", path)
	}
	plain, err := v.aead.Open(nil, sealed[:n], sealed[n:], []byte(kind))
	if err != nil {
		return entry{}, fmt.Errorf("open vault entry %s: %w", path, err)
	}
	var e entry
	if err := json.Unmarshal(plain, &e); err != nil {
		return entry{}, fmt.Errorf("decode vault entry: %w", err)
	}
	return e, nil
}

// Delete removes an entry; a missing one is no error.
func (v *Vault) Delete(kind, key string) error {
	if err := os.Remove(v.path(kind, key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete %s: %w", kind, err)
	}
	return nil
}

// Keys lists what is stored under kind. Entries that cannot be read (torn by a
// power cut) are returned as an error beside those that can.
func (v *Vault) Keys(kind string) ([]string, error) {
	files, err := os.ReadDir(filepath.Join(v.dir, kind))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", kind, err)
	}
	var keys []string
	var errs []error
	for _, f := range files {
		if strings.HasPrefix(f.Name(), ".") {
			continue
		}
		e, err := v.load(kind, filepath.Join(v.dir, kind, f.Name()))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		keys = append(keys, e.Key)
	}
	return keys, errors.Join(errs...)
}
