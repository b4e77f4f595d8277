package pki

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Bundle is what every replica must hold and no edge may: the keys of the authorities and of service-account tokens. It
// travels between replicas over mutual TLS and is stored for root alone.
type Bundle struct {
	ClusterKey []byte `json:"clusterKey"`
	// ClusterCert is the bundle of the cluster's CA. A node has it already, but for a rotation that has gone on since.
	ClusterCert    []byte `json:"clusterCert,omitempty"`
	FrontProxyCert []byte `json:"frontProxyCert"`
	FrontProxyKey  []byte `json:"frontProxyKey"`
	// TokenKeys are by file name, which says when the key was made.
	TokenKeys map[string][]byte `json:"tokenKeys"`
	// TokenRetire are the times, by the same name, at which some of them verify no more.
	TokenRetire map[string]time.Time `json:"tokenRetire,omitempty"`
}

// Export returns what another node needs to become a replica.
func (p *PKI) Export() (Bundle, error) {
	trust, err := p.Trust()
	if err != nil {
		return Bundle{}, err
	}
	b := Bundle{ClusterKey: trust.ClusterKeys, ClusterCert: trust.Cluster, FrontProxyCert: trust.FrontProxy, FrontProxyKey: trust.FrontProxyKeys}
	b.TokenKeys, b.TokenRetire, err = p.tokens.export()
	return b, err
}

func (t *TokenKeys) export() (keys map[string][]byte, retire map[string]time.Time, err error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	keys, retire = map[string][]byte{}, map[string]time.Time{}
	for _, k := range t.keys {
		name := filepath.Base(k.file)
		if keys[name], err = encodeKey(k.key); err != nil {
			return nil, nil, err
		}
		if !k.retire.IsZero() {
			retire[name] = k.retire
		}
	}
	return keys, retire, nil
}

// ExportTokenKeys returns the token keys of a replica, as in a [Bundle] that holds nothing else.
func (p *PKI) ExportTokenKeys() (Bundle, error) {
	keys, retire, err := p.tokens.export()
	return Bundle{TokenKeys: keys, TokenRetire: retire}, err
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
		if retire := b.TokenRetire[name]; !retire.IsZero() {
			file := tokenKey{file: filepath.Join(dir, tokenFolder, name)}.retireFile()
			if err := writeFile(file, []byte(retire.UTC().Format(time.RFC3339)+"\n"), 0o600); err != nil {
				return err
			}
		}
	}
	for _, file := range []struct {
		name    string
		content []byte
	}{
		{clusterCAName + ".crt", b.ClusterCert}, {frontProxyCAName + ".crt", b.FrontProxyCert}, {frontProxyCAName + ".key", b.FrontProxyKey}, {clusterCAName + ".key", b.ClusterKey},
	} {
		if file.name == clusterCAName+".crt" && len(file.content) == 0 {
			continue // it comes from a release that did not rotate it
		}
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

// AdoptTokenKeys takes the token keys that another replica has. Those that are there already are left alone, but for an
// earlier end.
func (p *PKI) AdoptTokenKeys(b Bundle) error {
	if p.tokens == nil {
		return errors.New("adopt token keys: this node is no replica")
	}
	for name, content := range b.TokenKeys {
		if filepath.Base(name) != name || !strings.HasSuffix(name, ".key") {
			return fmt.Errorf("adopt token keys: %q is no name of a key", name)
		}
		if err := p.tokens.adopt(name, content, b.TokenRetire[name]); err != nil {
			return err
		}
	}
	return nil
}

// adopt adds one key, in its place by age.
func (t *TokenKeys) adopt(name string, content []byte, retire time.Time) error {
	key, err := parseKey(name, content)
	if err != nil {
		return err
	}
	id, err := keyID(key.Public())
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	named := func(k tokenKey) bool { return k.id == id }
	if !slices.ContainsFunc(t.keys, named) {
		file := filepath.Join(t.dir, name)
		if slices.ContainsFunc(t.keys, func(k tokenKey) bool { return k.file == file }) {
			// Two leaders, one after the other, have made a key in the same second.
			made, _, _ := strings.Cut(strings.TrimSuffix(name, ".key"), "-")
			file = filepath.Join(t.dir, made+"-"+id+".key")
		}
		if err := writeFile(file, content, 0o600); err != nil {
			return err
		}
		loaded, err := loadTokenKey(file)
		if err != nil {
			return err
		}
		t.keys = append(t.keys, loaded)
		sortTokenKeys(t.keys)
	}
	return t.retireLocked(slices.IndexFunc(t.keys, named), retire)
}
