package kubestore

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	"pgregory.net/rapid"

	"github.com/podvine/podvine/consensus/store"
)

func podAttributes(object runtime.Object) (labels.Set, fields.Set, error) {
	pod := object.(*corev1.Pod)
	return pod.Labels, fields.Set{"metadata.name": pod.Name, "metadata.namespace": pod.Namespace, "spec.nodeName": pod.Spec.NodeName}, nil
}

func (k *kinds) pods(t testing.TB) *resource {
	t.Helper()
	config := &storagebackend.ConfigForResource{Config: storagebackend.Config{Codec: k.codec}, GroupResource: schema.GroupResource{Resource: "pods"}}
	s, _, err := k.backend.Decorator(config, "/pods", nil, func() runtime.Object { return &corev1.Pod{} },
		func() runtime.Object { return &corev1.PodList{} }, podAttributes, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s.(*resource)
}

// place writes a pod that is on a node; whether it exists does not matter.
func place(ctx context.Context, s storage.Interface, namespace, name, node string) error {
	return s.GuaranteedUpdate(ctx, "/pods/"+namespace+"/"+name, &corev1.Pod{}, true, nil,
		func(runtime.Object, storage.ResponseMeta) (runtime.Object, *uint64, error) {
			return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Annotations: map[string]string{"at": time.Now().String()}},
				Spec: corev1.PodSpec{NodeName: node}}, nil, nil
		}, nil)
}

// asked is a watch and what it is about.
type asked struct {
	*watcher
	from int64
}

func ask(ctx context.Context, t *rapid.T, r *resource, key, selector string, from int64) asked {
	recursive := strings.HasSuffix(key, "/")
	field, err := fields.ParseSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	w, err := r.Watch(ctx, key, storage.ListOptions{
		ResourceVersion: fmt.Sprint(from), Recursive: recursive, ProgressNotify: true,
		Predicate: storage.SelectionPredicate{Label: labels.Everything(), Field: field, GetAttrs: podAttributes},
	})
	if err != nil {
		t.Fatal(err)
	}
	return asked{w.(*watcher), from}
}

// unindexed is what the watch must see, by a look at each event.
func (a asked) unindexed(ctx context.Context, t *rapid.T) (seen []string) {
	for at := a.from; ; {
		c, err := a.r.b.replica.Store().Changes(a.r.table, at)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Events) == 0 {
			return seen
		}
		for _, ev := range c.Events {
			at = ev.Revision
			kind, err := a.r.view(ev).classify(ctx, &a.opts.Predicate, a.opts.Predicate.Empty())
			if err != nil {
				t.Fatal(err)
			}
			if a.matchesKey(ev.Key()) && kind != "" {
				seen = append(seen, fmt.Sprint(kind, ev.Revision))
			}
		}
	}
}

// seen is what the watch has sent when it has told that it has reached the revision.
func (a asked) seen(ctx context.Context, t *rapid.T, until int64) (seen []string) {
	for {
		select {
		case e := <-a.ResultChan():
			object, ok := e.Object.(metav1.Object)
			if !ok {
				t.Fatalf("the watch sent %v %v", e.Type, e.Object)
			}
			var revision int64
			if _, err := fmt.Sscan(object.GetResourceVersion(), &revision); err != nil {
				t.Fatal(err)
			}
			if e.Type != watch.Bookmark {
				seen = append(seen, fmt.Sprint(e.Type, revision))
			} else if revision >= until {
				return seen
			}
		case <-time.After(time.Millisecond): // it may not have waited for progress when that was last asked for
			if err := a.r.RequestWatchProgress(ctx); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestWatchesGetWhatTheyAskFor compares watches that are found by topic with a look at each event.
func TestWatchesGetWhatTheyAskFor(t *testing.T) {
	r := newKinds(t, Options{}).pods(t)
	places := rapid.SampledFrom([]string{"a", "b", "bb"})
	nodes := rapid.SampledFrom([]string{"", "n1", "n2"})
	rapid.Check(t, func(t *rapid.T) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var watches []asked
		t.Repeat(map[string]func(*rapid.T){
			"place": func(t *rapid.T) {
				if err := place(ctx, r, places.Draw(t, "namespace"), places.Draw(t, "name"), nodes.Draw(t, "node")); err != nil {
					t.Fatal(err)
				}
			},
			"delete": func(t *rapid.T) {
				key := "/pods/" + places.Draw(t, "namespace") + "/" + places.Draw(t, "name")
				err := r.Delete(ctx, key, &corev1.Pod{}, nil, storage.ValidateAllObjectFunc, nil, storage.DeleteOptions{})
				if err != nil && !storage.IsNotFound(err) {
					t.Fatal(err)
				}
			},
			"watch": func(t *rapid.T) {
				key := rapid.SampledFrom([]string{"/pods/", "/pods/a/", "/pods/b/", "/pods/a/b", "/pods/b/bb"}).Draw(t, "key")
				selector := rapid.SampledFrom([]string{"", "spec.nodeName=n1", "spec.nodeName=", "metadata.name=bb", "spec.nodeName!=n2",
					"metadata.namespace=b", "metadata.name=b,spec.nodeName=n2"}).Draw(t, "selector")
				from := r.b.replica.Store().Revision() - int64(rapid.IntRange(0, 5).Draw(t, "before"))
				watches = append(watches, ask(ctx, t, r, key, selector, max(from, 1)))
			},
			"stop": func(t *rapid.T) {
				if len(watches) > 0 {
					watches[0].Stop()
					watches = watches[1:]
				}
			},
		})
		for _, w := range watches {
			if got, want := w.seen(ctx, t, r.b.replica.Store().Revision()), w.unindexed(ctx, t); !slices.Equal(got, want) {
				t.Fatalf("a watch of %s with %v from %d got %v, want %v", w.key, w.opts.Predicate.Field, w.from, got, want)
			}
		}
	})
	waitForNoDispatch(t, r)
}

// waitForNoDispatch fails when watches that have ended are still found.
func waitForNoDispatch(t *testing.T, r *resource) {
	t.Helper()
	for late := time.After(time.Minute); ; {
		r.dispatcher.mu.Lock()
		left := len(r.dispatcher.byTopic) + len(r.dispatcher.asked)
		stopped := r.dispatcher.stop == nil
		r.dispatcher.mu.Unlock()
		if left == 0 && stopped {
			return
		}
		select {
		case <-late:
			t.Fatalf("%d topics are left, dispatcher stopped: %v", left, stopped)
		case <-time.After(time.Millisecond):
		}
	}
}

// TestSlowWatchReadsTheHistory has a watch read nothing until more has happened than is kept for it.
func TestSlowWatchReadsTheHistory(t *testing.T) {
	const writes = watchBufferEvents + 2*pendingEvents
	s := newKinds(t, Options{}).pods(t)
	w, err := s.Watch(t.Context(), "/pods/a", storage.ListOptions{ResourceVersion: "1", Recursive: true, Predicate: storage.Everything})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	var all sync.WaitGroup
	for i := range writes {
		all.Go(func() {
			if err := place(t.Context(), s, "a", fmt.Sprint(i), ""); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	seen := map[string]bool{}
	for range writes {
		e := <-w.ResultChan()
		pod, ok := e.Object.(metav1.Object)
		if !ok || e.Type != watch.Added || seen[pod.GetName()] {
			t.Fatalf("after %d events: %v %v", len(seen), e.Type, e.Object)
		}
		seen[pod.GetName()] = true
	}
}

// TestLostEventsHaveABase: a watch that was quiet for long has nothing to read from before the burst that was too much for it.
func TestLostEventsHaveABase(t *testing.T) {
	s := &subscription{ready: make(chan struct{}, 1)}
	for i := range pendingEvents + 1 {
		s.put(&store.Event{Revision: int64(100 + i)}, int64(90+i))
	}
	if got := s.take(); !got.lost || got.base != 90 || len(got.events) != 0 {
		t.Errorf("lost %v after %d, with %d events", got.lost, got.base, len(got.events))
	}
	s.put(&store.Event{Revision: 900}, 899)
	if got := s.take(); got.lost || len(got.events) != 1 {
		t.Errorf("after that: lost %v, %d events", got.lost, len(got.events))
	}
	s.lose(950)
	if got := s.take(); !got.lost || got.base != 950 {
		t.Errorf("without history: lost %v after %d", got.lost, got.base)
	}
}
