// Package objects gives pods the ConfigMaps, Secrets and tokens they refer to:
// from the API while it answers, from the node's vault when it does not.
//
// Role: an object that a running pod uses is watched, one watch an object, so
// that the node reads only what its pods need; each change is stored in the
// vault before it is announced.
//
// Concurrency: a Cache is safe for use by many goroutines. Changed is called on
// the watch's goroutine.
package objects

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/pods/vault"
)

// Kind of an object.
type Kind string

// The kinds a pod may refer to.
const (
	ConfigMaps Kind = "configmaps"
	Secrets    Kind = "secrets"
	tokenKind       = "tokens"
)

// Ref names one object.
type Ref struct {
	Kind            Kind
	Namespace, Name string
}

const (
	// getTimeout bounds a read from the API before the vault's copy is used.
	getTimeout = 3 * time.Second
	// awayTime is how long after such a read the vault's copies are used at once: a pod that starts while there is no quorum must not
	// wait for each of its objects.
	awayTime = 10 * time.Second
	// tokenRefreshPart of its life passes before a token is renewed.
	tokenRefreshPart = 0.8
	// maxTokenAge is when even a long-lived token is renewed.
	maxTokenAge = 24 * time.Hour
	// defaultTokenSeconds is asked for when a projection says nothing.
	defaultTokenSeconds = 3600
)

// Cache is the node's view of referenced objects.
type Cache struct {
	client  kubernetes.Interface
	vault   *vault.Vault
	log     *slog.Logger
	changed func(users []types.UID)

	mu sync.Mutex
	// All below is guarded by mu.
	watches map[Ref]*watched
	users   map[types.UID][]Ref
	// away is until when the API counts as one that does not answer.
	away   time.Time
	closed bool

	// running are the watches' goroutines; none begins once closed.
	running sync.WaitGroup
}

type watched struct {
	users  map[types.UID]bool
	stop   chan struct{}
	synced bool
	object any
}

// New makes a Cache; changed is told which pods use an object that changed.
func New(client kubernetes.Interface, v *vault.Vault, log *slog.Logger, changed func([]types.UID)) *Cache {
	return &Cache{client: client, vault: v, log: log, changed: changed, watches: map[Ref]*watched{}, users: map[types.UID][]Ref{}}
}

// Track watches exactly refs for a pod, until the next call for it. A closed Cache watches nothing.
func (c *Cache) Track(uid types.UID, refs []Ref) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	keep := map[Ref]bool{}
	for _, r := range refs {
		keep[r] = true
		w := c.watches[r]
		if w == nil {
			w = &watched{users: map[types.UID]bool{}, stop: make(chan struct{})}
			c.watches[r] = w
			c.running.Go(func() { c.watch(r, w) })
		}
		w.users[uid] = true
	}
	for _, r := range c.users[uid] {
		if keep[r] || c.watches[r] == nil {
			continue
		}
		delete(c.watches[r].users, uid)
		if len(c.watches[r].users) == 0 {
			close(c.watches[r].stop)
			delete(c.watches, r)
			if err := c.vault.Delete(string(r.Kind), r.Namespace+"/"+r.Name); err != nil {
				c.log.Warn("forget object", "err", err)
			}
		}
	}
	c.users[uid] = refs
	if len(refs) == 0 {
		delete(c.users, uid)
	}
}

// Close ends all watches, and returns when nothing is stored or announced any more.
func (c *Cache) Close() {
	c.mu.Lock()
	c.closed = true
	for r, w := range c.watches {
		close(w.stop)
		delete(c.watches, r)
	}
	c.mu.Unlock()
	c.running.Wait()
}

func (c *Cache) watch(r Ref, w *watched) {
	name := fields.OneTermEqualSelector("metadata.name", r.Name).String()
	var example runtime.Object = &corev1.ConfigMap{}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = name
			return c.client.CoreV1().ConfigMaps(r.Namespace).List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = name
			return c.client.CoreV1().ConfigMaps(r.Namespace).Watch(ctx, o)
		},
	}
	if r.Kind == Secrets {
		example = &corev1.Secret{}
		lw.ListWithContextFunc = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = name
			return c.client.CoreV1().Secrets(r.Namespace).List(ctx, o)
		}
		lw.WatchFuncWithContext = func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = name
			return c.client.CoreV1().Secrets(r.Namespace).Watch(ctx, o)
		}
	}
	_, ctl := cache.NewInformerWithOptions(cache.InformerOptions{ListerWatcher: cache.ToListWatcherWithWatchListSemantics(lw, c.client), ObjectType: example, Handler: cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { c.set(r, w, o) },
		UpdateFunc: func(_, o any) { c.set(r, w, o) },
		DeleteFunc: func(o any) { c.gone(r, w, o) },
	}})
	ctl.Run(w.stop)
}

func named(o any, r Ref) bool {
	if d, ok := o.(cache.DeletedFinalStateUnknown); ok {
		o = d.Obj
	}
	m, ok := o.(metav1.Object)
	return ok && m.GetName() == r.Name && m.GetNamespace() == r.Namespace
}

func (c *Cache) set(r Ref, w *watched, o any) {
	if !named(o, r) {
		return
	}
	c.store(r, o)
	c.mu.Lock()
	w.synced, w.object = true, o
	users := keys(w.users)
	c.mu.Unlock()
	c.changed(users)
}

func (c *Cache) gone(r Ref, w *watched, o any) {
	if !named(o, r) {
		return
	}
	c.mu.Lock()
	w.object, w.synced = nil, true
	c.mu.Unlock()
}

func (c *Cache) store(r Ref, o any) {
	if err := c.vault.Put(string(r.Kind), r.Namespace+"/"+r.Name, o); err != nil {
		c.log.Warn("keep object for later", "kind", r.Kind, "err", err)
	}
}

func keys(m map[types.UID]bool) []types.UID {
	out := make([]types.UID, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

// ConfigMap implements environ.Source.
func (c *Cache) ConfigMap(ns, name string) (*corev1.ConfigMap, error) {
	return get(c, Ref{ConfigMaps, ns, name}, func(ctx context.Context) (*corev1.ConfigMap, error) {
		return c.client.CoreV1().ConfigMaps(ns).Get(ctx, name, metav1.GetOptions{})
	})
}

// Secret implements environ.Source.
func (c *Cache) Secret(ns, name string) (*corev1.Secret, error) {
	return get(c, Ref{Secrets, ns, name}, func(ctx context.Context) (*corev1.Secret, error) {
		return c.client.CoreV1().Secrets(ns).Get(ctx, name, metav1.GetOptions{})
	})
}

func get[T any](c *Cache, r Ref, fetch func(context.Context) (*T, error)) (*T, error) {
	c.mu.Lock()
	if w := c.watches[r]; w != nil && w.synced && w.object != nil {
		o, ok := w.object.(*T)
		c.mu.Unlock()
		if ok {
			return o, nil
		}
	} else {
		c.mu.Unlock()
	}
	kept := new(T)
	vaultErr := c.vault.Get(string(r.Kind), r.Namespace+"/"+r.Name, kept)
	if vaultErr == nil && c.isAway() {
		return kept, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), getTimeout)
	defer cancel()
	o, err := fetch(ctx)
	if err == nil {
		c.store(r, o)
		return o, nil
	}
	if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) {
		return nil, err
	}
	if silent(err) {
		c.setAway()
	}
	if vaultErr == nil {
		return kept, nil
	}
	return nil, err
}

// silent tells whether the error is that nobody answered, and not an answer.
func silent(err error) bool {
	var status apierrors.APIStatus
	return !errors.As(err, &status) || apierrors.IsServiceUnavailable(err) || apierrors.IsTimeout(err)
}

func (c *Cache) isAway() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Before(c.away)
}

func (c *Cache) setAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = time.Now().Add(awayTime)
}

type keptToken struct {
	Token   string    `json:"token"`
	Refresh time.Time `json:"refresh"`
	Expires time.Time `json:"expires"`
}

// Token implements volumes.Tokens. While the API does not answer, the last
// token is handed out even past its time: it is all there is.
func (c *Cache) Token(ctx context.Context, pod *corev1.Pod, src *corev1.ServiceAccountTokenProjection) (string, time.Time, error) {
	seconds := int64(defaultTokenSeconds)
	if src.ExpirationSeconds != nil {
		seconds = *src.ExpirationSeconds
	}
	key := fmt.Sprintf("%s/%s/%d", pod.UID, src.Audience, seconds)
	var kept keptToken
	err := c.vault.Get(tokenKind, key, &kept)
	if err == nil && time.Now().Before(kept.Refresh) {
		return kept.Token, kept.Refresh, nil
	}
	if err != nil && !errors.Is(err, vault.ErrMissing) {
		c.log.Warn("read kept token", "err", err)
	}
	req := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{
		ExpirationSeconds: &seconds,
		BoundObjectRef:    &authv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if src.Audience != "" {
		req.Spec.Audiences = []string{src.Audience}
	}
	if kept.Token != "" && c.isAway() {
		return kept.Token, time.Now().Add(awayTime), nil
	}
	tctx, cancel := context.WithTimeout(ctx, getTimeout)
	defer cancel()
	got, err := c.client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(tctx, pod.Spec.ServiceAccountName, req, metav1.CreateOptions{})
	if err != nil {
		if kept.Token != "" && !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
			if ctx.Err() == nil && silent(err) {
				c.setAway()
			}
			return kept.Token, time.Now().Add(time.Minute), nil
		}
		return "", time.Time{}, fmt.Errorf("failed to fetch token: %w", err)
	}
	now := time.Now()
	life := min(time.Duration(float64(seconds)*tokenRefreshPart)*time.Second, maxTokenAge)
	kept = keptToken{Token: got.Status.Token, Refresh: now.Add(life), Expires: got.Status.ExpirationTimestamp.Time}
	if err := c.vault.Put(tokenKind, key, kept); err != nil {
		c.log.Warn("keep token for later", "err", err)
	}
	return kept.Token, kept.Refresh, nil
}

// ForgetTokens removes a pod's tokens from the vault.
func (c *Cache) ForgetTokens(uid types.UID) error {
	all, err := c.vault.Keys(tokenKind)
	for _, k := range all {
		if len(k) > len(uid) && k[:len(uid)] == string(uid) {
			err = errors.Join(err, c.vault.Delete(tokenKind, k))
		}
	}
	return err
}

// Refs lists what a pod refers to.
func Refs(pod *corev1.Pod) []Ref {
	seen := map[Ref]bool{}
	var out []Ref
	add := func(k Kind, name string) {
		r := Ref{k, pod.Namespace, name}
		if name != "" && !seen[r] {
			seen[r] = true
			out = append(out, r)
		}
	}
	for _, s := range pod.Spec.ImagePullSecrets {
		add(Secrets, s.Name)
	}
	for i := range pod.Spec.Volumes {
		volumeRefs(&pod.Spec.Volumes[i], add)
	}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			containerRefs(&list[i], add)
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		containerRefs((*corev1.Container)(&pod.Spec.EphemeralContainers[i].EphemeralContainerCommon), add)
	}
	return out
}

func volumeRefs(v *corev1.Volume, add func(Kind, string)) {
	switch {
	case v.ConfigMap != nil:
		add(ConfigMaps, v.ConfigMap.Name)
	case v.Secret != nil:
		add(Secrets, v.Secret.SecretName)
	case v.Projected != nil:
		for _, s := range v.Projected.Sources {
			if s.ConfigMap != nil {
				add(ConfigMaps, s.ConfigMap.Name)
			}
			if s.Secret != nil {
				add(Secrets, s.Secret.Name)
			}
		}
	}
}

func containerRefs(c *corev1.Container, add func(Kind, string)) {
	for _, f := range c.EnvFrom {
		if f.ConfigMapRef != nil {
			add(ConfigMaps, f.ConfigMapRef.Name)
		}
		if f.SecretRef != nil {
			add(Secrets, f.SecretRef.Name)
		}
	}
	for _, e := range c.Env {
		if e.ValueFrom == nil {
			continue
		}
		if k := e.ValueFrom.ConfigMapKeyRef; k != nil {
			add(ConfigMaps, k.Name)
		}
		if k := e.ValueFrom.SecretKeyRef; k != nil {
			add(Secrets, k.Name)
		}
	}
}
