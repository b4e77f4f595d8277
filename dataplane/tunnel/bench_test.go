package tunnel_test

import (
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/podvine/podvine/dataplane/internal/nsrun"
	"github.com/podvine/podvine/dataplane/internal/testhost"
	"github.com/podvine/podvine/dataplane/tunnel"
)

// BenchmarkPath measures one TCP stream and the round trip of a byte from pod to pod: on one node, which is the plain link
// pair, and between two nodes in each mode. Both ends and whatever encrypts share the machine's cores.
func BenchmarkPath(b *testing.B) {
	for _, mode := range []tunnel.Mode{"", tunnel.Direct, tunnel.VXLAN, tunnel.WireGuard} {
		name := string(mode)
		if mode == "" {
			name = "one-node"
		}
		b.Run(name, func(b *testing.B) {
			from, to := benchPods(b, mode)
			from.host.expect(from.netns, at(to.v4), to.name, from.v4)
			stream := streamTo(b, from, to)
			conn, err := testhost.DialTCP(from.netns, at(to.v4))
			must(b, err)
			defer conn.Close()
			_, err = testhost.ReadAnswer(conn)
			must(b, err)
			must(b, conn.SetDeadline(time.Time{}))
			var trips []time.Duration
			sent := int64(0)
			begun := time.Now()
			chunk := make([]byte, 1<<18)
			for b.Loop() {
				n, err := stream.Write(chunk)
				must(b, err)
				sent += int64(n)
			}
			took := time.Since(begun)
			for range 2000 {
				start := time.Now()
				_, err := conn.Write(chunk[:1])
				must(b, err)
				_, err = io.ReadFull(conn, make([]byte, 1))
				must(b, err)
				trips = append(trips, time.Since(start))
			}
			slices.Sort(trips)
			b.ReportMetric(float64(sent)*8/took.Seconds()/1e9, "Gbit/s")
			b.ReportMetric(float64(trips[len(trips)/2].Microseconds()), "µs/round-trip-p50")
			b.ReportMetric(float64(trips[len(trips)*99/100].Microseconds()), "µs/round-trip-p99")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// benchPods are on one node for no mode, and else on two.
func benchPods(b *testing.B, mode tunnel.Mode) (from, to pod) {
	b.Helper()
	if mode == "" {
		h := newMesh(b, tunnel.Direct, 1, outer4).hosts[0]
		return h.pod("client"), h.web("server")
	}
	m := newMesh(b, mode, 2, outer4)
	return m.hosts[0].pod("client"), m.hosts[1].web("server")
}

// streamTo connects to a server in the pod that reads and forgets.
func streamTo(b *testing.B, from, to pod) net.Conn {
	b.Helper()
	address := netip.AddrPortFrom(to.v4, 9090)
	var listener net.Listener
	must(b, nsrun.In(to.netns, func() (err error) {
		listener, err = net.Listen("tcp", address.String())
		return err
	}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{conn}, make([]byte, 1<<18)) // till the client closes
	}()
	conn, err := testhost.DialTCP(from.netns, address)
	must(b, err)
	b.Cleanup(func() {
		must(b, conn.Close())
		<-done
		must(b, listener.Close())
	})
	return conn
}
