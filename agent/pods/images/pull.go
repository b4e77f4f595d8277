package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"

	"github.com/podvine/podvine/agent/pods/runtime"
)

const (
	// MaxParallelPulls bounds the pulls that run at once.
	MaxParallelPulls = 16
	// MaxParallelRegistryPulls bounds those from one registry, so that one that
	// stalls leaves places to the others.
	MaxParallelRegistryPulls = 5
	// connectTimeout bounds reaching a registry, so that one that never answers
	// fails fast.
	connectTimeout = 10 * time.Second
	// DefaultStallTimeout is how long a pull may wait for a registry without
	// receiving a byte.
	DefaultStallTimeout = 30 * time.Second
	// stallChecks is how often in that time the pull is looked at.
	stallChecks = 10
)

// ErrStalled is wrapped in the error of a pull whose registry stopped sending.
var ErrStalled = errors.New("the registry sends nothing")

// flight is one pull that any number of callers wait for.
type flight struct {
	done    chan struct{}
	err     error // set before done is closed
	waiters int   // guarded by Store.mu
	cancel  context.CancelFunc
}

// Pull fetches an image: what a record or a digest names, from peers that hold it; the rest from its registry, trying the
// credentials in order. A tag is the registry's to resolve, with the credentials, before any peer is asked.
// Callers that want the same with the same credentials share one pull, which
// is given up when the last of them is.
func (s *Store) Pull(ctx context.Context, name string, creds []Credential) (runtime.ImageInfo, error) {
	full, err := Normalize(name)
	if err != nil {
		return runtime.ImageInfo{}, err
	}
	wanted := order{name: full, tries: matching(creds, hostOf(full), full)}
	wanted.record, _ = s.imported(full)
	return s.get(ctx, wanted)
}

// Fetch brings an imported image from the nodes that hold it.
func (s *Store) Fetch(ctx context.Context, record Record) (runtime.ImageInfo, error) {
	if err := record.Check(); err != nil {
		return runtime.ImageInfo{}, err
	}
	return s.get(ctx, order{name: record.Name, record: record})
}

// order is what a pull is to bring: an image by its complete name, and what is known of it.
type order struct {
	name  string
	tries []Credential
	// record is zero for an image of a registry.
	record Record
}

func (s *Store) get(ctx context.Context, wanted order) (runtime.ImageInfo, error) {
	if len(wanted.tries) == 0 {
		wanted.tries = []Credential{{}}
	}
	key := fmt.Sprint(wanted.name, wanted.tries, wanted.record.Digest)
	f := s.board(ctx, key, wanted)
	var err error
	select {
	case <-f.done:
		err = f.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.leave(key, f)
	if err != nil {
		return runtime.ImageInfo{}, err
	}
	s.notify()
	return s.rt.ImageInfo(ctx, wanted.name)
}

// board joins the pull under way, or begins it.
func (s *Store) board(ctx context.Context, key string, wanted order) *flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.flights[key]
	if f == nil {
		// The pull goes on for whoever joins it; each caller has its own end.
		fctx, cancel := context.WithCancel(s.rt.Context(context.WithoutCancel(ctx)))
		f = &flight{done: make(chan struct{}), cancel: cancel}
		s.flights[key] = f
		go func() {
			f.err = s.fly(fctx, wanted)
			s.mu.Lock()
			if s.flights[key] == f {
				delete(s.flights, key)
			}
			s.mu.Unlock()
			cancel()
			close(f.done)
		}()
	}
	f.waiters++
	return f
}

// leave ends a pull that nobody waits for any more.
func (s *Store) leave(key string, f *flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.waiters--
	if f.waiters > 0 {
		return
	}
	f.cancel()
	if s.flights[key] == f {
		delete(s.flights, key)
	}
}

// registry is the places for pulls from one registry.
type registry struct {
	slots chan struct{}
	users int // guarded by Store.mu
}

// fly pulls as soon as there is a place for it.
func (s *Store) fly(ctx context.Context, wanted order) error {
	from, release := s.enter(hostOf(wanted.name))
	defer release()
	for _, slots := range []chan struct{}{from.slots, s.slots} {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return eachCredential(wanted.tries, func(c Credential) error { return s.pull(ctx, wanted, c) })
}

// eachCredential pulls with one after the other until one does, or tells why each failed, in one line: which of them the registry should
// have taken is for the user to see. A registry that sends nothing does so to everybody.
func eachCredential(tries []Credential, pull func(Credential) error) error {
	var errs []error
	for _, c := range tries {
		err := pull(c)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
		if errors.Is(err, ErrStalled) {
			break
		}
	}
	if len(errs) == 1 {
		return errs[0]
	}
	return utilerrors.NewAggregate(errs)
}

// enter finds a registry's places, which are forgotten with their last user.
func (s *Store) enter(host string) (*registry, func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.registries[host]
	if r == nil {
		r = &registry{slots: make(chan struct{}, MaxParallelRegistryPulls)}
		s.registries[host] = r
	}
	r.users++
	return r, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.users--; r.users == 0 {
			delete(s.registries, host)
		}
	}
}

func (s *Store) pull(ctx context.Context, wanted order, cred Credential) error {
	fctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	p := &progress{}
	go p.watch(fctx, s.config.Stall, giveUp)
	c := s.rt.Client()
	from := source{Resolver: resolver(cred, p)}
	options := []client.RemoteOpt{client.WithPlatformMatcher(platforms.Default())}
	if s.config.Peers != nil {
		peers := &peerPull{store: s}
		from = s.known(fctx, wanted, from, peers)
		options = append(options, client.WithImageHandler(images.HandlerFunc(peers.handle)))
	}
	img, err := c.Fetch(fctx, wanted.name, append(options, client.WithResolver(from))...)
	if cause := context.Cause(fctx); err != nil && errors.Is(cause, ErrStalled) {
		err = cause
	}
	giveUp(nil)
	if err == nil {
		err = client.NewImage(c, img).Unpack(ctx, runtime.Snapshotter)
	}
	if err != nil {
		return fmt.Errorf("failed to pull and unpack image %q: %w", wanted.name, err)
	}
	return nil
}

// known adds to a source what it need not ask the registry for: which image the name stands for.
func (s *Store) known(ctx context.Context, wanted order, from source, peers *peerPull) source {
	if wanted.record.Digest != "" {
		from.known, from.imported = wanted.record.descriptor(), true
		return from
	}
	ref, err := reference.ParseNamed(wanted.name)
	if err != nil {
		return from // the registry's resolver says so
	}
	if digested, ok := ref.(reference.Digested); ok {
		peers.asked = true
		from.known, peers.holders = s.config.Peers.Holders(ctx, digested.Digest())
	}
	return from
}

func resolver(c Credential, p *progress) remotes.Resolver {
	dialer := &net.Dialer{Timeout: connectTimeout}
	web := &http.Client{Transport: p.follow(&http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSHandshakeTimeout: connectTimeout,
		ForceAttemptHTTP2: true, MaxIdleConns: 2 * MaxParallelPulls, IdleConnTimeout: connectTimeout,
	})}
	auth := docker.NewDockerAuthorizer(docker.WithAuthClient(web), docker.WithAuthCreds(func(string) (string, string, error) {
		return c.Username, c.Password, nil
	}))
	hosts := docker.ConfigureDefaultRegistries(docker.WithAuthorizer(auth), docker.WithPlainHTTP(docker.MatchLocalhost), docker.WithClient(web))
	return docker.NewResolver(docker.ResolverOptions{Hosts: hosts})
}

// progress sees what a pull receives. A pull that waits for no registry (it
// writes to its disk) makes progress whatever it receives.
type progress struct {
	open  atomic.Int64 // requests whose answer has not been read to its end
	bytes atomic.Int64
}

// watch gives up when limit passes with a request open and nothing received.
func (p *progress) watch(ctx context.Context, limit time.Duration, giveUp context.CancelCauseFunc) {
	t := time.NewTicker(limit / stallChecks)
	defer t.Stop()
	last, still := int64(-1), 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		now := p.bytes.Load()
		if p.open.Load() == 0 || now != last {
			last, still = now, 0
			continue
		}
		if still++; still >= stallChecks {
			giveUp(fmt.Errorf("%w for %s", ErrStalled, limit))
			return
		}
	}
}

func (p *progress) follow(next http.RoundTripper) http.RoundTripper { return follower{p, next} }

type follower struct {
	p    *progress
	next http.RoundTripper
}

// RoundTrip counts the request as open until its answer was read.
func (f follower) RoundTrip(r *http.Request) (*http.Response, error) {
	f.p.open.Add(1)
	done := sync.OnceFunc(func() { f.p.open.Add(-1) })
	res, err := f.next.RoundTrip(r)
	if err != nil {
		done()
		return nil, err
	}
	// The header is progress too.
	f.p.bytes.Add(1)
	if r.Method == http.MethodHead || res.Body == http.NoBody {
		done()
	} else {
		res.Body = &followedBody{res.Body, f.p, done}
	}
	return res, nil
}

type followedBody struct {
	io.ReadCloser
	p    *progress
	done func()
}

func (b *followedBody) Read(buf []byte) (int, error) {
	n, err := b.ReadCloser.Read(buf)
	b.p.bytes.Add(int64(n))
	if err != nil {
		b.done()
	}
	return n, err
}

func (b *followedBody) Close() error {
	b.done()
	return b.ReadCloser.Close()
}
