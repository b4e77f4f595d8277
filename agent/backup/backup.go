// Package backup is the file that `podvine backup` writes: who made it of what, and then the store's own checksummed snapshot.
//
// A file is a line "podvine-backup 1 SHA256", a line of JSON of which that is the hash, and the snapshot. Secrets are in it
// as they are in the log: sealed, with keys that are not in it. The header names those keys by fingerprint.
//
// [Decide] is the whole decision whether a cluster may take a backup, and pure. Nothing here is shared; any goroutine may
// call anything.
package backup

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/version"
)

const (
	// Format is the version of the file.
	Format = 1
	magic  = "podvine-backup"
	// maxLineBytes bounds each of the first two lines.
	maxLineBytes = 64 << 10
)

// Header says what a backup is of.
type Header struct {
	// Cluster is the UUID of the cluster, Node the name of the member that wrote the backup.
	Cluster string    `json:"cluster"`
	Node    string    `json:"node"`
	Time    time.Time `json:"time"`
	// Version is the release of that member, Kubernetes the version of the API that it serves ("v1.37.2").
	Version    string `json:"version"`
	Kubernetes string `json:"kubernetes"`
	// DataKeys are the keys with which Secrets may be sealed in it.
	DataKeys []KeyPrint `json:"dataKeys"`
}

// KeyPrint names a data key without telling anything of it.
type KeyPrint struct {
	Number uint32 `json:"number"`
	// Print is the start of the SHA-256 of the key, in hexadecimal.
	Print string `json:"print"`
}

// PrintOf names a key. The key is random, and so its hash tells nothing.
func PrintOf(number uint32, secret []byte) KeyPrint {
	const printBytes = 16
	sum := sha256.Sum256(append([]byte("podvine data key\x00"), secret...))
	return KeyPrint{number, hex.EncodeToString(sum[:printBytes])}
}

// ErrNotABackup says that a file does not begin as a backup does, or that its beginning is damaged.
var ErrNotABackup = errors.New("this is no backup of a Podvine cluster, or its beginning is damaged")

// Write writes the lines that stand before the snapshot.
func Write(w io.Writer, header Header) error {
	content, err := json.Marshal(header)
	if err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	sum := sha256.Sum256(content)
	if _, err := fmt.Fprintf(w, "%s %d %s\n%s\n", magic, Format, hex.EncodeToString(sum[:]), content); err != nil {
		return fmt.Errorf("write backup: %w", err)
	}
	return nil
}

// Read reads the header and returns the snapshot that follows it.
func Read(r io.Reader) (Header, io.Reader, error) {
	buffered := bufio.NewReaderSize(r, maxLineBytes)
	first, err := line(buffered)
	if err != nil {
		return Header{}, nil, err
	}
	var name, sum string
	var format int
	if _, err := fmt.Sscanf(string(first), "%s %d %s", &name, &format, &sum); err != nil || name != magic {
		return Header{}, nil, ErrNotABackup
	}
	if format != Format {
		return Header{}, nil, fmt.Errorf("read backup: it has format %d, this program reads %d: use the release that wrote it, or a newer one", format, Format)
	}
	content, err := line(buffered)
	if err != nil {
		return Header{}, nil, err
	}
	if actual := sha256.Sum256(content); hex.EncodeToString(actual[:]) != sum {
		return Header{}, nil, ErrNotABackup
	}
	var header Header
	if err := json.Unmarshal(content, &header); err != nil {
		return Header{}, nil, fmt.Errorf("read backup: %w", err)
	}
	return header, buffered, nil
}

func line(r *bufio.Reader) ([]byte, error) {
	text, err := r.ReadSlice('\n')
	if err != nil {
		return nil, errors.Join(ErrNotABackup, err)
	}
	return bytes.Clone(bytes.TrimSuffix(text, []byte("\n"))), nil
}

// View is the cluster that is to take a backup.
type View struct {
	Cluster, Kubernetes string
	DataKeys            []KeyPrint
	// AnyCluster accepts the backup of another cluster.
	AnyCluster bool
}

// Decide says why the cluster must not take the backup, or nil.
func Decide(header Header, view View) error {
	if header.Cluster != view.Cluster && !view.AnyCluster {
		return fmt.Errorf("the backup is of cluster %s, this is %s: if this one is to take its place, say --other-cluster", header.Cluster, view.Cluster)
	}
	theirs, err := version.ParseGeneric(header.Kubernetes)
	if err != nil {
		return fmt.Errorf("the backup names no version of the API: %w", err)
	}
	ours, err := version.ParseGeneric(view.Kubernetes)
	if err != nil {
		return fmt.Errorf("read this cluster's version: %w", err)
	}
	if theirs.Major() != ours.Major() || theirs.Minor() > ours.Minor() {
		return fmt.Errorf("the backup holds objects of Kubernetes API %s, this cluster serves %s: upgrade it first", header.Kubernetes, view.Kubernetes)
	}
	var missing []string
	for _, key := range header.DataKeys {
		if !slices.Contains(view.DataKeys, key) {
			missing = append(missing, fmt.Sprint(key.Number))
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("this cluster does not hold the data keys (number %s) that the backup's Secrets are sealed with: found it with data-keys.json of a replica of the old cluster", strings.Join(missing, ", "))
	}
	return nil
}
