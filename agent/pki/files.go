package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	certBlock = "CERTIFICATE"
	keyBlock  = "PRIVATE KEY"

	// maxFileBytes bounds what is read from a key file.
	maxFileBytes = 1 << 20
)

// writeFile replaces path so that a reader, or a crash, sees the old or the new content and nothing between.
func writeFile(path string, content []byte, mode fs.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already after the rename
	err = errors.Join(f.Chmod(mode), writeAll(f, content), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return syncDir(filepath.Dir(path))
}

func writeAll(f *os.File, content []byte) error {
	_, err := f.Write(content)
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	err = errors.Join(d.Sync(), d.Close())
	if err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// readSecret reads a private file and puts its mode right if it was too open.
func readSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	if info.Size() > maxFileBytes {
		return nil, fmt.Errorf("read key %s: larger than %d bytes", path, maxFileBytes)
	}
	if info.Mode().Perm()&0o077 != 0 {
		if err := os.Chmod(path, 0o600); err != nil {
			return nil, fmt.Errorf("protect key %s: %w", path, err)
		}
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	return content, nil
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: der})
}

func encodeKey(key crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), nil
}

// parseCert reads the first certificate of a PEM file; path is for the error only.
func parseCert(path string, content []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(content)
	if block == nil || block.Type != certBlock {
		return nil, fmt.Errorf("load %s: no PEM certificate in it", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	return cert, nil
}

// parseKey reads a PKCS#8 private key; errors never hold any of the content.
func parseKey(path string, content []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(content)
	if block == nil || block.Type != keyBlock {
		return nil, fmt.Errorf("load %s: no PEM private key in it", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("load %s: broken private key", path)
	}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		return key, nil
	case *ecdsa.PrivateKey:
		return key, nil
	}
	return nil, fmt.Errorf("load %s: key of type %T, want RSA or ECDSA", path, key)
}

// splitPEM returns the first certificate and the first private key of a file, each in PEM; one that is not there is nil.
func splitPEM(content []byte) (certPEM, keyPEM []byte) {
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		switch {
		case block.Type == certBlock && certPEM == nil:
			certPEM = pem.EncodeToMemory(block)
		case block.Type == keyBlock && keyPEM == nil:
			keyPEM = pem.EncodeToMemory(block)
		}
	}
	return certPEM, keyPEM
}

// matching checks that a certificate is for a key.
func matching(path string, cert *x509.Certificate, key crypto.Signer) error {
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(cert.PublicKey) {
		return fmt.Errorf("load %s: certificate and key do not belong together", path)
	}
	return nil
}
