package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Bundle is what every replica must hold and no edge may: the keys of the authorities and of service-account tokens. It
// travels between replicas over mutual TLS and is stored for root alone.
type Bundle struct {
	ClusterKey     []byte `json:"clusterKey"`
	FrontProxyCert []byte `json:"frontProxyCert"`
	FrontProxyKey  []byte `json:"frontProxyKey"`
	// TokenKeys are by file name, which says when the key was made.
	TokenKeys map[string][]byte `json:"tokenKeys"`
}

// Export returns what another node needs to become a replica.
func (p *PKI) Export() (Bundle, error) {
	if p.cluster.key == nil {
		return Bundle{}, errors.New("export keys: this node is no replica and holds none")
	}
	b := Bundle{FrontProxyCert: p.frontProxy.CertPEM(), TokenKeys: map[string][]byte{}}
	var err error
	if b.ClusterKey, err = encodeKey(p.cluster.key); err != nil {
		return Bundle{}, err
	}
	if b.FrontProxyKey, err = encodeKey(p.frontProxy.key); err != nil {
		return Bundle{}, err
	}
	p.tokens.mu.RLock()
	defer p.tokens.mu.RUnlock()
	for _, k := range p.tokens.keys {
		if b.TokenKeys[filepath.Base(k.file)], err = encodeKey(k.key); err != nil {
			return Bundle{}, err
		}
	}
	return b, nil
}

// Install makes the key folder of an edge that of a replica. The cluster's key comes last: a folder without it is an edge's.
func Install(dir string, b Bundle) error {
	for name, content := range b.TokenKeys {
		if filepath.Base(name) != name || filepath.Ext(name) != ".key" {
			return fmt.Errorf("install keys: %q is no name of a token key", name)
		}
		if err := os.MkdirAll(filepath.Join(dir, tokenFolder), 0o700); err != nil {
			return fmt.Errorf("install keys: %w", err)
		}
		if err := writeFile(filepath.Join(dir, tokenFolder, name), content, 0o600); err != nil {
			return err
		}
	}
	for _, file := range []struct {
		name    string
		content []byte
	}{
		{frontProxyCAName + ".crt", b.FrontProxyCert}, {frontProxyCAName + ".key", b.FrontProxyKey}, {clusterCAName + ".key", b.ClusterKey},
	} {
		if err := writeFile(filepath.Join(dir, file.name), file.content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Uninstall makes the key folder of a replica that of an edge. It may be repeated.
func Uninstall(dir string) error {
	names := []string{
		clusterCAName + ".key", frontProxyCAName + ".key", frontProxyCAName + ".crt",
		servingName + ".pem", nodeServingName + ".pem", kubeletClientName + ".pem", proxyClientName + ".pem",
	}
	for _, name := range names {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove keys: %w", err)
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, tokenFolder)); err != nil {
		return fmt.Errorf("remove keys: %w", err)
	}
	return syncDir(dir)
}

// AdoptTokenKeys takes keys that another replica has made. Those that are there already are left alone.
func (p *PKI) AdoptTokenKeys(keys map[string][]byte) error {
	for name, content := range keys {
		if filepath.Base(name) != name || !strings.HasSuffix(name, ".key") {
			return fmt.Errorf("adopt token keys: %q is no name of a key", name)
		}
		if err := p.tokens.adopt(name, content); err != nil {
			return err
		}
	}
	return nil
}

// adopt adds one key, in its place by age.
func (t *TokenKeys) adopt(name string, content []byte) error {
	key, err := parseKey(name, content)
	if err != nil {
		return err
	}
	id, err := keyID(key.Public())
	if err != nil {
		return err
	}
	if _, known := t.PublicKey(id); known {
		return nil
	}
	file := filepath.Join(t.dir, name)
	if err := writeFile(file, content, 0o600); err != nil {
		return err
	}
	loaded, err := loadTokenKey(file)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.keys = append(t.keys, loaded)
	sortTokenKeys(t.keys)
	return nil
}
