package images

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// maxPeerTransfers bounds the blobs that come from peers at once.
	maxPeerTransfers = 4
	// peerStallTimeout is how long a peer may send nothing; then another one is asked.
	peerStallTimeout = 10 * time.Second
	// maxBusyRounds bounds how often nodes that are busy are asked again for a blob, defaultBusyPause is the pause between.
	maxBusyRounds    = 60
	defaultBusyPause = time.Second
)

// Peers are the other nodes, which may hold what this one lacks.
type Peers interface {
	// Holders returns nodes that hold the blob, in the order in which they are to be asked, and what the blob is. None is no
	// error.
	Holders(ctx context.Context, blob digest.Digest) (ocispec.Descriptor, []string)
	// Open reads a node's blob from an offset on.
	Open(ctx context.Context, node string, blob digest.Digest, offset int64) (io.ReadCloser, error)
}

// Record is what the cluster keeps of an image that was imported: there is no registry to ask.
type Record struct {
	// Name is the complete name ("docker.io/library/app:v1").
	Name      string        `json:"name"`
	Digest    digest.Digest `json:"digest"`
	MediaType string        `json:"mediaType"`
	// SizeBytes is the size of what the digest names.
	SizeBytes int64     `json:"sizeBytes"`
	Time      time.Time `json:"time"`
	// Keepers are names of nodes that never remove the image to gain space.
	Keepers []string `json:"keepers,omitempty"`
}

// Check says what is wrong with a record that somebody has written.
func (r Record) Check() error {
	full, err := Normalize(r.Name)
	switch {
	case err != nil:
		return err
	case full != r.Name:
		return fmt.Errorf("image %q: the complete name is %q", r.Name, full)
	case !images.IsManifestType(r.MediaType) && !images.IsIndexType(r.MediaType):
		return fmt.Errorf("image %s: %q is no kind of image", r.Name, r.MediaType)
	case r.SizeBytes <= 0:
		return fmt.Errorf("image %s: it has %d bytes", r.Name, r.SizeBytes)
	}
	if err := r.Digest.Validate(); err != nil {
		return fmt.Errorf("image %s: %w", r.Name, err)
	}
	return nil
}

func (r Record) descriptor() ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: r.MediaType, Digest: r.Digest, Size: r.SizeBytes}
}

// Catalog knows the images that were imported into the cluster.
type Catalog interface {
	Imported(name string) (Record, bool)
}

// ErrPeerBusy says that a node gives blobs to as many others as it may at once.
var ErrPeerBusy = errors.New("the node is busy")

// errNoPeer says that an imported image is nowhere to be had.
var errNoPeer = errors.New("it was imported, so that no registry has it, and no node that holds it can be reached")

// source is where an image comes from: peers for what they hold, and then the registry, if there is one.
type source struct {
	remotes.Resolver // the registry's
	known            ocispec.Descriptor
	imported         bool
}

// Resolve implements remotes.Resolver.
func (s source) Resolve(ctx context.Context, name string) (string, ocispec.Descriptor, error) {
	if s.known.Digest != "" {
		return name, s.known, nil
	}
	return s.Resolver.Resolve(ctx, name)
}

// Fetcher implements remotes.Resolver.
func (s source) Fetcher(ctx context.Context, name string) (remotes.Fetcher, error) {
	if s.imported {
		return remotes.FetcherFunc(func(context.Context, ocispec.Descriptor) (io.ReadCloser, error) { return nil, errNoPeer }), nil
	}
	return s.Resolver.Fetcher(ctx, name)
}

// peerPull brings the blobs of one image from peers. What no peer gives is left to the registry.
type peerPull struct {
	store *Store

	mu      sync.Mutex
	asked   bool
	holders []string
}

// handle is called for each blob before the registry is asked for it.
func (p *peerPull) handle(ctx context.Context, blob ocispec.Descriptor) ([]ocispec.Descriptor, error) {
	if _, err := p.store.rt.Client().ContentStore().Info(ctx, blob.Digest); err == nil || blob.Size <= 0 {
		return nil, nil
	}
	for range maxBusyRounds {
		busy, err := p.turn(ctx, blob)
		if err != nil || !busy {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(p.store.config.BusyPause):
		}
		p.mu.Lock()
		p.asked = false // others may hold it by now
		p.mu.Unlock()
	}
	return nil, nil
}

// turn is a round in one of the places for transfers; who waits for a busy node holds none.
func (p *peerPull) turn(ctx context.Context, blob ocispec.Descriptor) (busy bool, err error) {
	select {
	case p.store.transfers <- struct{}{}:
		defer func() { <-p.store.transfers }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	return p.round(ctx, blob)
}

// round asks each node that holds the blob until it is here. It tells whether one of them was only busy.
func (p *peerPull) round(ctx context.Context, blob ocispec.Descriptor) (busy bool, err error) {
	for _, node := range p.nodes(ctx, blob.Digest) {
		err := p.store.fetchFrom(ctx, node, blob)
		switch {
		case err == nil, errdefs.IsAlreadyExists(err):
			return false, nil
		case ctx.Err() != nil:
			return false, ctx.Err()
		case errors.Is(err, ErrPeerBusy):
			busy = true
			continue
		}
		p.store.config.Log.Info("a node did not give a part of an image", "node", node, "digest", blob.Digest, "error", err)
	}
	return busy, nil
}

// nodes are those that hold the image. They are looked for once, by its first blob, because whoever holds that most likely holds the rest.
func (p *peerPull) nodes(ctx context.Context, blob digest.Digest) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.asked {
		_, p.holders = p.store.config.Peers.Holders(ctx, blob)
		p.asked = true
	}
	return p.holders
}

// fetchFrom brings a blob from a node, goes on where an earlier try ended, and keeps it only if it is what its digest says.
func (s *Store) fetchFrom(ctx context.Context, node string, blob ocispec.Descriptor) error {
	blobs, ref := s.rt.Client().ContentStore(), "peer-"+blob.Digest.String()
	// What is half here belongs to no pull, and so not to the lease in ctx: the next one goes on with it, and containerd drops it
	// after a day.
	open, cancel := context.WithCancel(s.rt.Context(context.Background()))
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	w, err := content.OpenWriter(open, blobs, content.WithRef(ref), content.WithDescriptor(blob))
	if err != nil {
		return err
	}
	defer w.Close()
	status, err := w.Status()
	if err != nil {
		return fmt.Errorf("see how much of %s is here: %w", blob.Digest, err)
	}
	if status.Offset < blob.Size {
		if err := s.copyFrom(ctx, w, node, blob, status.Offset); err != nil {
			return err
		}
	}
	err = w.Commit(ctx, blob.Size, blob.Digest)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return errors.Join(fmt.Errorf("what came is not %s: %w", blob.Digest, err), blobs.Abort(ctx, ref))
	}
	return nil
}

func (s *Store) copyFrom(ctx context.Context, w io.Writer, node string, blob ocispec.Descriptor, offset int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stalled := time.AfterFunc(peerStallTimeout, cancel)
	defer stalled.Stop()
	body, err := s.config.Peers.Open(ctx, node, blob.Digest, offset)
	if err != nil {
		return err
	}
	defer body.Close()
	wanted := blob.Size - offset
	n, err := io.Copy(w, io.LimitReader(&watchedReader{body, stalled}, wanted))
	if err == nil && n < wanted {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("read %s at %d: %w", blob.Digest, offset+n, err)
	}
	return nil
}

// watchedReader runs the timer while it waits for the peer, and not while what came is written to a disk that may be slow.
type watchedReader struct {
	io.Reader
	stalled *time.Timer
}

// Read implements io.Reader.
func (r *watchedReader) Read(b []byte) (int, error) {
	r.stalled.Reset(peerStallTimeout)
	defer r.stalled.Stop()
	return r.Reader.Read(b)
}

// Blob opens a blob for another node, and tells what kind of image it is, "" for a part of one. The caller closes it.
func (s *Store) Blob(ctx context.Context, blob digest.Digest) (content.ReaderAt, string, error) {
	ctx = s.rt.Context(ctx)
	blobs := s.rt.Client().ContentStore()
	info, err := blobs.Info(ctx, blob)
	if err != nil {
		return nil, "", err
	}
	desc := ocispec.Descriptor{Digest: blob, Size: info.Size}
	r, err := blobs.ReaderAt(ctx, desc)
	if err != nil {
		return nil, "", err
	}
	return r, kindOf(r), nil
}

// maxManifestBytes bounds what may be a manifest or an index.
const maxManifestBytes = 4 << 20

// kindOf reads the media type of a manifest or an index; it is "" for anything else.
func kindOf(blob content.ReaderAt) string {
	if blob.Size() > maxManifestBytes {
		return ""
	}
	var read struct {
		MediaType string          `json:"mediaType"`
		Manifests json.RawMessage `json:"manifests"`
		Layers    json.RawMessage `json:"layers"`
	}
	if err := json.NewDecoder(content.NewReader(blob)).Decode(&read); err != nil {
		return "" // it is no JSON
	}
	switch {
	case images.IsManifestType(read.MediaType), images.IsIndexType(read.MediaType):
		return read.MediaType
	case read.Manifests != nil:
		return ocispec.MediaTypeImageIndex
	case read.Layers != nil:
		return ocispec.MediaTypeImageManifest
	}
	return ""
}
