package services_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/podvine/podvine/dataplane/internal/testhost"
	"github.com/podvine/podvine/dataplane/services"
)

// loadAtOnce bounds the connections that are being made at one time.
const loadAtOnce = 128

// load connects at a fixed rate, and catches up when the machine was busy, until it is stopped.
type load struct {
	done     atomic.Int64
	failures atomic.Int64
	first    atomic.Pointer[error]
	began    time.Time
	stop     chan struct{}
	group    sync.WaitGroup
}

func startLoad(to netip.AddrPort, perSecond int) *load {
	l := &load{stop: make(chan struct{}), began: time.Now()}
	free := make(chan struct{}, loadAtOnce)
	l.group.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for made := 0; ; {
			select {
			case <-l.stop:
				return
			case <-tick.C:
			}
			for due := int(time.Since(l.began).Seconds() * float64(perSecond)); made < due; made++ {
				free <- struct{}{}
				l.group.Go(func() {
					l.once(to)
					<-free
				})
			}
		}
	})
	return l
}

func (l *load) once(to netip.AddrPort) {
	conn, err := net.DialTimeout("tcp", to.String(), 10*time.Second)
	if err == nil {
		_, err = testhost.ReadAnswer(conn)
		_ = conn.Close()
	}
	if err != nil {
		l.failures.Add(1)
		l.first.CompareAndSwap(nil, &err)
	}
	l.done.Add(1)
}

// end reports how many connections were made; any failure fails the test.
func (l *load) end(t *testing.T) int64 {
	t.Helper()
	close(l.stop)
	l.group.Wait()
	took := time.Since(l.began)
	if n := l.failures.Load(); n > 0 {
		t.Errorf("%d of %d connections failed, the first with: %v", n, l.done.Load(), *l.first.Load())
	}
	t.Logf("%d connections, %.0f a second", l.done.Load(), float64(l.done.Load())/took.Seconds())
	return l.done.Load()
}

// Clients see nothing of 500 changes of endpoints, nor of the process that holds the proxy being killed, at rest and in
// the midst of a change, and started anew.
func TestNoConnectionFailsDuringChangesAndKills(t *testing.T) {
	const perSecond, changes, connectionsPerChange = 1000, 500, 10
	n := newNode(t)
	var pods []pod
	for i := range 6 {
		pods = append(pods, n.web(fmt.Sprint("web", i)))
	}
	n.set(webService(ready(pods...)))
	must(t, n.proxy.Close())
	t.Cleanup(n.openProxy)
	stream, err := testhost.DialTCP("", netip.AddrPortFrom(vip4, 80))
	must(t, err)
	defer stream.Close()
	_, err = testhost.ReadAnswer(stream)
	must(t, err)

	h := n.startHolder(t, webService(ready(pods...)))
	if h.ready.Adopted == 0 || h.ready.Writes != 0 {
		t.Errorf("taking over adopted %d frontends and took %d map writes, want some and none", h.ready.Adopted, h.ready.Writes)
	}
	clients := startLoad(netip.AddrPortFrom(vip4, 80), perSecond)
	was := map[int]bool{0: true, 1: true, 2: true, 3: true, 4: true, 5: true}
	var writes uint64
	for i := range changes {
		testhost.Eventually(t, time.Minute, "clients connect", func() bool { return clients.done.Load() >= int64(i*connectionsPerChange) })
		// A window of one to five of the six pods, never at the same place twice in a row.
		var window []pod
		is := map[int]bool{}
		for j := range 1 + i*7%5 {
			is[(i+j)%len(pods)] = true
			window = append(window, pods[(i+j)%len(pods)])
		}
		differs := 0
		for j := range pods {
			if was[j] != is[j] {
				differs++
			}
		}
		// Four sets (two protocols, two families), each at most four writes for a backend that comes or goes, one for the head.
		limit := uint64(4 * (4*differs + 1))
		was = is
		s := webService(ready(window...))
		var made uint64
		if i%100 == 50 {
			must(t, h.send(s)) // and nobody waits for the answer
			h.kill(t)
			h = n.startHolder(t, s)
			made = h.ready.Writes
		} else {
			made = h.apply(t, s)
		}
		if writes += made; made > limit {
			t.Errorf("change %d of %d endpoints took %d map writes, want at most %d", i, differs, made, limit)
		}
	}
	connections := clients.end(t)
	t.Logf("%d map writes for %d changes", writes, changes)
	if connections < changes*(connectionsPerChange-1) {
		t.Errorf("only %d connections were made", connections)
	}
	must(t, stream.SetDeadline(time.Now().Add(3*time.Second)))
	_, err = stream.Write([]byte("still"))
	must(t, err)
	if _, err := stream.Read(make([]byte, 8)); err != nil {
		t.Errorf("the open connection broke: %v", err)
	}
	h.kill(t)
}

func TestResetLeavesNothing(t *testing.T) {
	n := newNode(t)
	web := n.web("web")
	n.set(webService(ready(web)))
	n.closeAll()
	must(t, services.Reset(n.host.BPFFSDir))
	if got, err := testhost.AskTCP("", netip.AddrPortFrom(vip4, 80)); err == nil {
		t.Errorf("still translated: %+v", got)
	}
	n.openProxy()
	n.openPods()
}

// An update that fails half way is not lost: the next one, even an empty one, carries out what is missing.
func TestFailedUpdateIsCarriedOutByTheNext(t *testing.T) {
	n := newNode(t)
	a, b := n.web("a"), n.web("b")
	n.set(webService(ready(a)))
	cancelled, cancel := context.WithCancel(context.Background())
	cancel()
	s := webService(ready(b))
	if err := n.proxy.Apply(cancelled, []services.Change{{Name: s.Name, Service: &s}}); err == nil {
		t.Fatal("an update that was cancelled succeeded")
	}
	got, err := testhost.AskTCP("", netip.AddrPortFrom(vip4, 80))
	if err != nil || got.Server != "a" {
		t.Errorf("after the failure: %+v, %v", got, err)
	}
	must(t, n.proxy.Apply(context.Background(), nil))
	got, err = testhost.AskTCP("", netip.AddrPortFrom(vip4, 80))
	if err != nil || got.Server != "b" {
		t.Errorf("after the next update: %+v, %v", got, err)
	}
	if failures := n.proxy.Stats().Failures; failures != 1 {
		t.Errorf("%d failures counted", failures)
	}
}
