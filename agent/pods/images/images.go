// Package images is the node's image store by the names that users write:
// pulling with credentials, importing archives, listing, and removing what is
// not needed.
//
// Concurrency: a Store is safe for use by many goroutines; pulls of one image
// are joined, and at most MaxParallelPulls run at once.
package images

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"golang.org/x/sync/singleflight"
	corev1 "k8s.io/api/core/v1"

	"github.com/podvine/podvine/agent/pods/runtime"
)

const (
	// MaxParallelPulls bounds the pulls that run at once.
	MaxParallelPulls = 5
	// connectTimeout bounds reaching a registry, so that one that never answers
	// fails fast.
	connectTimeout = 10 * time.Second
)

// Store is the node's image store.
type Store struct {
	rt    *runtime.Runtime
	slots chan struct{}
	group singleflight.Group

	// changed holds a token after the set of images changed.
	changed chan struct{}

	mu   sync.Mutex
	used map[string]time.Time // by config digest, guarded by mu
}

// New makes a Store over rt's content.
func New(rt *runtime.Runtime) *Store {
	return &Store{rt: rt, slots: make(chan struct{}, MaxParallelPulls), used: map[string]time.Time{}, changed: make(chan struct{}, 1)}
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

func (s *Store) touch(digest string) {
	s.mu.Lock()
	s.used[digest] = time.Now()
	s.mu.Unlock()
}

// Pull fetches an image from its registry, trying the credentials in order.
func (s *Store) Pull(ctx context.Context, name string, creds []Credential) (runtime.ImageInfo, error) {
	full, err := Normalize(name)
	if err != nil {
		return runtime.ImageInfo{}, err
	}
	tries := matching(creds, hostOf(full), full)
	if len(tries) == 0 {
		tries = []Credential{{}}
	}
	ch := s.group.DoChan(full+fmt.Sprint(tries), func() (any, error) {
		// The pull goes on for whoever joined it; each waiter has its own end.
		pctx := s.rt.Context(context.WithoutCancel(ctx))
		s.slots <- struct{}{}
		defer func() { <-s.slots }()
		var errs error
		for _, c := range tries {
			if errs = s.pull(pctx, full, c); errs == nil {
				return nil, nil
			}
		}
		return nil, errs
	})
	select {
	case res := <-ch:
		if res.Err != nil {
			return runtime.ImageInfo{}, res.Err
		}
	case <-ctx.Done():
		return runtime.ImageInfo{}, ctx.Err()
	}
	s.notify()
	return s.rt.ImageInfo(ctx, full)
}

func (s *Store) pull(ctx context.Context, full string, cred Credential) error {
	c := s.rt.Client()
	img, err := c.Fetch(ctx, full, client.WithResolver(resolver(cred)), client.WithPlatformMatcher(platforms.Default()))
	if err == nil {
		err = client.NewImage(c, img).Unpack(ctx, runtime.Snapshotter)
	}
	if err != nil {
		return fmt.Errorf("failed to pull and unpack image %q: %w", full, err)
	}
	return nil
}

func resolver(c Credential) remotes.Resolver {
	auth := docker.NewDockerAuthorizer(docker.WithAuthCreds(func(string) (string, string, error) {
		return c.Username, c.Password, nil
	}))
	dialer := &net.Dialer{Timeout: connectTimeout}
	hosts := docker.ConfigureDefaultRegistries(docker.WithAuthorizer(auth), docker.WithPlainHTTP(docker.MatchLocalhost), docker.WithClient(httpClient(dialer)))
	return docker.NewResolver(docker.ResolverOptions{Hosts: hosts})
}

// Import adds the images of an OCI or docker archive and returns their names.
func (s *Store) Import(ctx context.Context, r io.Reader) ([]string, error) {
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
	var names []string
	for _, img := range got {
		full := clean(img.Name)
		if full != img.Name {
			alias := images.Image{Name: full, Target: img.Target}
			if _, err := c.ImageService().Create(ctx, alias); errdefs.IsAlreadyExists(err) {
				_, err = c.ImageService().Update(ctx, alias, "target")
				if err != nil {
					return names, fmt.Errorf("name image %s: %w", full, err)
				}
			} else if err != nil {
				return names, fmt.Errorf("name image %s: %w", full, err)
			}
		}
		if err := client.NewImage(c, img).Unpack(ctx, runtime.Snapshotter); err != nil {
			return names, fmt.Errorf("unpack image %s: %w", full, err)
		}
		names = append(names, full)
	}
	if len(names) == 0 {
		return nil, errors.New("import image archive: it names no image")
	}
	return names, nil
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
