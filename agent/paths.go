package agent

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/podvine/podvine/agent/control/nodes"
)

const (
	// pathInterval is how often the machine of each living node is knocked at, and pathAgain how often one that did not answer.
	pathInterval = 2 * time.Second
	pathAgain    = time.Second
	// pathTick is how often one is chosen: knocks are no more than four a second, however many nodes there are.
	pathTick = 250 * time.Millisecond
	// pathTimeout is longer than that of a node that gossip believes dead: here nothing else is wrong.
	pathTimeout = time.Second
	// pathStall is how much later a timeout may come before it is rather this machine that was too busy to hear the answer.
	pathStall = 200 * time.Millisecond
	// pathMisses in a row close a path, pathHits in a row open it again.
	pathMisses = 3
	pathHits   = 3
	// maxClosed is the most of the living nodes that may be out of reach, as a share: beyond, it is rather this node that is cut off.
	maxClosed = 0.5
)

// path is what was heard lately of a living node's machine.
type path struct {
	asked        time.Time
	misses, hits int
	closed       bool
}

// after is the path after one more knock. Pure.
func (p path) after(answered bool, now time.Time) path {
	p.asked = now
	if answered {
		p.misses, p.hits = 0, p.hits+1
		p.closed = p.closed && p.hits < pathHits
		return p
	}
	p.misses, p.hits = p.misses+1, 0
	p.closed = p.closed || p.misses >= pathMisses
	return p
}

// due is when its machine is to be asked next. Pure.
func (p path) due() time.Time {
	if p.misses > 0 || p.closed {
		return p.asked.Add(pathAgain)
	}
	return p.asked.Add(pathInterval)
}

// nextPath picks the node that is due for the longest time, "" when none is. Pure.
func nextPath(paths map[string]path, now time.Time) string {
	var first string
	for _, name := range slices.Sorted(maps.Keys(paths)) {
		if due := paths[name].due(); !now.Before(due) && (first == "" || due.Before(paths[first].due())) {
			first = name
		}
	}
	return first
}

// closedPaths are the nodes that others reach and this one does not; none when they are too many. Pure.
func closedPaths(paths map[string]path) map[string]bool {
	closed := map[string]bool{}
	for name, p := range paths {
		if p.closed {
			closed[name] = true
		}
	}
	if float64(len(closed)) > maxClosed*float64(len(paths)) {
		return nil
	}
	return closed
}

// pathWatcher finds the living nodes that this one cannot reach: members ask others to knock for them, so that gossip knows nothing of a
// cut between two, in one direction or both. It is safe for concurrent use.
type pathWatcher struct {
	liveness nodes.Liveness
	self     string
	nodes    corelisters.NodeLister
	answers  func(ctx context.Context, name string) bool
	// changed is called after what Closed returns has changed.
	changed func()
	log     *slog.Logger

	mu     sync.Mutex
	paths  map[string]path // of the living nodes
	closed map[string]bool
}

func newPathWatcher(n *node, changed func()) *pathWatcher {
	return &pathWatcher{
		liveness: n.directory, self: n.dir.NodeName, nodes: n.nodeLister(), changed: changed, log: n.log.With("part", "services"), paths: map[string]path{},
		answers: func(ctx context.Context, name string) bool {
			address, known := n.directory.peerAddress(n.directory.id(name))
			return !known || knock(ctx, address, pathTimeout)
		},
	}
}

// Closed are the living nodes that cannot be reached from here; do not change the map.
func (w *pathWatcher) Closed() map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

// run knocks until ctx ends.
func (w *pathWatcher) run(ctx context.Context) error {
	var knocks sync.WaitGroup
	defer knocks.Wait()
	ticker := time.NewTicker(pathTick)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if name := w.choose(time.Now()); name != "" {
			knocks.Go(func() { w.knock(ctx, name) })
		}
	}
}

// knock asks one machine. Silence while this process was kept from running tells nothing.
func (w *pathWatcher) knock(ctx context.Context, name string) {
	begun := time.Now()
	answered := w.answers(ctx, name)
	now := time.Now()
	if ctx.Err() == nil && (answered || now.Sub(begun) < pathTimeout+pathStall) {
		w.heard(name, answered, now)
	}
}

// choose follows who lives, and picks a node to knock at.
func (w *pathWatcher) choose(now time.Time) string {
	known, err := w.nodes.List(labels.Everything())
	if err != nil {
		w.log.Error("list nodes", "error", err)
		return ""
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	living := map[string]path{}
	for _, node := range known {
		if alive, _ := w.liveness.Alive(node.Name); alive && node.Name != w.self {
			living[node.Name] = w.paths[node.Name]
		}
	}
	w.paths = living
	name := nextPath(living, now)
	if name != "" {
		p := living[name]
		p.asked = now // it is not asked twice at a time: an answer comes before it is due again
		living[name] = p
	}
	w.followLocked()
	return name
}

func (w *pathWatcher) heard(name string, answered bool, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if p, lives := w.paths[name]; lives {
		w.paths[name] = p.after(answered, now)
		w.followLocked()
	}
}

// followLocked says what has changed.
func (w *pathWatcher) followLocked() {
	closed := closedPaths(w.paths)
	if maps.Equal(closed, w.closed) {
		return
	}
	w.log.Info("nodes that others reach and this one does not", "nodes", slices.Sorted(maps.Keys(closed)))
	w.closed = closed
	w.changed()
}
