// Package bundle carries the slim programs that outlive the agent (the shim, netd) and runc, and unpacks them onto the
// host. They are part of the binary only when it is built with the tag "bundle", so that a plain `go build` works in
// a clean clone; without the tag, [Unpack] takes them from a folder that the caller names.
//
// The files are unpacked under names that hold their digest, so that a running shim keeps its own program when a newer
// agent unpacks another version. The package holds no state and may be used from several goroutines.
package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Programs are the paths of the unpacked programs, each executable by root alone.
type Programs struct {
	Shim string
	Netd string
	Runc string
}

const (
	shimName   = "podvine-shim"
	netdName   = "podvine-netd"
	runcName   = "runc"
	sampleName = "podvine-sample"

	digestLength = 12 // hexadecimal digits of SHA-256 in a file's name
)

// ErrNotBundled says that this binary was built without its programs and that no folder held them.
var ErrNotBundled = errors.New("this podvine was built without its programs: build it with `make build`")

// Unpack puts the programs below dir, which it makes, and returns their paths. It writes only what is not there yet.
// fallback is the folder to take them from when they are not part of the binary; "" means there is none.
func Unpack(dir, fallback string) (Programs, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Programs{}, fmt.Errorf("make the programs folder: %w", err)
	}
	var programs Programs
	for name, path := range map[string]*string{shimName: &programs.Shim, netdName: &programs.Netd, runcName: &programs.Runc} {
		content, digest, err := open(name, fallback)
		if err != nil {
			return Programs{}, err
		}
		*path = filepath.Join(dir, name+"-"+digest)
		if err := write(*path, content); err != nil {
			return Programs{}, fmt.Errorf("unpack %s: %w", name, err)
		}
	}
	return programs, nil
}

// Sample returns the program of the sample application that the lab deploys, from the binary or from the fallback folder.
func Sample(fallback string) ([]byte, error) {
	content, _, err := open(sampleName, fallback)
	if err != nil {
		return nil, err
	}
	return content()
}

// open returns the program's content as a function (so that nothing is decompressed when the file is there) and its digest.
func open(name, fallback string) (func() ([]byte, error), string, error) {
	packed, err := fs.ReadFile(packedFiles, "packed/"+name+".zst")
	if err == nil {
		sum, err := fs.ReadFile(packedFiles, "packed/"+name+".sha256")
		if err != nil {
			return nil, "", fmt.Errorf("read the digest of %s: %w", name, err)
		}
		return func() ([]byte, error) { return decompress(packed) }, strings.TrimSpace(string(sum))[:digestLength], nil
	}
	if fallback == "" {
		return nil, "", ErrNotBundled
	}
	content, err := os.ReadFile(filepath.Join(fallback, name))
	if err != nil {
		return nil, "", fmt.Errorf("%w (%w)", ErrNotBundled, err)
	}
	sum := sha256.Sum256(content)
	return func() ([]byte, error) { return content, nil }, hex.EncodeToString(sum[:])[:digestLength], nil
}

func decompress(packed []byte) ([]byte, error) {
	reader, err := zstd.NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	return io.ReadAll(reader)
}

// write makes path appear at once and whole, because a shim may be started from it by another agent at any time.
func write(path string, content func() ([]byte, error)) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	data, err := content()
	if err != nil {
		return err
	}
	temporary := fmt.Sprintf("%s.%d", path, os.Getpid())
	if err := os.WriteFile(temporary, data, 0o700); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return os.Rename(temporary, path)
}
