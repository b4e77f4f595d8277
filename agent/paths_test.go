package agent

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"pgregory.net/rapid"
)

// A path closes and opens only after several answers of one kind in a row, whatever comes between.
func TestPathsDoNotFlap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p path
		var row int
		last, now := true, time.Unix(0, 0)
		for range rapid.IntRange(0, 50).Draw(t, "knocks") {
			answered := rapid.Bool().Draw(t, "answered")
			before := p.closed
			if now = now.Add(time.Second); answered != last {
				row, last = 0, answered
			}
			row++
			p = p.after(answered, now)
			if p.closed != before && (p.closed == answered || row < min(pathMisses, pathHits)) {
				t.Fatalf("closed is %v after %d answers %v", p.closed, row, answered)
			}
			if row >= max(pathMisses, pathHits) && p.closed == answered {
				t.Fatalf("closed is %v still after %d answers %v", p.closed, row, answered)
			}
		}
	})
}

func TestClosedPathsAreFew(t *testing.T) {
	open, closed := path{}, path{closed: true}
	for _, c := range []struct {
		name  string
		paths map[string]path
		want  []string
	}{
		{"none", map[string]path{"a": open, "b": open}, nil},
		{"one of two", map[string]path{"a": closed, "b": open}, []string{"a"}},
		{"the only one", map[string]path{"a": closed}, nil},
		{"most", map[string]path{"a": closed, "b": closed, "c": open}, nil},
	} {
		if got := slices.Sorted(maps.Keys(closedPaths(c.paths))); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// A node that gossip believes alive and that does not answer this one loses this one's traffic, and has it again when it answers; knocks are
// few however many nodes there are.
func TestPathsAreWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		names := []string{"n1", "n2", "n3", "n4"}
		c := &cluster{alive: map[string]bool{}, answers: map[string]bool{}}
		indexer := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
		for _, node := range nodeObjects(names...) {
			c.alive[node.Name], c.answers[node.Name] = true, true
			if err := indexer.Add(node); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var ended sync.WaitGroup
		changes := 0
		w := &pathWatcher{
			liveness: c, self: "n1", nodes: corelisters.NewNodeLister(indexer), answers: c.answer, log: slog.New(slog.DiscardHandler), paths: map[string]path{},
			changed: func() { changes++ },
		}
		ended.Go(func() { _ = w.run(ctx) })
		expect := func(after time.Duration, want ...string) {
			t.Helper()
			<-time.After(after)
			synctest.Wait()
			if got := slices.Sorted(maps.Keys(w.Closed())); !slices.Equal(got, want) {
				t.Errorf("out of reach are %v, want %v", got, want)
			}
		}
		set := func(name string, alive, answers bool) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.alive[name], c.answers[name] = alive, answers
		}
		expect(20 * time.Second)
		if limit := 20 * 3 / int(pathInterval/time.Second); c.knocks > limit+3 {
			t.Errorf("%d knocks in 20 s, want about %d", c.knocks, limit)
		}
		set("n3", true, false)
		expect(pathInterval+pathMisses*pathAgain+time.Second, "n3")
		set("n3", false, false) // gossip agrees now: it is for those that are dead
		expect(time.Second)
		set("n3", true, true)
		expect(10 * time.Second)
		set("n2", true, false)
		expect(10*time.Second, "n2")
		set("n2", true, true)
		expect(10 * time.Second)
		if changes != 4 {
			t.Errorf("%d changes were told", changes)
		}
		cancel()
		ended.Wait()
	})
}
