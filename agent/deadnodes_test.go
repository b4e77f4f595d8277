package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

// cluster is what gossip believes of nodes, which machines answer, and what the proxy was told.
type cluster struct {
	mu       sync.Mutex
	alive    map[string]bool // nodes that are not in it are not known
	answers  map[string]bool
	knocks   int
	failures int
	told     string
}

func (c *cluster) Alive(name string) (bool, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	alive, known := c.alive[name]
	if !known {
		return false, time.Time{}
	}
	return alive, time.Unix(1, 0)
}

func (c *cluster) SetDeadNodes(_ context.Context, dead, silent map[string]bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failures > 0 {
		c.failures--
		return errors.New("no luck")
	}
	c.told = fmt.Sprint(slices.Sorted(maps.Keys(dead)), slices.Sorted(maps.Keys(silent)))
	return nil
}

func (c *cluster) answer(_ context.Context, name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.knocks++
	return c.answers[name]
}

func nodeObjects(names ...string) []*corev1.Node {
	var all []*corev1.Node
	for _, name := range names {
		all = append(all, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
	}
	return all
}

func TestNodesThatNobodyHasHeardOfAreNotDead(t *testing.T) {
	c := &cluster{alive: map[string]bool{"self": false, "alive": true, "dead": false, "no node": false}}
	dead := deadOf(nodeObjects("self", "alive", "dead", "new"), "self", c)
	if got := slices.Sorted(maps.Keys(dead)); !slices.Equal(got, []string{"dead"}) {
		t.Errorf("dead are %v, want the dead one", got)
	}
}

// A node loses its traffic when gossip believes it dead, and its connections when its machine is silent too: at once, or when
// it follows its agent later.
func TestDeadNodesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{alive: map[string]bool{"n1": true, "n2": true, "n3": true}, answers: map[string]bool{}}
		indexer := cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{})
		for _, node := range nodeObjects("n1", "n2", "n3") {
			if err := indexer.Add(node); err != nil {
				t.Fatal(err)
			}
		}
		d := &deadNodes{
			liveness: c, self: "n1", nodes: corelisters.NewNodeLister(indexer), proxy: c, answers: c.answer, log: slog.New(slog.DiscardHandler),
			started: time.Now(), synced: func() bool { return true }, changed: make(chan struct{}, 1), heard: make(chan []string, 1),
			quiet: map[string]bool{}, knocked: map[string]time.Time{},
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- d.run(ctx) }()
		expect := func(what string, change func(), after time.Duration, want string) {
			t.Helper()
			c.mu.Lock()
			change()
			c.mu.Unlock()
			d.trigger()
			time.Sleep(after)
			synctest.Wait()
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.told != want {
				t.Errorf("%s: the proxy was told %q, want %q", what, c.told, want)
			}
		}
		const soon = time.Millisecond
		expect("all alive", func() {}, time.Second, "")
		expect("n2 dies", func() { c.alive["n2"] = false }, soon, "[n2] [n2]")
		expect("n2 returns", func() { c.alive["n2"] = true }, soon, "[] []")
		expect("the agent of n2 ends", func() { c.alive["n2"], c.answers["n2"] = false, true }, soon, "[n2] []")
		expect("and stays away", func() {}, 5*time.Second, "[n2] []")
		expect("n3 dies meanwhile", func() { c.alive["n3"] = false }, soon, "[n2 n3] [n3]")
		expect("the machine of n2 follows", func() { c.answers["n2"] = false }, deadNodesPause+soon, "[n2 n3] [n2 n3]")
		c.mu.Lock()
		before := c.knocks
		c.mu.Unlock()
		expect("nothing changes", func() {}, 59*deadNodesIdle+deadNodesIdle/2, "[n2 n3] [n2 n3]")
		if c.knocks != before {
			t.Errorf("knocked %d times at machines that are known to be silent", c.knocks-before)
		}
		expect("the proxy fails", func() { c.failures, c.alive["n3"] = 1, true }, soon, "[n2 n3] [n2 n3]")
		expect("it works again", func() {}, deadNodesPause, "[n2] [n2]")
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A kernel answers for a machine whether or not a process listens.
func TestKnock(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().(*net.TCPAddr).AddrPort()
	if !knock(t.Context(), address, knockTimeout) {
		t.Error("a process that listens is taken for silence")
	}
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	if !knock(t.Context(), address, knockTimeout) {
		t.Error("a refusal is taken for silence")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if knock(ctx, netip.MustParseAddrPort("127.0.0.1:1"), knockTimeout) {
		t.Error("no answer is taken for one")
	}
}
