package kubestore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/consensus"
	"github.com/podvine/podvine/consensus/sealing"
	"github.com/podvine/podvine/consensus/store"
)

// kinds is a backend with storage for real kinds in protobuf.
type kinds struct {
	backend *Backend
	replica *consensus.Replica
	codec   runtime.Codec
	dir     string
}

func newKinds(t testing.TB, opts Options) *kinds {
	t.Helper()
	scheme := runtime.NewScheme()
	utilruntime.Must(corev1.AddToScheme(scheme))
	codecs := serializer.NewCodecFactory(scheme)
	proto := protobuf.NewSerializer(scheme, scheme)
	dir := t.TempDir()
	k := &kinds{replica: newReplica(t, dir), dir: dir, codec: codecs.CodecForVersions(proto, proto, corev1.SchemeGroupVersion, corev1.SchemeGroupVersion)}
	var err error
	if k.backend, err = New(k.replica, opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.backend.Close)
	return k
}

func (k *kinds) storage(t testing.TB, name string, newFunc, newList func() runtime.Object) storage.Interface {
	t.Helper()
	config := &storagebackend.ConfigForResource{Config: storagebackend.Config{Codec: k.codec}, GroupResource: schema.GroupResource{Resource: name}}
	s, _, err := k.backend.Decorator(config, "/"+name, nil, newFunc, newList, storage.DefaultNamespaceScopedAttr, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (k *kinds) configMaps(t testing.TB) storage.Interface {
	return k.storage(t, "configmaps", func() runtime.Object { return &corev1.ConfigMap{} }, func() runtime.Object { return &corev1.ConfigMapList{} })
}

func (k *kinds) secrets(t testing.TB) storage.Interface {
	return k.storage(t, "secrets", func() runtime.Object { return &corev1.Secret{} }, func() runtime.Object { return &corev1.SecretList{} })
}

func configMap(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"}, Data: map[string]string{"k": value}}
}

func mustCreate(t testing.TB, s storage.Interface, key string, object, out runtime.Object) {
	t.Helper()
	if err := s.Create(t.Context(), key, object, out, 0); err != nil {
		t.Fatal(err)
	}
}

// TestCallersObjectIsNotPublished changes what was handed in and what came out by shallow means: readers see neither.
func TestCallersObjectIsNotPublished(t *testing.T) {
	s := newKinds(t, Options{}).configMaps(t)
	in, out := configMap("a", "stored"), &corev1.ConfigMap{}
	mustCreate(t, s, "/configmaps/ns/a", in, out)
	in.Data["k"] = "changed by the caller"
	out.Labels = map[string]string{"changed": "yes"}
	out.ResourceVersion = "changed"
	got := &corev1.ConfigMap{}
	if err := s.Get(t.Context(), "/configmaps/ns/a", storage.GetOptions{}, got); err != nil {
		t.Fatal(err)
	}
	if got.Data["k"] != "stored" || got.Labels != nil || got.ResourceVersion == "changed" {
		t.Fatalf("readers see %+v", got)
	}
	err := s.GuaranteedUpdate(t.Context(), "/configmaps/ns/a", &corev1.ConfigMap{}, false, nil,
		func(input runtime.Object, _ storage.ResponseMeta) (runtime.Object, *uint64, error) {
			input.(*corev1.ConfigMap).Data["k"] = "never written"
			return nil, nil, errors.New("changed its mind")
		}, nil)
	if err == nil || got.Data["k"] != "stored" {
		t.Fatalf("an update function reached the shared object: %v, %v", got.Data, err)
	}
}

// TestCompanionsCommitTogether writes two kinds in one transaction, and neither when a condition fails.
func TestCompanionsCommitTogether(t *testing.T) {
	k := newKinds(t, Options{})
	maps, secrets := k.configMaps(t), k.secrets(t)
	gr := schema.GroupResource{Resource: "secrets"}
	companion := Companion{Resource: gr, Key: "/secrets/ns/b", Object: &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "b", Namespace: "ns"}}}
	ctx := WithCompanions(t.Context(), companion)
	if err := maps.Create(ctx, "/configmaps/ns/a", configMap("a", "1"), nil, 0); err != nil {
		t.Fatal(err)
	}
	secret := &corev1.Secret{}
	if err := secrets.Get(t.Context(), "/secrets/ns/b", storage.GetOptions{}, secret); err != nil {
		t.Fatal(err)
	}
	var failed *CompanionError
	err := maps.Create(ctx, "/configmaps/ns/c", configMap("c", "1"), nil, 0)
	if !errors.As(err, &failed) || failed.Reason != metav1.StatusReasonAlreadyExists || failed.Key != "/secrets/ns/b" {
		t.Fatalf("a companion that exists: %v", err)
	}
	if err := maps.Get(t.Context(), "/configmaps/ns/c", storage.GetOptions{}, &corev1.ConfigMap{}); !storage.IsNotFound(err) {
		t.Fatalf("half a transaction was written: %v", err)
	}
	same := func(o runtime.Object, _ storage.ResponseMeta) (runtime.Object, *uint64, error) { return o, nil, nil }
	revision, err := secrets.Versioner().ObjectResourceVersion(secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		companion Companion
		reason    metav1.StatusReason
	}{
		{Companion{Resource: gr, Key: "/secrets/ns/b", Revision: revision + 100}, metav1.StatusReasonConflict},
		{Companion{Resource: gr, Key: "/secrets/ns/none", Revision: 1, Check: true}, metav1.StatusReasonNotFound},
		{Companion{Resource: gr, Key: "/secrets/ns/b", Revision: revision, Check: true}, ""},
		{Companion{Resource: gr, Key: "/secrets/ns/b", Revision: revision}, ""},
	} {
		err := maps.GuaranteedUpdate(WithCompanions(t.Context(), c.companion), "/configmaps/ns/a", &corev1.ConfigMap{}, false, nil, same, nil)
		switch {
		case c.reason == "" && err != nil:
			t.Fatalf("%+v: %v", c.companion, err)
		case c.reason != "" && (!errors.As(err, &failed) || failed.Reason != c.reason):
			t.Fatalf("%+v: %v", c.companion, err)
		}
	}
	if err := secrets.Get(t.Context(), "/secrets/ns/b", storage.GetOptions{}, secret); !storage.IsNotFound(err) {
		t.Fatalf("the companion was not deleted: %v", err)
	}
}

// TestTermFencesWrites refuses what was decided in another term.
func TestTermFencesWrites(t *testing.T) {
	k := newKinds(t, Options{})
	s := k.configMaps(t)
	term, leads := k.replica.Leading()
	if !leads {
		t.Fatal("not leading")
	}
	err := s.Create(WithTerm(t.Context(), term+1), "/configmaps/ns/a", configMap("a", "1"), nil, 0)
	if !errors.Is(err, ErrFenced) || !apierrors.IsServiceUnavailable(err) {
		t.Fatalf("a write of another term: %v", err)
	}
	if err := s.Create(WithTerm(t.Context(), term), "/configmaps/ns/a", configMap("a", "1"), nil, 0); err != nil {
		t.Fatal(err)
	}
}

// TestSecretsAreSealedOnDisk looks for a secret in everything the replica wrote.
func TestSecretsAreSealedOnDisk(t *testing.T) {
	one, two := sealing.NewKey(1), sealing.NewKey(2)
	ring, err := sealing.NewRing(one)
	if err != nil {
		t.Fatal(err)
	}
	k := newKinds(t, Options{Ring: ring})
	secrets, maps := k.secrets(t), k.configMaps(t)
	const plain = "a-very-secret-word"
	object := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "ns"}, Data: map[string][]byte{"k": []byte(plain)}}
	mustCreate(t, secrets, "/secrets/ns/s", object, nil)
	mustCreate(t, maps, "/configmaps/ns/m", configMap("m", "a-public-word"), nil)
	var backup bytes.Buffer
	if err := k.replica.Backup(&backup); err != nil {
		t.Fatal(err)
	}
	e, _ := k.replica.Store().Get("/secrets/", "/secrets/ns/s")
	if bytes.Contains(backup.Bytes(), []byte(plain)) || bytes.Contains(e.Value, []byte(plain)) {
		t.Fatal("the secret shows in the backup or in memory")
	}
	if !bytes.Contains(backup.Bytes(), []byte("a-public-word")) {
		t.Fatal("the test would not find a word in a backup")
	}
	written := k.onDisk(t)
	if bytes.Contains(written, []byte(plain)) || !bytes.Contains(written, []byte("a-public-word")) {
		t.Fatal("the secret shows on the disk, or the test does not see the disk")
	}
	got := &corev1.Secret{}
	if err := secrets.Get(t.Context(), "/secrets/ns/s", storage.GetOptions{}, got); err != nil || string(got.Data["k"]) != plain {
		t.Fatalf("read %q, %v", got.Data["k"], err)
	}
	if err := ring.Rotate(two, one); err != nil {
		t.Fatal(err)
	}
	if n, err := k.backend.Reseal(t.Context(), schema.GroupResource{Resource: "secrets"}); err != nil || n != 1 {
		t.Fatalf("resealed %d, %v", n, err)
	}
	if n, err := k.backend.Reseal(t.Context(), schema.GroupResource{Resource: "secrets"}); err != nil || n != 0 {
		t.Fatalf("resealed %d again, %v", n, err)
	}
	if err := ring.Rotate(two); err != nil {
		t.Fatal(err)
	}
	k.backend.objects.drop(mustEntry(t, k.replica, "/secrets/", "/secrets/ns/s"))
	if err := secrets.Get(t.Context(), "/secrets/ns/s", storage.GetOptions{}, got); err != nil || string(got.Data["k"]) != plain {
		t.Fatalf("after the rotation: %q, %v", got.Data["k"], err)
	}
}

// onDisk returns everything in the log's files.
func (k *kinds) onDisk(t testing.TB) []byte {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(k.dir, "log", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var all []byte
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data...)
	}
	return all
}

func mustEntry(t testing.TB, r *consensus.Replica, table, key string) *store.Entry {
	t.Helper()
	e, _ := r.Store().Get(table, key)
	if e == nil {
		t.Fatalf("no entry %s", key)
	}
	return e
}

// TestInformerSharesObjects runs client-go's informer on the store: it sees everything, and holds the store's own objects.
func TestInformerSharesObjects(t *testing.T) {
	k := newKinds(t, Options{})
	informer := cache.NewSharedIndexInformer(k.backend.ListerWatcher(schema.GroupResource{Resource: "configmaps"}),
		&corev1.ConfigMap{}, 0, cache.Indexers{})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { informer.RunWithContext(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })

	s := k.configMaps(t)
	mustCreate(t, s, "/configmaps/ns/a", configMap("a", "1"), nil)
	mustCreate(t, s, "/configmaps/ns/b", configMap("b", "1"), nil)
	if err := s.Delete(t.Context(), "/configmaps/ns/b", &corev1.ConfigMap{}, nil, storage.ValidateAllObjectFunc, nil, storage.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, s, "/configmaps/ns/c", configMap("c", "1"), nil)
	eventually(t, "the informer's objects", func() bool {
		_, a, _ := informer.GetStore().GetByKey("ns/a")
		_, b, _ := informer.GetStore().GetByKey("ns/b")
		_, c, _ := informer.GetStore().GetByKey("ns/c")
		return a && !b && c
	})
	held, _, err := informer.GetStore().GetByKey("ns/c")
	if err != nil || held != mustEntry(t, k.replica, "/configmaps/", "/configmaps/ns/c").Attachment().Object {
		t.Fatalf("the informer holds a copy: %v", err)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("not in time: " + what)
		}
		<-tick.C
	}
}

// TestCacheStaysBounded writes and reads far more than the cache may hold.
func TestCacheStaysBounded(t *testing.T) {
	const limit = 64 << 10
	k := newKinds(t, Options{DecodedCacheBytes: limit})
	s := k.configMaps(t)
	value := strings.Repeat("v", 1000)
	for i := range 200 {
		mustCreate(t, s, fmt.Sprintf("/configmaps/ns/%03d", i), configMap(fmt.Sprintf("%03d", i), value), nil)
	}
	for range 2 {
		list := &corev1.ConfigMapList{}
		opts := storage.ListOptions{Predicate: storage.Everything, Recursive: true}
		if err := s.GetList(t.Context(), "/configmaps", opts, list); err != nil || len(list.Items) != 200 {
			t.Fatal(len(list.Items), err)
		}
	}
	decoded := 0
	k.replica.Store().View("/configmaps/", false).Ascend("", func(e *store.Entry) bool {
		if e.Attachment() != nil {
			decoded++
		}
		return true
	})
	if decoded == 0 || decoded > limit/1000 || k.backend.objects.bytes > limit {
		t.Fatalf("%d objects are decoded, %d bytes are counted", decoded, k.backend.objects.bytes)
	}
}

// TestCustomResourcesKeepTheirVersion serves one table in two codecs.
func TestCustomResourcesKeepTheirVersion(t *testing.T) {
	k := newKinds(t, Options{})
	gr := schema.GroupResource{Group: "example.org", Resource: "things"}
	storages := map[string]storage.Interface{}
	for _, version := range []string{"v1", "v2"} {
		gv := schema.GroupVersion{Group: "example.org", Version: version}
		config := &storagebackend.ConfigForResource{Config: storagebackend.Config{Codec: versionCodec{unstructured.UnstructuredJSONScheme, gv}}, GroupResource: gr}
		s, _, err := k.backend.Decorator(config, "/example.org/things", nil, func() runtime.Object {
			u := &unstructured.Unstructured{}
			u.SetGroupVersionKind(gv.WithKind("Thing"))
			return u
		}, func() runtime.Object { return &unstructured.UnstructuredList{} }, storage.DefaultNamespaceScopedAttr, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		storages[version] = s
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watches := map[string]watch.Interface{}
	for version, s := range storages {
		w, err := s.Watch(ctx, "/example.org/things", storage.ListOptions{Predicate: storage.Everything, Recursive: true, ResourceVersion: "1"})
		if err != nil {
			t.Fatal(err)
		}
		watches[version] = w
	}
	in := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "example.org/v1", "kind": "Thing", "metadata": map[string]any{"name": "a", "namespace": "ns"}}}
	mustCreate(t, storages["v1"], "/example.org/things/ns/a", in, &unstructured.Unstructured{})
	for version, s := range storages {
		want := "example.org/" + version
		got := &unstructured.Unstructured{}
		if err := s.Get(t.Context(), "/example.org/things/ns/a", storage.GetOptions{}, got); err != nil || got.GetAPIVersion() != want {
			t.Fatalf("%s reads %s, %v", version, got.GetAPIVersion(), err)
		}
		ev := <-watches[version].ResultChan()
		object := ev.Object.(runtime.CacheableObject).GetObject().(*unstructured.Unstructured)
		if ev.Type != watch.Added || object.GetAPIVersion() != want || object.GetResourceVersion() != got.GetResourceVersion() {
			t.Fatalf("%s watches %s %v", version, ev.Type, object)
		}
	}
}

// versionCodec converts custom resources as the API extensions server does: by the version alone.
type versionCodec struct {
	runtime.Codec
	version schema.GroupVersion
}

func (c versionCodec) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	object, gvk, err := c.Codec.Decode(data, defaults, into)
	if u, ok := object.(*unstructured.Unstructured); ok {
		u.SetGroupVersionKind(c.version.WithKind(u.GetKind()))
	}
	return object, gvk, err
}

// TestWatchBehindHistory ends with Kubernetes' 410.
func TestWatchBehindHistory(t *testing.T) {
	k := newKinds(t, Options{})
	s := k.configMaps(t)
	mustCreate(t, s, "/configmaps/ns/a", configMap("a", "1"), nil)
	mustCreate(t, s, "/configmaps/ns/b", configMap("b", "1"), nil)
	k.replica.Store().Compact(k.replica.Store().Revision())
	w, err := s.Watch(t.Context(), "/configmaps", storage.ListOptions{Predicate: storage.Everything, Recursive: true, ResourceVersion: "1"})
	if err != nil {
		t.Fatal(err)
	}
	ev := <-w.ResultChan()
	if status, ok := ev.Object.(*metav1.Status); ev.Type != watch.Error || !ok || !apierrors.IsResourceExpired(&apierrors.StatusError{ErrStatus: *status}) {
		t.Fatalf("got %v %v", ev.Type, ev.Object)
	}
	if _, open := <-w.ResultChan(); open {
		t.Fatal("the watch goes on")
	}
}

// TestSlowWatchOutlivesItsHistory lets the history go while a watch is in the middle of reading it: the watch ends with a 410
// after what it had, and nothing else happens.
func TestSlowWatchOutlivesItsHistory(t *testing.T) {
	k := newKinds(t, Options{})
	s := k.configMaps(t)
	w, err := s.Watch(t.Context(), "/configmaps", storage.ListOptions{Predicate: storage.Everything, Recursive: true, ResourceVersion: "1"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2000 {
		mustCreate(t, s, fmt.Sprintf("/configmaps/ns/%04d", i), configMap(fmt.Sprintf("%04d", i), "v"), nil)
	}
	k.replica.Store().Compact(k.replica.Store().Revision())
	last, seen := "", 0
	for ev := range w.ResultChan() {
		if ev.Type == watch.Error {
			last = string(ev.Object.(*metav1.Status).Reason)
			continue
		}
		want := fmt.Sprintf("%04d", seen)
		if got := ev.Object.(runtime.CacheableObject).GetObject().(*corev1.ConfigMap).Name; got != want {
			t.Fatalf("event %d is about %s", seen, got)
		}
		seen++
	}
	if last != string(metav1.StatusReasonExpired) || seen == 0 || seen == 2000 {
		t.Fatalf("after %d events the watch ended with %q", seen, last)
	}
}

// TestAnswersAfterClose are errors that a client understands.
func TestAnswersAfterClose(t *testing.T) {
	k := newKinds(t, Options{})
	s := k.configMaps(t)
	if err := k.replica.Close(); err != nil {
		t.Fatal(err)
	}
	err := s.Create(t.Context(), "/configmaps/ns/a", configMap("a", "1"), nil, 0)
	if !apierrors.IsServiceUnavailable(err) || !errors.Is(err, consensus.ErrNotLeader) {
		t.Fatalf("create: %v", err)
	}
	if err := s.Get(t.Context(), "/configmaps/ns/a", storage.GetOptions{}, &corev1.ConfigMap{}); !apierrors.IsServiceUnavailable(err) {
		t.Fatalf("get: %v", err)
	}
}

// TestLimitIsIgnoredAtVersionZero lists whole at resource version 0, and page by page otherwise, as clients of the Cacher expect.
func TestLimitIsIgnoredAtVersionZero(t *testing.T) {
	s := newKinds(t, Options{}).configMaps(t)
	for _, name := range []string{"a", "b", "c"} {
		mustCreate(t, s, "/configmaps/ns/"+name, configMap(name, "1"), nil)
	}
	list := func(resourceVersion, from string, match metav1.ResourceVersionMatch) *corev1.ConfigMapList {
		out := &corev1.ConfigMapList{}
		pred := storage.Everything
		pred.Limit, pred.Continue = 1, from
		opts := storage.ListOptions{ResourceVersion: resourceVersion, ResourceVersionMatch: match, Predicate: pred, Recursive: true}
		if err := s.GetList(t.Context(), "/configmaps/", opts, out); err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, match := range []metav1.ResourceVersionMatch{"", metav1.ResourceVersionMatchNotOlderThan} {
		if whole := list("0", "", match); len(whole.Items) != 3 || whole.Continue != "" || whole.RemainingItemCount != nil {
			t.Fatalf("match %q: got %d items, continue %q, want all 3", match, len(whole.Items), whole.Continue)
		}
	}
	first := list("", "", "")
	if len(first.Items) != 1 || first.Continue == "" {
		t.Fatalf("first page: got %d items, continue %q", len(first.Items), first.Continue)
	}
	if second := list("", first.Continue, ""); len(second.Items) != 1 || second.Items[0].Name != "b" || second.Continue == "" {
		t.Fatalf("second page: got %d items, continue %q", len(second.Items), second.Continue)
	}
	// So does what is left of a list that is continued at version 0, as the real server answers.
	if rest := list("0", first.Continue, ""); len(rest.Items) != 2 || rest.Items[0].Name != "b" || rest.Continue != "" {
		t.Fatalf("the rest at version 0: got %d items, continue %q", len(rest.Items), rest.Continue)
	}
}

// TestReleasedStorageEndsItsWatches destroys one of two storages of a resource, as a changed definition does.
func TestReleasedStorageEndsItsWatches(t *testing.T) {
	k := newKinds(t, Options{})
	kept := k.configMaps(t)
	config := &storagebackend.ConfigForResource{Config: storagebackend.Config{Codec: k.codec}, GroupResource: schema.GroupResource{Resource: "configmaps"}}
	old, destroy, err := k.backend.Decorator(config, "/configmaps", nil, func() runtime.Object { return &corev1.ConfigMap{} },
		func() runtime.Object { return &corev1.ConfigMapList{} }, storage.DefaultNamespaceScopedAttr, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	watches := make([]watch.Interface, 2)
	for i, s := range []storage.Interface{old, kept} {
		watches[i], err = s.Watch(t.Context(), "/configmaps/", storage.ListOptions{ResourceVersion: "0", Predicate: storage.Everything, Recursive: true})
		if err != nil {
			t.Fatal(err)
		}
		defer watches[i].Stop()
	}
	destroy()
	destroy()
	if e, open := <-watches[0].ResultChan(); open {
		t.Fatalf("the watch of the old storage goes on with %v", e)
	}
	mustCreate(t, kept, "/configmaps/ns/a", configMap("a", "1"), nil)
	if e, open := <-watches[1].ResultChan(); !open || e.Type != watch.Added {
		t.Fatalf("the watch of the other storage got %v", e)
	}
}
