package pods

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/podvine/podvine/agent/pods/images"
	"github.com/podvine/podvine/agent/pods/internal/podtest"
)

// stores are nodes as another one's peers, by name, with faults.
type stores struct {
	all map[string]*images.Store

	mu sync.Mutex
	// damages is a node that gives wrong bytes; cuts is one that hangs up in the middle of everything large.
	damages, cuts string
	// busy is how many reads are put off.
	busy int
	// opened notes what was read: "node offset".
	opened []string
}

// Holders implements images.Peers.
func (s *stores) Holders(ctx context.Context, blob digest.Digest) (what ocispec.Descriptor, nodes []string) {
	for _, name := range []string{"a", "b"} {
		if store := s.all[name]; store != nil {
			if held, kind, err := store.Blob(ctx, blob); err == nil {
				what = ocispec.Descriptor{Digest: blob, Size: held.Size(), MediaType: kind}
				nodes = append(nodes, name)
				_ = held.Close()
			}
		}
	}
	return what, nodes
}

// Open implements images.Peers.
func (s *stores) Open(ctx context.Context, node string, blob digest.Digest, offset int64) (io.ReadCloser, error) {
	const large = 100 << 10
	held, _, err := s.all[node].Blob(ctx, blob)
	if err != nil {
		return nil, err
	}
	defer held.Close()
	content, err := io.ReadAll(io.NewSectionReader(held, offset, held.Size()-offset))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy > 0 {
		s.busy--
		return nil, images.ErrPeerBusy
	}
	s.opened = append(s.opened, fmt.Sprint(node, " ", offset))
	if held.Size() > large && node == s.damages {
		content[len(content)/2] ^= 1
	}
	if held.Size() > large && node == s.cuts {
		return io.NopCloser(io.MultiReader(bytes.NewReader(content[:len(content)/2]), brokenReader{})), nil
	}
	return io.NopCloser(bytes.NewReader(content)), nil
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("the node has died") }

// records are a list of imported images.
type records map[string]images.Record

// Imported implements images.Catalog.
func (r records) Imported(name string) (images.Record, bool) {
	record, ok := r[name]
	return record, ok
}

// importInto imports an image with a mark of its own.
func importInto(t *testing.T, store *images.Store, image, mark string) images.Record {
	t.Helper()
	archive, err := podtest.Archive(programs.Box, image, func(c *v1.Config) { c.Env = append(c.Env, "MARK="+mark) })
	if err != nil {
		t.Fatal(err)
	}
	imported, err := store.Import(t.Context(), archive)
	if err != nil {
		t.Fatal(err)
	}
	return imported[0]
}

func TestImagesComeFromPeers(t *testing.T) {
	t.Parallel()
	const image = "nowhere.test/app:1"
	a, b := newNode(t).start().agent.Images(), newNode(t).start().agent.Images()
	known, peers := records{}, &stores{all: map[string]*images.Store{"a": a, "b": b}}
	n := newNode(t)
	n.cfg.ImagePeers, n.cfg.ImportedImages = peers, known
	n.start()
	// Without a record it is an image of a registry, which cannot be asked.
	if _, err := n.agent.Images().Pull(t.Context(), image, nil); err == nil {
		t.Error("an image was pulled from nowhere")
	}
	// The layer is here, of the node's own test image: only manifest and configuration come.
	known[image] = importInto(t, a, image, "one")
	importInto(t, b, image, "one")
	n.create(newPod("first", pulled(image, corev1.PullAlways)))
	n.until("first", "is ready", ready)
	if len(peers.opened) == 0 {
		t.Error("nothing came from peers")
	}

	// A newer one under the same name is fetched, also where the policy is content with what is there.
	known[image] = importInto(t, b, image, "two")
	n.create(newPod("second", pulled(image, corev1.PullIfNotPresent)))
	n.until("second", "is ready", ready)
	got, ok, err := n.agent.Images().Find(t.Context(), image)
	if err != nil || !ok || got.Digest != string(known[image].Digest) {
		t.Errorf("the node has %+v, %v", got, err)
	}

	// A name with a digest needs neither a registry nor a record.
	pinned := "nowhere.test/other@" + string(known[image].Digest)
	if _, err := n.agent.Images().Pull(t.Context(), pinned, nil); err != nil {
		t.Errorf("pull by digest: %v", err)
	}

	known["nowhere.test/lost:1"] = images.Record{Name: "nowhere.test/lost:1", Digest: digest.FromString("lost"), MediaType: ocispec.MediaTypeImageManifest, SizeBytes: 4}
	if _, err := n.agent.Images().Pull(t.Context(), "nowhere.test/lost:1", nil); err == nil || !strings.Contains(err.Error(), "no node that holds it can be reached") {
		t.Errorf("an image that nobody holds: %v", err)
	}
}

// A layer goes on where another node, or an earlier pull, left off; what is not what its digest says is thrown away.
func TestBrokenTransfersOfImagesGoOn(t *testing.T) {
	t.Parallel()
	const image = "nowhere.test/large:1"
	a, b := newNode(t).start().agent.Images(), newNode(t).start().agent.Images()
	var record images.Record
	for _, store := range []*images.Store{a, b} {
		archive, err := podtest.Archive(programs.Shim, image, nil) // its layer is no other node's
		if err != nil {
			t.Fatal(err)
		}
		imported, err := store.Import(t.Context(), archive)
		if err != nil {
			t.Fatal(err)
		}
		record = imported[0]
	}
	peers := &stores{all: map[string]*images.Store{"a": a}, cuts: "a"}
	n := newNode(t)
	n.cfg.ImagePeers = peers
	n.start()
	store := n.agent.Images()
	if _, err := store.Fetch(t.Context(), record); err == nil {
		t.Fatal("the image came whole from a node that hangs up")
	}
	// The other node gives the rest.
	peers.all["b"], peers.opened = b, nil
	delete(peers.all, "a")
	if _, err := store.Fetch(t.Context(), record); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(peers.opened, func(read string) bool { return !strings.HasSuffix(read, " 0") }) {
		t.Errorf("the second pull began anew: it read %v", peers.opened)
	}
	other := newNode(t)
	other.cfg.ImagePeers = &stores{all: map[string]*images.Store{"a": a, "b": b}, damages: "a", busy: 3}
	other.start()
	if _, err := other.agent.Images().Fetch(t.Context(), record); err != nil {
		t.Errorf("with a node that gives wrong bytes and one that does not: %v", err)
	}
}
