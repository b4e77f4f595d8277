package wireguard

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// KeyBytes is the length of every key.
const KeyBytes = 32

// KeyFile is the file of the private key in the folder of [OpenKeys].
const KeyFile = "wireguard.key"

// Key is a public key. Its text form is base64, as the tools of WireGuard write it.
type Key [KeyBytes]byte

// ParseKey reads the text form.
func ParseKey(text string) (Key, error) {
	var k Key
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != KeyBytes {
		return Key{}, fmt.Errorf("parse public key %q: want %d bytes in base64", text, KeyBytes)
	}
	copy(k[:], raw)
	return k, nil
}

func (k Key) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// IsZero tells whether there is no key.
func (k Key) IsZero() bool { return k == Key{} }

// MarshalText implements encoding.TextMarshaler.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *Key) UnmarshalText(text []byte) (err error) {
	*k, err = ParseKey(string(text))
	return err
}

// PrivateKey is a secret: it has no text form, and formatting it shows none of it.
type PrivateKey struct{ bytes [KeyBytes]byte }

func newPrivateKey() (PrivateKey, error) {
	var p PrivateKey
	if _, err := rand.Read(p.bytes[:]); err != nil {
		return PrivateKey{}, fmt.Errorf("make private key: %w", err)
	}
	// As Curve25519 asks for it.
	p.bytes[0] &= 248
	p.bytes[31] = p.bytes[31]&127 | 64
	return p, nil
}

// String hides the key.
func (PrivateKey) String() string { return "(private key)" }

// GoString hides the key.
func (PrivateKey) GoString() string { return "(private key)" }

// Bytes hands the key to a device.
func (p PrivateKey) Bytes() [KeyBytes]byte { return p.bytes }

// Public is the key that belongs to it.
func (p PrivateKey) Public() (Key, error) {
	private, err := ecdh.X25519().NewPrivateKey(p.bytes[:])
	if err != nil {
		return Key{}, fmt.Errorf("derive public key: %w", err)
	}
	return Key(private.PublicKey().Bytes()), nil
}

// ReadPrivateKey reads a key file and makes sure that it belongs to the public key.
func ReadPrivateKey(path string, public Key) (PrivateKey, error) {
	p, found, err := readKey(path)
	if err == nil && found != public {
		err = errors.New("it belongs to another public key")
	}
	if err != nil {
		return PrivateKey{}, fmt.Errorf("read private key %s: %w", path, err)
	}
	return p, nil
}

func readKey(path string) (PrivateKey, Key, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return PrivateKey{}, Key{}, err
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(content)))
	if err != nil || len(raw) != KeyBytes {
		// What was read is a secret, or half of one: the error does not repeat it.
		return PrivateKey{}, Key{}, errors.New("the file does not hold a key")
	}
	p := PrivateKey{[KeyBytes]byte(raw)}
	public, err := p.Public()
	return p, public, err
}

// Keys is the node's own pair, on disk.
type Keys struct {
	path string

	mu     sync.Mutex // guards what follows
	public Key
}

// OpenKeys reads the node's key, or makes it, once. The folder is made when missing; the file is readable by root alone.
func OpenKeys(dir string) (*Keys, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of the tunnel's key: %w", err)
	}
	k := &Keys{path: filepath.Join(dir, KeyFile)}
	_, public, err := readKey(k.path)
	if errors.Is(err, fs.ErrNotExist) {
		_, err = k.Rotate()
		return k, err
	}
	if err != nil {
		return nil, fmt.Errorf("read private key %s: %w", k.path, err)
	}
	k.public = public
	return k, nil
}

// Path is the file of the private key.
func (k *Keys) Path() string { return k.path }

// Public is the key that peers are to know.
func (k *Keys) Public() Key {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.public
}

// Rotate replaces the pair and returns the new public key. Devices take it over with the next configuration.
func (k *Keys) Rotate() (Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	private, err := newPrivateKey()
	if err != nil {
		return Key{}, err
	}
	public, err := private.Public()
	if err != nil {
		return Key{}, err
	}
	if err := writeKey(k.path, private); err != nil {
		return Key{}, fmt.Errorf("write private key %s: %w", k.path, err)
	}
	k.public = public
	return public, nil
}

// writeKey replaces the file atomically, durably, and never readable by others.
func writeKey(path string, private PrivateKey) error {
	file, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(file, base64.StdEncoding.EncodeToString(private.bytes[:]))
	if err == nil {
		err = file.Sync()
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
