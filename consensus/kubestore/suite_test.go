package kubestore

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/apitesting"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apiserver/pkg/apis/example"
	examplev1 "k8s.io/apiserver/pkg/apis/example/v1"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	storagetesting "k8s.io/apiserver/pkg/storage/testing"
	"k8s.io/apiserver/pkg/storage/value"

	"github.com/podvine/podvine/consensus"
)

// testPrefix is what the suite's transformer puts before each value.
const testPrefix = "test!"

// fixture is one replica with the storage of the suite's pods.
type fixture struct {
	*resource
	backend *Backend
	replica *consensus.Replica
}

func testCodec() runtime.Codec {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, metav1.SchemeGroupVersion)
	utilruntime.Must(example.AddToScheme(scheme))
	utilruntime.Must(examplev1.AddToScheme(scheme))
	return apitesting.TestCodec(serializer.NewCodecFactory(scheme), examplev1.SchemeGroupVersion)
}

func newReplica(t testing.TB, dir string) *consensus.Replica {
	t.Helper()
	replica, err := consensus.Open(t.Context(), consensus.Config{
		Dir: dir, NodeID: "node", ClusterID: "cluster", SegmentBytes: 8 << 20, ReserveBytes: -1,
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := replica.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := replica.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return replica
}

// newFixture returns storage for pods. The published suite changes what it gets and counts decryptions, so it can be run
// without the cache of decoded objects.
func newFixture(t testing.TB, opts Options) *fixture {
	t.Helper()
	return newFixtureWith(t, opts, testCodec(), storagetesting.NewPrefixTransformer([]byte(testPrefix), false))
}

func newFixtureWith(t testing.TB, opts Options, codec runtime.Codec, transformer value.Transformer) *fixture {
	t.Helper()
	f := &fixture{replica: newReplica(t, t.TempDir())}
	var err error
	if f.backend, err = New(f.replica, opts); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.backend.Close)
	config := &storagebackend.ConfigForResource{
		Config: storagebackend.Config{Codec: codec, Transformer: transformer}, GroupResource: schema.GroupResource{Resource: "pods"},
	}
	s, _, err := f.backend.Decorator(config, "/pods", nil, func() runtime.Object { return &example.Pod{} },
		func() runtime.Object { return &example.PodList{} }, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.resource = s.(*resource)
	return f
}

func (f *fixture) invariants(ctx context.Context, t *testing.T, key string) {
	e, _ := f.replica.Store().Get("/pods/", key)
	if e == nil {
		t.Fatalf("no entry for %s", key)
	}
	decoded, err := runtime.Decode(f.codec, e.Value[len(testPrefix):])
	if err != nil {
		t.Fatal(err)
	}
	if pod := decoded.(*example.Pod); pod.ResourceVersion != "" || pod.SelfLink != "" {
		t.Errorf("stored object has a resource version or a self link: %v", pod.ObjectMeta)
	}
}

// compact drops the history of the suite's storage and, as etcd's compaction does, takes one revision.
func (f *fixture) compact(ctx context.Context, t *testing.T, resourceVersion string) {
	rev, err := f.versioner.ParseResourceVersion(resourceVersion)
	if err != nil {
		t.Fatal(err)
	}
	f.replica.Store().Compact(int64(rev))
	advance(t, f.replica)
}

// advance makes the store's revision grow without touching the pods.
func (f *fixture) advance(_ context.Context, t *testing.T) int64 { return advance(t, f.replica) }

type caseFunc func(context.Context, *testing.T, *fixture)

var noCalls storagetesting.CallsValidation = func(*testing.T, uint64, uint64) {}

// suite has every test of k8s.io/apiserver/pkg/storage/testing but those of the alpha feature
// AllowUnsafeMalformedObjectDeletion, which is off: RunTestDeleteWithConflictAndMissingExpectedTransformOrDecodeError,
// RunTestDeleteExpectedTransformOrDecodeError, RunTestDeleteWithSuggestionAndMissingExpectedTransformOrDecodeError,
// RunTestGetListWithErrorAggregation and RunTestWatchWithUnsafeDelete. RunTestList gets no recorder of requests to etcd.
func suite() map[string]caseFunc {
	return map[string]caseFunc{
		"Create":             func(c context.Context, t *testing.T, f *fixture) { storagetesting.RunTestCreate(c, t, f, f.invariants) },
		"CreateWithTTL":      func(c context.Context, t *testing.T, f *fixture) { storagetesting.RunTestCreateWithTTL(c, t, f) },
		"CreateWithKeyExist": func(c context.Context, t *testing.T, f *fixture) { storagetesting.RunTestCreateWithKeyExist(c, t, f) },
		"Get":                func(c context.Context, t *testing.T, f *fixture) { storagetesting.RunTestGet(c, t, f) },
		"UnconditionalDelete": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestUnconditionalDelete(c, t, f)
		},
		"ConditionalDelete":    func(c context.Context, t *testing.T, f *fixture) { storagetesting.RunTestConditionalDelete(c, t, f) },
		"DeleteWithSuggestion": func(c context.Context, t *testing.T, f *fixture) { storagetesting.RunTestDeleteWithSuggestion(c, t, f) },
		"DeleteWithSuggestionAndConflict": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestDeleteWithSuggestionAndConflict(c, t, f)
		},
		"DeleteWithConflict": func(c context.Context, t *testing.T, f *fixture) { storagetesting.RunTestDeleteWithConflict(c, t, f) },
		"DeleteWithSuggestionOfDeletedObject": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestDeleteWithSuggestionOfDeletedObject(c, t, f)
		},
		"ValidateDeletionWithSuggestion": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestValidateDeletionWithSuggestion(c, t, f)
		},
		"ValidateDeletionWithOnlySuggestionValid": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestValidateDeletionWithOnlySuggestionValid(c, t, f)
		},
		"PreconditionalDeleteWithSuggestion": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestPreconditionalDeleteWithSuggestion(c, t, f)
		},
		"PreconditionalDeleteWithOnlySuggestionPass": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestPreconditionalDeleteWithOnlySuggestionPass(c, t, f)
		},
		"List": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestList(c, t, f, f.compact, false, nil)
		},
		"ConsistentList": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestConsistentList(c, t, f, f.advance, false, true, false)
		},
		"GetListNonRecursive": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestGetListNonRecursive(c, t, f.advance, f)
		},
		"GetListRecursivePrefix": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestGetListRecursivePrefix(c, t, f)
		},
		"GetListWithoutErrorAggregation": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestGetListWithoutErrorAggregation(c, t, &overridable{fixture: f}, errors.New("bits flipped"))
		},
		"ListContinuation": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestListContinuation(c, t, f, noCalls)
		},
		"ListPaginationRareObject": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestListPaginationRareObject(c, t, f, noCalls)
		},
		"ListContinuationWithFilter": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestListContinuationWithFilter(c, t, f, noCalls)
		},
		"ListInconsistentContinuation": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestListInconsistentContinuation(c, t, f, f.compact)
		},
		"ListResourceVersionMatch": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestListResourceVersionMatch(c, t, &prefixed{f})
		},
		"GuaranteedUpdate": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestGuaranteedUpdate(c, t, &prefixed{f}, f.invariants)
		},
		"GuaranteedUpdateWithTTL": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestGuaranteedUpdateWithTTL(c, t, f)
		},
		"GuaranteedUpdateChecksStoredData": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestGuaranteedUpdateChecksStoredData(c, t, &prefixed{f})
		},
		"GuaranteedUpdateWithConflict": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestGuaranteedUpdateWithConflict(c, t, f)
		},
		"GuaranteedUpdateWithSuggestionAndConflict": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestGuaranteedUpdateWithSuggestionAndConflict(c, t, f)
		},
		"TransformationFailure": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestTransformationFailure(c, t, &prefixed{f})
		},
		"Stats": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestStats(c, t, f, f.codec, *f.transformer.Load(), false)
		},
		"ListPaging":          func(c context.Context, t *testing.T, f *fixture) { storagetesting.RunTestListPaging(c, t, f) },
		"NamespaceScopedList": func(c context.Context, t *testing.T, f *fixture) { storagetesting.RunTestNamespaceScopedList(c, t, f) },
		"CompactRevision": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestCompactRevision(c, t, f, f.advance, f.compact)
		},
		"KeySchema": func(c context.Context, t *testing.T, f *fixture) { storagetesting.RunTestKeySchema(c, t, f) },

		"Watch": func(c context.Context, t *testing.T, f *fixture) { storagetesting.RunTestWatch(c, t, f) },
		"WatchFromZero": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestWatchFromZero(c, t, f, f.compact)
		},
		"DeleteTriggerWatch":   func(c context.Context, t *testing.T, f *fixture) { storagetesting.RunTestDeleteTriggerWatch(c, t, f) },
		"WatchFromNonZero":     func(c context.Context, t *testing.T, f *fixture) { storagetesting.RunTestWatchFromNonZero(c, t, f) },
		"DelayedWatchDelivery": func(c context.Context, t *testing.T, f *fixture) { storagetesting.RunTestDelayedWatchDelivery(c, t, f) },
		"WatchError": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestWatchError(c, t, &prefixed{f})
		},
		"WatchContextCancel": func(c context.Context, t *testing.T, f *fixture) { storagetesting.RunTestWatchContextCancel(c, t, f) },
		"WatcherTimeout":     func(c context.Context, t *testing.T, f *fixture) { storagetesting.RunTestWatcherTimeout(c, t, f) },
		"WatchDeleteEventObjectHaveLatestRV": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestWatchDeleteEventObjectHaveLatestRV(c, t, f)
		},
		"WatchInitializationSignal": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestWatchInitializationSignal(c, t, f)
		},
		"ProgressNotify": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunOptionalTestProgressNotify(c, t, f, f.advance)
		},
		"ClusterScopedWatch":   func(c context.Context, t *testing.T, f *fixture) { storagetesting.RunTestClusterScopedWatch(c, t, f) },
		"NamespaceScopedWatch": func(c context.Context, t *testing.T, f *fixture) { storagetesting.RunTestNamespaceScopedWatch(c, t, f) },
		"WatchDispatchBookmarkEvents": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestWatchDispatchBookmarkEvents(c, t, f, true)
		},
		"WatchBookmarksWithCorrectResourceVersion": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestOptionalWatchBookmarksWithCorrectResourceVersion(c, t, f)
		},
		"SendInitialEventsBackwardCompatibility": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunSendInitialEventsBackwardCompatibility(c, t, f)
		},
		"WatchSemantics": func(c context.Context, t *testing.T, f *fixture) { storagetesting.RunWatchSemantics(c, t, f) },
		"WatchSemanticInitialEventsExtended": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunWatchSemanticInitialEventsExtended(c, t, f)
		},
		"WatchListMatchSingle": func(c context.Context, t *testing.T, f *fixture) { storagetesting.RunWatchListMatchSingle(c, t, f) },
		"WatchErrorIsBlockingFurtherEvents": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunWatchErrorIsBlockingFurtherEvents(c, t, &prefixed{f})
		},
	}
}

func TestPublishedSuite(t *testing.T) {
	for name, run := range suite() {
		t.Run(name, func(t *testing.T) {
			run(t.Context(), t, newFixture(t, Options{DecodedCacheBytes: -1, BookmarkInterval: time.Second}))
		})
	}
}

// TestPublishedSuiteCached runs the suite with shared decoded objects, but for the cases that change the transformer
// under stored values: what is decoded already is not decrypted again.
func TestPublishedSuiteCached(t *testing.T) {
	decrypting := map[string]bool{
		"TransformationFailure": true, "WatchError": true, "WatchErrorIsBlockingFurtherEvents": true,
		"GuaranteedUpdate": true, "GuaranteedUpdateChecksStoredData": true, "GetListWithoutErrorAggregation": true,
		"ListResourceVersionMatch": true,
	}
	for name, run := range suite() {
		if decrypting[name] {
			continue
		}
		t.Run(name, func(t *testing.T) {
			run(t.Context(), t, newFixture(t, Options{BookmarkInterval: time.Second}))
		})
	}
}

// prefixed lets the suite replace the prefix transformer.
type prefixed struct{ *fixture }

func (p *prefixed) UpdatePrefixTransformer(modify storagetesting.PrefixTransformerModifier) func() {
	before := *p.transformer.Load()
	changed := *before.(*storagetesting.PrefixTransformer)
	p.setTransformer(modify(&changed))
	return func() { p.setTransformer(before) }
}

// overridable lets the suite wrap the transformer.
type overridable struct {
	*fixture
	mu sync.Mutex
}

func (o *overridable) UpdateTransformer(modify storagetesting.TransformerModifier) func() {
	o.mu.Lock()
	defer o.mu.Unlock()
	before := *o.transformer.Load()
	o.setTransformer(modify(before))
	return func() { o.setTransformer(before) }
}

var _ storage.Interface = (*fixture)(nil)
