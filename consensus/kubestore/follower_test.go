package kubestore

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/apis/example"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/apiserver/pkg/warning"

	"github.com/podvine/podvine/consensus"
	"github.com/podvine/podvine/consensus/netsim"
)

// duo is a leader, which is the only voter, and a standby that follows it.
type duo struct {
	net              *netsim.Network
	leader, follower *consensus.Replica
}

func newDuo(t testing.TB) *duo {
	t.Helper()
	d := &duo{net: netsim.New()}
	open := func(id string, join bool) *consensus.Replica {
		host := d.net.Host(id)
		r, err := consensus.Open(t.Context(), consensus.Config{
			Dir: t.TempDir(), NodeID: id, ClusterID: "cluster", Join: join, SegmentBytes: 8 << 20, ReserveBytes: -1,
			Logger: slog.New(slog.DiscardHandler),
			Network: &consensus.Network{
				Dial: host.Dial, Raft: host.Listen(consensus.ProtocolRaft), Store: host.Listen(consensus.ProtocolStore),
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			d.net.Kill(id)
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		})
		return r
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	d.leader = open("leader", false)
	if err := d.leader.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	d.follower = open("follower", true)
	if err := d.leader.AddStandby(ctx, "follower"); err != nil {
		t.Fatal(err)
	}
	if err := d.follower.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestPublishedSuiteOnAFollower runs the suite over a replica that leads nothing: writes are forwarded, reads ask the leader.
func TestPublishedSuiteOnAFollower(t *testing.T) {
	for name, run := range suite() {
		t.Run(name, func(t *testing.T) {
			opts := Options{DecodedCacheBytes: -1, BookmarkInterval: time.Second}
			transformer := storagetesting.NewPrefixTransformer([]byte(testPrefix), false)
			run(t.Context(), t, newFixtureOver(t, newDuo(t).follower, opts, testCodec(), transformer))
		})
	}
}

func storageOver(t testing.TB, replica *consensus.Replica, group schema.GroupResource, opts Options) storage.Interface {
	t.Helper()
	backend, err := New(replica, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(backend.Close)
	config := &storagebackend.ConfigForResource{Config: storagebackend.Config{Codec: testCodec()}, GroupResource: group}
	s, _, err := backend.Decorator(config, "/"+group.Resource, nil, func() runtime.Object { return &example.Pod{} },
		func() runtime.Object { return &example.PodList{} }, storage.DefaultNamespaceScopedAttr, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestCreatedAtAFollowerIsDecodedOnce shares the decoded form of what this replica did not apply first, with its version.
func TestCreatedAtAFollowerIsDecodedOnce(t *testing.T) {
	d := newDuo(t)
	s := storageOver(t, d.follower, schema.GroupResource{Resource: "pods"}, Options{})
	var made, got example.Pod
	pod := &example.Pod{}
	pod.Name, pod.Namespace = "a", "ns"
	if err := s.Create(t.Context(), "/pods/ns/a", pod, &made, 0); err != nil {
		t.Fatal(err)
	}
	e, _ := d.follower.Store().Get("/pods/", "/pods/ns/a")
	if e == nil || e.Attachment() == nil || made.ResourceVersion != fmt.Sprint(e.Revision) {
		t.Fatalf("created with version %q, entry %+v", made.ResourceVersion, e)
	}
	if err := s.Get(t.Context(), "/pods/ns/a", storage.GetOptions{}, &got); err != nil || got.ResourceVersion != made.ResourceVersion {
		t.Fatalf("read back %q, %v", got.ResourceVersion, err)
	}
}

// warnings records what a client would read in the Warning header.
type warnings struct{ texts []string }

func (w *warnings) AddWarning(_, text string) { w.texts = append(w.texts, text) }

// TestStaleReadsAreMarked cuts a follower off: it goes on answering what it knows, says so, and never for leases.
func TestStaleReadsAreMarked(t *testing.T) {
	d := newDuo(t)
	told := 0
	opts := Options{Stale: func(context.Context, schema.GroupResource, time.Duration) { told++ }}
	pods := storageOver(t, d.follower, schema.GroupResource{Resource: "pods"}, opts)
	lease := storageOver(t, d.follower, leases(), opts)
	pod := &example.Pod{}
	pod.Name, pod.Namespace = "a", "ns"
	for key, s := range map[string]storage.Interface{"/pods/ns/a": pods, "/leases/ns/a": lease} {
		if err := s.Create(t.Context(), key, pod.DeepCopy(), nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	d.net.Cut("leader", "follower")
	recorder := &warnings{}
	ctx, cancel := context.WithTimeout(warning.WithWarningRecorder(t.Context(), recorder), 30*time.Second)
	defer cancel()
	var got example.Pod
	if err := pods.Get(ctx, "/pods/ns/a", storage.GetOptions{}, &got); err != nil || got.Name != "a" {
		t.Fatalf("get without quorum: %v", err)
	}
	var list example.PodList
	if err := pods.GetList(ctx, "/pods/", storage.ListOptions{Recursive: true, Predicate: storage.Everything}, &list); err != nil || len(list.Items) != 1 {
		t.Fatalf("list without quorum: %d, %v", len(list.Items), err)
	}
	w, err := pods.Watch(ctx, "/pods/", storage.ListOptions{Recursive: true, Predicate: storage.Everything})
	if err != nil {
		t.Fatal(err)
	}
	if event := <-w.ResultChan(); event.Object == nil {
		t.Fatal("a watch without quorum sends nothing")
	}
	w.Stop()
	if len(recorder.texts) != 3 || told != 3 || slices.Contains(recorder.texts, "") {
		t.Fatalf("three stale answers have the warnings %q", recorder.texts)
	}
	if err := lease.Get(ctx, "/leases/ns/a", storage.GetOptions{}, &got); !apierrors.IsServiceUnavailable(err) {
		t.Fatalf("a lease was served without quorum: %v", err)
	}
	if err := pods.Create(ctx, "/pods/ns/b", pod.DeepCopy(), nil, 0); !apierrors.IsServiceUnavailable(err) {
		t.Fatalf("a write without quorum: %v", err)
	}
	if err := pods.(*resource).ReadinessCheck(); err == nil {
		t.Fatal("storage without quorum is ready")
	}
	d.net.Heal()
	if err := d.follower.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	recorder.texts = nil
	if err := pods.Get(ctx, "/pods/ns/a", storage.GetOptions{}, &got); err != nil || len(recorder.texts) != 0 {
		t.Fatalf("after the cut: %v, warnings %q", err, recorder.texts)
	}
}
