package agent

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/podvine/podvine/agent/peer"
	"github.com/podvine/podvine/agent/pods/images"
	"github.com/podvine/podvine/gossip"
)

const (
	// ImagesObjectName is the ConfigMap in kube-system with the images that were imported into the cluster: each value is an
	// images.Record in JSON, under a key that [ImageKey] makes of its name.
	ImagesObjectName = "podvine-images"

	blobPath = "/blobs/"
	// imageKindHeader says what kind of image a blob is; it is absent for a part of one.
	imageKindHeader = "Podvine-Image-Kind"

	// maxBlobsServed bounds the blobs that go to peers at once; whoever asks then waits for a while, and is then told to ask another.
	maxBlobsServed = 8
	blobWait       = 5 * time.Second
	// readerStallTimeout is how long a peer that is served may take nothing.
	readerStallTimeout = 10 * time.Second
	// maxHolders bounds the nodes that are tried for an image, maxHolderQuestions those that are asked at a time whether they hold it.
	maxHolders         = 4
	maxHolderQuestions = 16
	holderTimeout      = 2 * time.Second
	idleImageConns     = 30 * time.Second
)

// ImageKey is the key of an image's record. A name has characters that a key may not have.
func ImageKey(name string) string { return digest.FromString(name).Encoded() }

// imageNetwork brings parts of images from other nodes and gives them to others, and knows the images that were imported. It
// implements images.Peers and images.Catalog, and is safe for concurrent use.
type imageNetwork struct {
	self    identity
	peers   *peer.Network
	members func() map[string]gossip.Member
	client  *http.Client
	log     *slog.Logger
	// imported is by complete name.
	imported atomic.Pointer[map[string]images.Record]
}

func newImageNetwork(self identity, peers *peer.Network, members func() map[string]gossip.Member, log *slog.Logger) *imageNetwork {
	n := &imageNetwork{self: self, peers: peers, members: members, log: log}
	n.client = &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: 2, IdleConnTimeout: idleImageConns, DisableCompression: true,
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			id, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return peers.Dial(ctx, id, peer.ProtocolImage)
		},
	}}
	n.imported.Store(&map[string]images.Record{})
	return n
}

// take makes the object's records the current ones; a bad one is reported and left out.
func (n *imageNetwork) take(object *corev1.ConfigMap) {
	records := map[string]images.Record{}
	for key, text := range object.Data {
		var record images.Record
		err := json.Unmarshal([]byte(text), &record)
		if err == nil {
			err = record.Check()
		}
		if err == nil && key != ImageKey(record.Name) {
			err = fmt.Errorf("the key of %s is another", record.Name)
		}
		if err != nil {
			n.log.Error("ignore a bad record of an imported image", "key", key, "error", err)
			continue
		}
		records[record.Name] = record
	}
	n.imported.Store(&records)
}

// Imported implements images.Catalog.
func (n *imageNetwork) Imported(name string) (images.Record, bool) {
	record, ok := (*n.imported.Load())[name]
	return record, ok
}

// Holders implements images.Peers: it asks living members, each node in an order of its own, until enough have it.
func (n *imageNetwork) Holders(ctx context.Context, blob digest.Digest) (ocispec.Descriptor, []string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		mu    sync.Mutex
		found []string
		what  ocispec.Descriptor
		asks  sync.WaitGroup
	)
	slots := make(chan struct{}, maxHolderQuestions)
	for _, id := range n.order(blob) {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		asks.Go(func() {
			defer func() { <-slots }()
			held, err := n.ask(ctx, id, blob)
			if err != nil {
				return // it does not have it, or cannot say so
			}
			mu.Lock()
			defer mu.Unlock()
			if len(found) < maxHolders {
				found, what = append(found, id), held
			}
			if len(found) == maxHolders {
				cancel()
			}
		})
	}
	asks.Wait()
	return what, found
}

// order are the members that live, but this one: by a rank that differs for each node and blob, so that what many want comes from many.
func (n *imageNetwork) order(blob digest.Digest) []string {
	type candidate struct {
		id   string
		rank uint64
	}
	var all []candidate
	for id, member := range n.members() {
		if id == n.self.NodeID || !answers(member) {
			continue
		}
		h := fnv.New64a()
		fmt.Fprint(h, n.self.NodeID, id, blob)
		all = append(all, candidate{id, h.Sum64()})
	}
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Compare(a.rank, b.rank) })
	ids := make([]string, len(all))
	for i, one := range all {
		ids[i] = one.id
	}
	return ids
}

// ask asks a node whether it holds the blob.
func (n *imageNetwork) ask(ctx context.Context, id string, blob digest.Digest) (ocispec.Descriptor, error) {
	ctx, cancel := context.WithTimeout(ctx, holderTimeout)
	defer cancel()
	response, err := n.request(ctx, http.MethodHead, id, blob, 0)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{
		Digest: blob, Size: response.ContentLength, MediaType: response.Header.Get(imageKindHeader),
	}, response.Body.Close()
}

// Open implements images.Peers.
func (n *imageNetwork) Open(ctx context.Context, node string, blob digest.Digest, offset int64) (io.ReadCloser, error) {
	response, err := n.request(ctx, http.MethodGet, node, blob, offset)
	if err != nil {
		return nil, err
	}
	return response.Body, nil
}

func (n *imageNetwork) request(ctx context.Context, method, id string, blob digest.Digest, offset int64) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+id+blobPath+blob.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("ask node %s for %s: %w", id, blob, err)
	}
	wanted := http.StatusOK
	if offset > 0 {
		wanted = http.StatusPartialContent
		request.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
	}
	response, err := n.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask node %s for %s: %w", id, blob, err)
	}
	if response.StatusCode == http.StatusServiceUnavailable {
		return nil, errors.Join(fmt.Errorf("ask node %s for %s: %w", id, blob, images.ErrPeerBusy), response.Body.Close())
	}
	if response.StatusCode != wanted {
		return nil, errors.Join(fmt.Errorf("ask node %s for %s: it answers %s", id, blob, response.Status), response.Body.Close())
	}
	return response, nil
}

// serve gives blobs to peers until ctx ends. Any member may have any blob whose digest it knows.
func (n *imageNetwork) serve(ctx context.Context, store *images.Store) error {
	listener, err := n.peers.Listen(peer.ProtocolImage, false)
	if err != nil {
		return err
	}
	slots := make(chan struct{}, maxBlobsServed)
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+blobPath+"{digest}", func(w http.ResponseWriter, r *http.Request) {
		blob, err := digest.Parse(r.PathValue("digest"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		if r.Method == http.MethodGet {
			busy := time.NewTimer(blobWait)
			defer busy.Stop()
			select {
			case slots <- struct{}{}:
				defer func() { <-slots }()
			case <-busy.C:
				http.Error(w, "busy: ask another node", http.StatusServiceUnavailable)
				return
			}
		}
		n.serveBlob(w, r, store, blob)
	})
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: callTimeout, IdleTimeout: 2 * idleImageConns,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) && ctx.Err() == nil {
		return fmt.Errorf("serve images: %w", err)
	}
	return nil
}

func (n *imageNetwork) serveBlob(w http.ResponseWriter, r *http.Request, store *images.Store, blob digest.Digest) {
	held, kind, err := store.Blob(r.Context(), blob)
	if err != nil {
		code := http.StatusInternalServerError
		if errdefs.IsNotFound(err) {
			code = http.StatusNotFound
		}
		http.Error(w, err.Error(), code)
		return
	}
	defer held.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	if kind != "" {
		w.Header().Set(imageKindHeader, kind)
	}
	control := http.NewResponseController(w)
	http.ServeContent(&steadyWriter{ResponseWriter: w, control: control, patience: readerStallTimeout}, r, "", time.Time{}, io.NewSectionReader(held, 0, held.Size()))
	_ = control.SetWriteDeadline(time.Time{}) // the connection serves the next request
}

// steadyWriter ends a connection whose reader takes nothing for a while, so that it does not keep its place.
type steadyWriter struct {
	http.ResponseWriter
	control  *http.ResponseController
	patience time.Duration
}

// Write implements io.Writer.
func (w *steadyWriter) Write(b []byte) (int, error) {
	if err := w.control.SetWriteDeadline(time.Now().Add(w.patience)); err != nil {
		return 0, err
	}
	return w.ResponseWriter.Write(b)
}
