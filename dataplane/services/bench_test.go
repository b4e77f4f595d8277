package services_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/podvine/podvine/dataplane/internal/testhost"
	"github.com/podvine/podvine/dataplane/services"
)

// BenchmarkConnect compares connecting to a pod's address with connecting to its service, alone and among many: TCP from
// the host. The two alternate, and medians are reported, so that what else the machine does falls on both alike.
func BenchmarkConnect(b *testing.B) {
	n := newNode(b)
	web := n.web("web")
	for _, count := range []int{1, 1000, 30_000} {
		n.set(append(crowd(count-1), webService(ready(web)))...)
		b.Run(fmt.Sprintf("services=%d", count), func(b *testing.B) {
			compare(b, "connect", func(to netip.AddrPort) time.Duration { return connect(b, to) },
				netip.AddrPortFrom(web.v4, 8080), netip.AddrPortFrom(vip4, 80))
		})
	}
}

// BenchmarkEcho compares sending 64 KiB there and back over a connection to a pod's address and over one to its service, alone
// and among many.
func BenchmarkEcho(b *testing.B) {
	n := newNode(b)
	web := n.web("web")
	pod, service := netip.AddrPortFrom(web.v4, 8080), netip.AddrPortFrom(vip4, 80)
	for _, count := range []int{1, 1000, 30_000} {
		n.set(append(crowd(count-1), webService(ready(web)))...)
		b.Run(fmt.Sprintf("services=%d", count), func(b *testing.B) {
			conns := map[netip.AddrPort]net.Conn{}
			for _, to := range []netip.AddrPort{pod, service} {
				conn, err := testhost.DialTCP("", to)
				must(b, err)
				defer conn.Close()
				_, err = testhost.ReadAnswer(conn)
				must(b, err)
				must(b, conn.SetDeadline(time.Time{}))
				conns[to] = conn
			}
			compare(b, "echo", func(to netip.AddrPort) time.Duration { return echo(b, conns[to]) }, pod, service)
		})
	}
}

// compare alternates between the pod and the service and reports the medians.
func compare(b *testing.B, what string, once func(netip.AddrPort) time.Duration, pod, service netip.AddrPort) {
	var direct, translated []time.Duration
	for b.Loop() {
		direct = append(direct, once(pod))
		translated = append(translated, once(service))
	}
	slices.Sort(direct)
	slices.Sort(translated)
	p, s := direct[len(direct)/2], translated[len(translated)/2]
	b.ReportMetric(float64(p.Nanoseconds()), "ns/pod-"+what)
	b.ReportMetric(float64(s.Nanoseconds()), "ns/service-"+what)
	b.ReportMetric(float64((s - p).Nanoseconds()), "ns/difference")
	b.ReportMetric(0, "ns/op")
}

func connect(b *testing.B, to netip.AddrPort) time.Duration {
	address := net.TCPAddrFromAddrPort(to)
	start := time.Now()
	conn, err := net.DialTCP("tcp", nil, address)
	took := time.Since(start)
	if err != nil {
		b.Fatal(err)
	}
	// A reset instead of TIME_WAIT, or the ports of a long run would run out.
	if err := conn.SetLinger(0); err != nil {
		b.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		b.Fatal(err)
	}
	return took
}

func echo(b *testing.B, conn net.Conn) time.Duration {
	const size = 1 << 16
	buffer := make([]byte, size)
	start := time.Now()
	if _, err := conn.Write(buffer); err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadFull(conn, buffer); err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}

// BenchmarkSet measures the first full state of 1,000 services with two endpoints each.
func BenchmarkSet(b *testing.B) {
	n := newNode(b)
	all := crowd(1000)
	for b.Loop() {
		n.set(all...)
		b.StopTimer()
		n.set()
		b.StartTimer()
	}
}

// crowd makes other services, each with two endpoints.
func crowd(count int) []services.Service {
	out := make([]services.Service, 0, count)
	for i := range count {
		high, low := byte(i>>8), byte(i)
		var endpoints []services.Endpoint
		for j := range 2 {
			addr := netip.AddrFrom4([4]byte{10, 250 + byte(j), high, low})
			endpoints = append(endpoints, services.Endpoint{Addr: netip.AddrPortFrom(addr, 8080), Ready: true})
		}
		out = append(out, services.Service{
			Name: fmt.Sprintf("crowd/%d", i), ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 97, high, low})},
			Ports: []services.Port{{Protocol: services.TCP, Port: 80, Endpoints: endpoints}},
		})
	}
	return out
}
