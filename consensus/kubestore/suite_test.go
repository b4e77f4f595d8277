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
	return newFixtureOver(t, newReplica(t, t.TempDir()), opts, codec, transformer)
}

func newFixtureOver(t testing.TB, replica *consensus.Replica, opts Options, codec runtime.Codec, transformer value.Transformer) *fixture {
	t.Helper()
	f := &fixture{replica: replica}
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

// ignoreCalls does not count requests to etcd: there are none.
func ignoreCalls(*testing.T, uint64, uint64) {}

// suite has every test of k8s.io/apiserver/pkg/storage/testing but those of the alpha feature
// AllowUnsafeMalformedObjectDeletion, which is off: RunTestDeleteWithConflictAndMissingExpectedTransformOrDecodeError,
// RunTestDeleteExpectedTransformOrDecodeError, RunTestDeleteWithSuggestionAndMissingExpectedTransformOrDecodeError,
// RunTestGetListWithErrorAggregation and RunTestWatchWithUnsafeDelete. RunTestList gets no recorder of requests to etcd.
func suite() map[string]caseFunc {
	all := specialCases()
	for name, run := range map[string]func(context.Context, *testing.T, storage.Interface){
		"CreateWithTTL":                              storagetesting.RunTestCreateWithTTL,
		"CreateWithKeyExist":                         storagetesting.RunTestCreateWithKeyExist,
		"Get":                                        storagetesting.RunTestGet,
		"UnconditionalDelete":                        storagetesting.RunTestUnconditionalDelete,
		"ConditionalDelete":                          storagetesting.RunTestConditionalDelete,
		"DeleteWithSuggestion":                       storagetesting.RunTestDeleteWithSuggestion,
		"DeleteWithSuggestionAndConflict":            storagetesting.RunTestDeleteWithSuggestionAndConflict,
		"DeleteWithConflict":                         storagetesting.RunTestDeleteWithConflict,
		"DeleteWithSuggestionOfDeletedObject":        storagetesting.RunTestDeleteWithSuggestionOfDeletedObject,
		"ValidateDeletionWithSuggestion":             storagetesting.RunTestValidateDeletionWithSuggestion,
		"ValidateDeletionWithOnlySuggestionValid":    storagetesting.RunTestValidateDeletionWithOnlySuggestionValid,
		"PreconditionalDeleteWithSuggestion":         storagetesting.RunTestPreconditionalDeleteWithSuggestion,
		"PreconditionalDeleteWithOnlySuggestionPass": storagetesting.RunTestPreconditionalDeleteWithOnlySuggestionPass,
		"GetListRecursivePrefix":                     storagetesting.RunTestGetListRecursivePrefix,
		"GuaranteedUpdateWithTTL":                    storagetesting.RunTestGuaranteedUpdateWithTTL,
		"GuaranteedUpdateWithConflict":               storagetesting.RunTestGuaranteedUpdateWithConflict,
		"GuaranteedUpdateWithSuggestionAndConflict":  storagetesting.RunTestGuaranteedUpdateWithSuggestionAndConflict,
		"ListPaging":                                 storagetesting.RunTestListPaging,
		"NamespaceScopedList":                        storagetesting.RunTestNamespaceScopedList,
		"KeySchema":                                  storagetesting.RunTestKeySchema,
		"Watch":                                      storagetesting.RunTestWatch,
		"DeleteTriggerWatch":                         storagetesting.RunTestDeleteTriggerWatch,
		"WatchFromNonZero":                           storagetesting.RunTestWatchFromNonZero,
		"DelayedWatchDelivery":                       storagetesting.RunTestDelayedWatchDelivery,
		"WatchContextCancel":                         storagetesting.RunTestWatchContextCancel,
		"WatcherTimeout":                             storagetesting.RunTestWatcherTimeout,
		"WatchDeleteEventObjectHaveLatestRV":         storagetesting.RunTestWatchDeleteEventObjectHaveLatestRV,
		"WatchInitializationSignal":                  storagetesting.RunTestWatchInitializationSignal,
		"ClusterScopedWatch":                         storagetesting.RunTestClusterScopedWatch,
		"NamespaceScopedWatch":                       storagetesting.RunTestNamespaceScopedWatch,
		"WatchBookmarksWithCorrectResourceVersion":   storagetesting.RunTestOptionalWatchBookmarksWithCorrectResourceVersion,
		"SendInitialEventsBackwardCompatibility":     storagetesting.RunSendInitialEventsBackwardCompatibility,
		"WatchSemantics":                             storagetesting.RunWatchSemantics,
		"WatchSemanticInitialEventsExtended":         storagetesting.RunWatchSemanticInitialEventsExtended,
		"WatchListMatchSingle":                       storagetesting.RunWatchListMatchSingle,
	} {
		all[name] = func(ctx context.Context, t *testing.T, f *fixture) { run(ctx, t, f) }
	}
	return all
}

// specialCases are the tests that want more than the storage.
func specialCases() map[string]caseFunc {
	stats := func(ctx context.Context, t *testing.T, f *fixture, sizes bool) {
		storagetesting.RunTestStats(ctx, t, f, f.codec, *f.transformer.Load(), sizes)
	}
	return map[string]caseFunc{
		"Create": func(c context.Context, t *testing.T, f *fixture) { storagetesting.RunTestCreate(c, t, f, f.invariants) },
		"List": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestList(c, t, uncached{f}, f.compact, false, nil)
		},
		"ConsistentList": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestConsistentList(c, t, f, f.advance, false, true, false)
		},
		"GetListNonRecursive": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestGetListNonRecursive(c, t, f.advance, f)
		},
		"GetListWithoutErrorAggregation": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestGetListWithoutErrorAggregation(c, t, &overridable{fixture: f}, errors.New("bits flipped"))
		},
		"ListContinuation": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestListContinuation(c, t, f, ignoreCalls)
		},
		"ListPaginationRareObject": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestListPaginationRareObject(c, t, f, ignoreCalls)
		},
		"ListContinuationWithFilter": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestListContinuationWithFilter(c, t, f, ignoreCalls)
		},
		"ListInconsistentContinuation": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestListInconsistentContinuation(c, t, uncached{f}, f.compact)
		},
		"ListResourceVersionMatch": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestListResourceVersionMatch(c, t, &prefixed{f})
		},
		"GuaranteedUpdate": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestGuaranteedUpdate(c, t, &prefixed{f}, f.invariants)
		},
		"GuaranteedUpdateChecksStoredData": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestGuaranteedUpdateChecksStoredData(c, t, &prefixed{f})
		},
		"TransformationFailure": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestTransformationFailure(c, t, &prefixed{f})
		},
		"Stats": func(c context.Context, t *testing.T, f *fixture) { stats(c, t, f, false) },
		"StatsWithSizes": func(c context.Context, t *testing.T, f *fixture) {
			if err := f.EnableResourceSizeEstimation(func(context.Context) ([]string, error) { return nil, nil }); err != nil {
				t.Fatal(err)
			}
			stats(c, t, f, true)
		},
		"CompactRevision": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestCompactRevision(c, t, f, f.advance, f.compact)
		},
		"WatchFromZero": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestWatchFromZero(c, t, f, f.compact)
		},
		"WatchError": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestWatchError(c, t, &prefixed{f})
		},
		"ProgressNotify": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunOptionalTestProgressNotify(c, t, f, f.advance)
		},
		"WatchDispatchBookmarkEvents": func(c context.Context, t *testing.T, f *fixture) {
			storagetesting.RunTestWatchDispatchBookmarkEvents(c, t, f, true)
		},
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

// uncached answers pages of what is there at resource version 0, as the suite wants them of a storage without a Cacher.
type uncached struct{ *fixture }

func (u uncached) GetList(ctx context.Context, key string, opts storage.ListOptions, list runtime.Object) error {
	if opts.ResourceVersion == "0" && opts.Predicate.Limit > 0 {
		opts.ResourceVersion, opts.ResourceVersionMatch = "", ""
	}
	return u.fixture.GetList(ctx, key, opts, list)
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
