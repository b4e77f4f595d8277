package podtest

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Registry is an image registry on loopback.
type Registry struct {
	// Host is its address, as names of images begin.
	Host string
	// User and Password, when set, are asked of everyone.
	User, Password string
	// Drip sends layers in parts with pauses of this length.
	Drip time.Duration

	srv    *httptest.Server
	pulls  atomic.Int64 // of manifests
	stall  atomic.Bool
	resume chan struct{}
}

// dripParts is in how many parts a dripping registry sends a layer.
const dripParts = 8

// NewRegistry starts a registry that ends with the test.
func NewRegistry(t testing.TB) *Registry {
	t.Helper()
	r := &Registry{resume: make(chan struct{})}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	r.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { r.serve(w, req, inner) }))
	r.Host = strings.TrimPrefix(r.srv.URL, "http://")
	t.Cleanup(func() {
		close(r.resume)
		r.srv.Close()
	})
	return r
}

// Stall lets every request of a layer wait for the end of the test after its
// header.
func (r *Registry) Stall() { r.stall.Store(true) }

// Pulls counts the manifests that were fetched.
func (r *Registry) Pulls() int64 { return r.pulls.Load() }

func (r *Registry) serve(w http.ResponseWriter, req *http.Request, inner http.Handler) {
	if user, password, _ := req.BasicAuth(); r.User != "" && (user != r.User || password != r.Password) {
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
		return
	}
	get := req.Method == http.MethodGet
	switch {
	case strings.Contains(req.URL.Path, "/manifests/") && get:
		r.pulls.Add(1)
	case strings.Contains(req.URL.Path, "/blobs/") && get && r.stall.Load():
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush() // a client that has left is no matter
		select {
		case <-r.resume:
		case <-req.Context().Done():
		}
		return
	case strings.Contains(req.URL.Path, "/blobs/") && get && r.Drip > 0:
		w = dripping{w, r.Drip}
	}
	inner.ServeHTTP(w, req)
}

type dripping struct {
	http.ResponseWriter
	pause time.Duration
}

// ReadFrom keeps io.Copy from going around Write.
func (d dripping) ReadFrom(from io.Reader) (int64, error) {
	all, err := io.ReadAll(from)
	if err != nil {
		return 0, err
	}
	n, err := d.Write(all)
	return int64(n), err
}

// Write sends p in parts.
func (d dripping) Write(p []byte) (int, error) {
	sent, part := 0, len(p)/dripParts+1
	for sent < len(p) {
		n, err := d.ResponseWriter.Write(p[sent:min(sent+part, len(p))])
		sent += n
		if err != nil {
			return sent, err
		}
		if err := http.NewResponseController(d.ResponseWriter).Flush(); err != nil {
			return sent, err
		}
		<-time.After(d.pause)
	}
	return sent, nil
}

// Push stores an image and returns its whole name.
func (r *Registry) Push(t testing.TB, img v1.Image, repository, tag string) string {
	t.Helper()
	manifest, err := img.Manifest()
	must(t, err)
	raw, err := img.RawManifest()
	must(t, err)
	config, err := img.RawConfigFile()
	must(t, err)
	r.upload(t, repository, manifest.Config.Digest, bytes.NewReader(config))
	layers, err := img.Layers()
	must(t, err)
	for _, l := range layers {
		digest, err := l.Digest()
		must(t, err)
		body, err := l.Compressed()
		must(t, err)
		r.upload(t, repository, digest, body)
	}
	r.send(t, http.MethodPut, fmt.Sprintf("/v2/%s/manifests/%s", repository, tag), string(manifest.MediaType), bytes.NewReader(raw))
	return fmt.Sprintf("%s/%s:%s", r.Host, repository, tag)
}

func (r *Registry) upload(t testing.TB, repository string, digest v1.Hash, body io.Reader) {
	t.Helper()
	r.send(t, http.MethodPost, fmt.Sprintf("/v2/%s/blobs/uploads/?digest=%s", repository, digest), "application/octet-stream", body)
}

func (r *Registry) send(t testing.TB, method, path, kind string, body io.Reader) {
	t.Helper()
	req, err := http.NewRequest(method, r.srv.URL+path, body)
	must(t, err)
	req.Header.Set("Content-Type", kind)
	req.SetBasicAuth(r.User, r.Password)
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	defer res.Body.Close()
	if res.StatusCode >= http.StatusMultipleChoices {
		text, err := io.ReadAll(res.Body)
		t.Fatalf("%s %s: %s %s %v", method, path, res.Status, text, err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
