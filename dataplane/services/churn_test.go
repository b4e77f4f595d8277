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

// load connects at a fixed rate until it is stopped.
type load struct {
	done     atomic.Int64
	failures atomic.Int64
	first    atomic.Pointer[error]
	stop     chan struct{}
	group    sync.WaitGroup
}

func startLoad(to netip.AddrPort, perSecond int) *load {
	l := &load{stop: make(chan struct{})}
	l.group.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for {
			select {
			case <-l.stop:
				return
			case <-tick.C:
			}
			l.group.Go(func() { l.once(to) })
		}
	})
	return l
}

func (l *load) once(to netip.AddrPort) {
	conn, err := net.DialTimeout("tcp", to.String(), 5*time.Second)
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
	if n := l.failures.Load(); n > 0 {
		t.Errorf("%d of %d connections failed, the first with: %v", n, l.done.Load(), *l.first.Load())
	}
	return l.done.Load()
}

func TestNoConnectionFailsDuringChangesAndRestarts(t *testing.T) {
	const perSecond, changes, limit = 1000, 500, 2 * time.Millisecond
	n := newNode(t)
	var pods []pod
	for i := range 6 {
		pods = append(pods, n.web(fmt.Sprint("web", i)))
	}
	n.set(webService(ready(pods...)))
	stream, err := testhost.DialTCP("", netip.AddrPortFrom(vip4, 80))
	must(t, err)
	defer stream.Close()
	_, err = testhost.ReadAnswer(stream)
	must(t, err)

	clients := startLoad(netip.AddrPortFrom(vip4, 80), perSecond)
	pace := time.NewTicker(limit)
	defer pace.Stop()
	var writes, most uint64
	for i := range changes {
		<-pace.C
		// A window of one to five of the six pods, never at the same place twice in a row.
		var window []pod
		for j := range 1 + i*7%5 {
			window = append(window, pods[(i+j)%len(pods)])
		}
		before := n.proxy.Stats().Writes
		s := webService(ready(window...))
		must(t, n.proxy.Apply(context.Background(), []services.Change{{Name: s.Name, Service: &s}}))
		made := n.proxy.Stats().Writes - before
		writes, most = writes+made, max(most, made)
		if i%100 == 50 {
			n.restartProxy(t, s)
		}
	}
	connections := clients.end(t)
	t.Logf("%d connections, %d map writes for %d changes, at most %d for one", connections, writes, changes, most)
	// Four sets (two protocols, two families), each at most: 5 go and 5 come (4 writes a backend), one head.
	if limit := uint64(4 * (10*4 + 1)); most > limit {
		t.Errorf("%d writes for one change, want at most %d", most, limit)
	}
	if connections < changes {
		t.Errorf("only %d connections were made", connections)
	}
	must(t, stream.SetDeadline(time.Now().Add(3*time.Second)))
	_, err = stream.Write([]byte("still"))
	must(t, err)
	if _, err := stream.Read(make([]byte, 8)); err != nil {
		t.Errorf("the open connection broke: %v", err)
	}
}

// restartProxy is another agent taking over; it finds everything at work and has nothing to write.
func (n *node) restartProxy(t *testing.T, served services.Service) {
	t.Helper()
	must(t, n.proxy.Close())
	n.openProxy()
	if n.proxy.Stats().Adopted == 0 {
		t.Error("nothing was adopted")
	}
	n.set(served)
	if made := n.proxy.Stats().Writes; made != 0 {
		t.Errorf("taking over took %d map writes, want none", made)
	}
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
