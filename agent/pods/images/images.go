// Package images is the node's image store by the names that users write:
// pulling with credentials, importing archives, listing, and removing what is
// not needed.
//
// Concurrency: a Store is safe for use by many goroutines; pulls of one image
// are joined, and at most MaxParallelPulls run at once, MaxParallelRegistryPulls
// of them from one registry.
package images

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"

	"github.com/podvine/podvine/agent/pods/runtime"
)

// Config is what a [Store] may have. The zero value pulls from registries alone.
type Config struct {
	// NodeName is this node's.
	NodeName string
	// Stall is how long a pull may receive nothing from a registry; 0 is DefaultStallTimeout.
	Stall time.Duration
	// Peers are asked before the registry; nil asks none.
	Peers Peers
	// Catalog knows the images that were imported into the cluster; nil knows none.
	Catalog Catalog
	// BusyPause is how long a pull waits when all peers that hold a part are busy; 0 is a second.
	BusyPause time.Duration
	// Log hears of peers that fail; nil is silent.
	Log *slog.Logger
}

// Store is the node's image store.
type Store struct {
	rt        *runtime.Runtime
	config    Config
	slots     chan struct{}
	transfers chan struct{}

	// changed holds a token after the set of images changed.
	changed chan struct{}

	mu sync.Mutex
	// All below is guarded by mu.
	used       map[string]time.Time // by config digest
	flights    map[string]*flight   // pulls under way
	registries map[string]*registry // in use, by host
}

// New makes a Store over rt's content.
func New(rt *runtime.Runtime, config Config) *Store {
	if config.Stall <= 0 {
		config.Stall = DefaultStallTimeout
	}
	if config.BusyPause <= 0 {
		config.BusyPause = defaultBusyPause
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	return &Store{
		rt: rt, config: config, slots: make(chan struct{}, MaxParallelPulls), transfers: make(chan struct{}, maxPeerTransfers),
		changed: make(chan struct{}, 1),
		used:    map[string]time.Time{}, flights: map[string]*flight{}, registries: map[string]*registry{},
	}
}

// imported finds the record of an image.
func (s *Store) imported(name string) (Record, bool) {
	if s.config.Catalog == nil {
		return Record{}, false
	}
	return s.config.Catalog.Imported(name)
}

// Changed receives after images came or went.
func (s *Store) Changed() <-chan struct{} { return s.changed }

func (s *Store) notify() {
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// ErrInvalidName is returned for what is no image name.
var ErrInvalidName = errors.New("invalid reference format")

// Normalize completes a name: app becomes docker.io/library/app:latest.
func Normalize(name string) (string, error) {
	ref, err := reference.ParseDockerRef(name)
	if err != nil {
		return "", fmt.Errorf("couldn't parse image name %q: %w", name, ErrInvalidName)
	}
	return ref.String(), nil
}

// Find looks for an image in the store, by any form of its name. ok is false
// when it is not there.
func (s *Store) Find(ctx context.Context, name string) (info runtime.ImageInfo, ok bool, err error) {
	full, err := Normalize(name)
	if err != nil {
		return runtime.ImageInfo{}, false, err
	}
	for _, candidate := range []string{full, name, "localhost/" + name} {
		info, err = s.rt.ImageInfo(ctx, candidate)
		if err == nil {
			s.touch(info.ConfigDigest)
			return info, true, nil
		}
		if !errdefs.IsNotFound(err) {
			return runtime.ImageInfo{}, false, err
		}
	}
	return runtime.ImageInfo{}, false, nil
}

// Outdated tells whether another image was imported into the cluster under the name since.
func (s *Store) Outdated(info runtime.ImageInfo) bool {
	record, ok := s.imported(info.Name)
	return ok && info.Digest != "" && string(record.Digest) != info.Digest
}

func (s *Store) touch(digest string) {
	s.mu.Lock()
	s.used[digest] = time.Now()
	s.mu.Unlock()
}

// Import adds the images of an OCI or docker archive and returns what the cluster must know to have them everywhere.
func (s *Store) Import(ctx context.Context, r io.Reader) ([]Record, error) {
	defer s.notify()
	ctx = s.rt.Context(ctx)
	c := s.rt.Client()
	clean := func(name string) string {
		if full, err := Normalize(name); err == nil {
			return full
		}
		return name
	}
	got, err := c.Import(ctx, r, client.WithImageRefTranslator(clean))
	if err != nil {
		return nil, fmt.Errorf("import image archive: %w", err)
	}
	var records []Record
	for _, img := range got {
		full := clean(img.Name)
		if full != img.Name {
			alias := images.Image{Name: full, Target: img.Target}
			if _, err := c.ImageService().Create(ctx, alias); errdefs.IsAlreadyExists(err) {
				_, err = c.ImageService().Update(ctx, alias, "target")
				if err != nil {
					return records, fmt.Errorf("name image %s: %w", full, err)
				}
			} else if err != nil {
				return records, fmt.Errorf("name image %s: %w", full, err)
			}
		}
		if err := client.NewImage(c, img).Unpack(ctx, runtime.Snapshotter); err != nil {
			return records, fmt.Errorf("unpack image %s: %w", full, err)
		}
		records = append(records, Record{
			Name: full, Digest: img.Target.Digest, MediaType: img.Target.MediaType, SizeBytes: img.Target.Size, Time: time.Now().UTC(),
		})
	}
	if len(records) == 0 {
		return nil, errors.New("import image archive: it names no image")
	}
	return records, nil
}

// List returns all images.
func (s *Store) List(ctx context.Context) ([]runtime.ImageInfo, error) { return s.rt.Images(ctx) }

// Credential opens registries below Prefix.
type Credential struct{ Prefix, Username, Password string }

// Credentials reads the registry logins out of pull secrets; others are skipped.
func Credentials(secrets []*corev1.Secret) []Credential {
	type login struct{ Username, Password, Auth string }
	var out []Credential
	for _, s := range secrets {
		auths := map[string]login{}
		if raw, ok := s.Data[corev1.DockerConfigJsonKey]; ok {
			var file struct{ Auths map[string]login }
			if json.Unmarshal(raw, &file) == nil {
				auths = file.Auths
			}
		} else if raw, ok := s.Data[corev1.DockerConfigKey]; ok && json.Unmarshal(raw, &auths) != nil {
			continue
		}
		for prefix, l := range auths {
			if l.Username == "" && l.Auth != "" {
				if plain, err := base64.StdEncoding.DecodeString(l.Auth); err == nil {
					l.Username, l.Password, _ = strings.Cut(string(plain), ":")
				}
			}
			out = append(out, Credential{registryPrefix(prefix), l.Username, l.Password})
		}
	}
	return out
}

func registryPrefix(p string) string {
	p = strings.TrimPrefix(strings.TrimPrefix(p, "https://"), "http://")
	p = strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(p, "/"), "/v1"), "/v2")
	if p == "index.docker.io" || p == "registry-1.docker.io" {
		return "docker.io"
	}
	return p
}

// hostOf is the registry of a complete name.
func hostOf(full string) string {
	host, _, _ := strings.Cut(full, "/")
	return host
}

func matching(creds []Credential, host, full string) []Credential {
	var out []Credential
	for _, c := range creds {
		prefix, glob := strings.CutPrefix(c.Prefix, "*.")
		if glob && strings.HasSuffix(host, "."+prefix) || !glob && (host == c.Prefix || strings.HasPrefix(full, c.Prefix+"/")) {
			out = append(out, c)
		}
	}
	return out
}
