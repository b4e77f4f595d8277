package loop_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/loop/looptest"
)

// tally counts the tries by key and answers as told.
type tally struct {
	mu     sync.Mutex
	tries  map[string]int
	answer func(key string, try int) (time.Duration, error)
}

func (c *tally) reconcile(_ context.Context, key string) (time.Duration, error) {
	c.mu.Lock()
	c.tries[key]++
	try := c.tries[key]
	c.mu.Unlock()
	if c.answer == nil {
		return 0, nil
	}
	return c.answer(key, try)
}

func (c *tally) of(key string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tries[key]
}

func maps(names ...string) []*v1.ConfigMap {
	var out []*v1.ConfigMap
	for _, name := range names {
		out = append(out, &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}})
	}
	return out
}

func run(t *testing.T, counter *tally, test func(c *looptest.Cluster, d *loop.Driver)) {
	synctest.Test(t, func(t *testing.T) {
		c := looptest.New(t, maps("a")[0])
		defer c.Stop()
		counter.tries = map[string]int{}
		metrics, err := loop.NewMetrics(prometheus.NewRegistry())
		c.Must(err)
		informer := c.Informers.Core().V1().ConfigMaps().Informer()
		d, err := loop.New(loop.Config{Name: "test", Sources: []loop.Source{loop.OnKey(informer)}, Reconcile: counter.reconcile,
			All: func() []string { return []string{"from a pass"} }, Logger: c.Logger(), Metrics: metrics})
		c.Must(err)
		c.Start(d)
		test(c, d)
	})
}

func TestEventsAndPasses(t *testing.T) {
	counter := &tally{}
	run(t, counter, func(c *looptest.Cluster, d *loop.Driver) {
		if counter.of("default/a") != 1 || counter.of("from a pass") != 1 {
			t.Errorf("tries after the start: %v", counter.tries)
		}
		_, err := c.Client.CoreV1().ConfigMaps("default").Create(t.Context(), maps("b")[0], metav1.CreateOptions{})
		c.Must(err)
		c.Settle()
		d.Trigger("asked")
		c.Must(c.Client.CoreV1().ConfigMaps("default").Delete(t.Context(), "a", metav1.DeleteOptions{}))
		c.Settle()
		if counter.of("default/b") != 1 || counter.of("default/a") != 2 || counter.of("asked") != 1 {
			t.Errorf("tries after events: %v", counter.tries)
		}
		c.Pass(13 * time.Minute)
		if got := counter.of("from a pass"); got != 2 {
			t.Errorf("%d passes after 13 minutes, want a second one", got)
		}
	})
}

func TestBackOffAndDelay(t *testing.T) {
	counter := &tally{answer: func(key string, try int) (time.Duration, error) {
		switch {
		case key == "failing":
			return 0, errors.New("no")
		case key == "again" && try < 4:
			return 10 * time.Second, nil
		}
		return 0, nil
	}}
	run(t, counter, func(c *looptest.Cluster, d *loop.Driver) {
		d.Trigger("failing")
		d.Trigger("again")
		c.Pass(25 * time.Second)
		if got := counter.of("again"); got != 3 {
			t.Errorf("%d tries in 25 s at one each 10 s, want 3", got)
		}
		if got := counter.of("failing"); got < 8 || got > 14 {
			t.Errorf("%d tries of a failing key in 25 s, want about 12", got)
		}
		before := counter.of("failing")
		c.Pass(10 * time.Minute)
		if got := counter.of("failing") - before; got < 9 || got > 12 {
			t.Errorf("%d more tries in 10 minutes, want one a minute", got)
		}
	})
}

func TestRefusesBadConfigurations(t *testing.T) {
	if _, err := loop.New(loop.Config{}); err == nil {
		t.Error("took a loop without a name")
	}
	if _, err := loop.New(loop.Config{Name: "x"}); err == nil {
		t.Error("took a loop that does nothing")
	}
	registry := prometheus.NewRegistry()
	if _, err := loop.NewMetrics(registry); err != nil {
		t.Error(err)
	}
	if _, err := loop.NewMetrics(registry); err == nil {
		t.Error("two loops shared one registry")
	}
}

// TestPending: what the memory says is unseen is exactly what was written and not shown, within its time.
func TestPending(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, now := loop.NewPending(), time.Unix(1_000_000, 0)
		created, deleted := map[types.UID]time.Time{}, map[types.UID]time.Time{}
		shown := map[types.UID]bool{}
		limit := loop.PendingMaxSeconds * time.Second
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			uid := types.UID(fmt.Sprint(rapid.IntRange(0, 4).Draw(t, "uid")))
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0:
				p.Created("owner", uid, now)
				created[uid] = now
			case 1:
				p.Deleted("owner", uid, now)
				deleted[uid] = now
			case 2:
				shown[uid] = rapid.Bool().Draw(t, "active")
			case 3:
				delete(shown, uid)
				p.Seen("owner", uid)
				delete(created, uid)
			case 4:
				now = now.Add(time.Duration(rapid.IntRange(0, 400).Draw(t, "seconds")) * time.Second)
			}
			for uid, at := range created {
				if _, ok := shown[uid]; ok || now.Sub(at) > limit {
					delete(created, uid)
				}
			}
			for uid, at := range deleted {
				if !shown[uid] || now.Sub(at) > limit {
					delete(deleted, uid)
				}
			}
			unseen, gone := p.Unseen("owner", shown, now)
			if unseen != len(created) || len(gone) != len(deleted) {
				t.Fatalf("unseen %d, deleted %v; want %v, %v", unseen, gone, created, deleted)
			}
		}
	})
}

func TestKeys(t *testing.T) {
	for key, object := range map[string]metav1.Object{
		"default/a": maps("a")[0],
		"n":         &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}},
	} {
		if got := loop.Key(object); got != key {
			t.Errorf("key %q, want %q", got, key)
		}
	}
}

// TestBeside: what runs beside a loop can trigger keys from its first instruction on, and ends with the loop.
func TestBeside(t *testing.T) {
	counter := &tally{tries: map[string]int{}}
	synctest.Test(t, func(t *testing.T) {
		c := looptest.New(t)
		defer c.Stop()
		ended := make(chan struct{})
		var d *loop.Driver
		d, err := loop.New(loop.Config{Name: "beside", Reconcile: counter.reconcile, Logger: c.Logger(), Beside: func(ctx context.Context) {
			d.Trigger("first")
			<-ctx.Done()
			close(ended)
		}})
		c.Must(err)
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- d.Run(ctx) }()
		synctest.Wait()
		if counter.of("first") != 1 {
			t.Errorf("tried %d times", counter.of("first"))
		}
		stop()
		<-done
		select {
		case <-ended:
		default:
			t.Error("what ran beside the loop outlives it")
		}
	})
}
