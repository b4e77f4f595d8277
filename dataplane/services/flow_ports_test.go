package services_test

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/podvine/podvine/dataplane/internal/testhost"
	"github.com/podvine/podvine/dataplane/services"
)

// scarce is how many source ports the tests below leave for translated flows.
const scarce = 20

// newScarceNode is a node with few ports for translated flows, and a machine outside that serves what it asks for.
func newScarceNode(t *testing.T) (*node, *testhost.Outside) {
	t.Helper()
	must(t, os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("1025 65515"), 0o600))
	t.Cleanup(func() {
		must(t, os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("32768 60999"), 0o600))
	})
	n := newTunedNode(t, func(c *services.Config) {
		c.Flows = services.FlowTimeouts{Closed: time.Second, Opening: time.Second, UDP: time.Second}
	})
	outside := testhost.NewOutside(t)
	var endpoints []services.Endpoint
	for _, a := range []string{testhost.OutsideIPv4, testhost.OutsideIPv6} {
		testhost.ServeTCP(t, outside.Netns, addrPort(a, 8282), "distant")
		testhost.ServeUDP(t, outside.Netns, addrPort(a, 8282), "distant")
		endpoints = append(endpoints, services.Endpoint{Addr: addrPort(a, 8282), Ready: true})
	}
	n.set(webService(endpoints))
	n.follow(outside, addrPort(testhost.HostIPv4, 30080))
	return n, outside
}

// dialAll opens connections from outside; every one must be answered.
func dialAll(t *testing.T, place string, to netip.AddrPort, count int) []net.Conn {
	t.Helper()
	var conns []net.Conn
	for i := range count {
		conn, err := testhost.DialTCP(place, to)
		if err != nil {
			t.Fatalf("connection %d to %s: %v", i, to, err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := testhost.ReadAnswer(conn); err != nil {
			t.Fatalf("answer %d from %s: %v", i, to, err)
		}
		conns = append(conns, conn)
	}
	return conns
}

func TestPortsOfEndedFlowsAreTakenOver(t *testing.T) {
	ends := map[string]func(net.Conn) error{
		"FIN": net.Conn.Close,
		"RST": func(c net.Conn) error {
			if err := c.(*net.TCPConn).SetLinger(0); err != nil {
				return err
			}
			return c.Close()
		},
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			n, outside := newScarceNode(t)
			for _, host := range []string{testhost.HostIPv4, testhost.HostIPv6} {
				to := addrPort(host, 30080)
				// More than there are ports, ten at a time.
				for range 6 {
					testhost.Eventually(t, 10*time.Second, "a port is free", func() bool {
						conn, err := testhost.DialTCP(outside.Place, to)
						if err == nil {
							err = end(conn)
						}
						return err == nil
					})
					before := n.proxy.Stats().Programs["flow_opened"]
					for range 10 {
						conn, err := testhost.DialTCP(outside.Place, to)
						must(t, err)
						must(t, end(conn))
					}
					if opened := n.proxy.Stats().Programs["flow_opened"] - before; opened < 10 {
						t.Errorf("%d flows were opened for 10 connections", opened)
					}
				}
			}
			if n.proxy.Stats().Programs["flow_reclaimed"] == 0 {
				t.Error("no port was taken over")
			}
			testhost.Eventually(t, 10*time.Second, "all flows are swept", func() bool {
				must(t, n.proxy.Sweep())
				return n.proxy.Stats().Flows == 0
			})
		})
	}
}

func TestExhaustedPortsAreCountedAndComeBack(t *testing.T) {
	n, outside := newScarceNode(t)
	to := addrPort(testhost.HostIPv4, 30080)
	testhost.Eventually(t, 10*time.Second, "the first flow is over", func() bool {
		must(t, n.proxy.Sweep())
		return n.proxy.Stats().Flows == 0
	})
	var conns []net.Conn
	testhost.Eventually(t, 30*time.Second, "ports are exhausted", func() bool {
		conn, err := testhost.DialTCP(outside.Place, to)
		if err == nil {
			t.Cleanup(func() { _ = conn.Close() })
			conns = append(conns, conn)
		}
		return n.proxy.Stats().Programs["flow_exhausted"] > 0
	})
	if len(conns) < scarce/2 || len(conns) > scarce {
		t.Errorf("%d connections before the %d ports were exhausted", len(conns), scarce)
	}
	// Flows at work keep their ports, however long the rest has to wait.
	for i, conn := range conns {
		if _, err := testhost.ReadAnswer(conn); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	for _, conn := range conns {
		must(t, conn.Close())
	}
	testhost.Eventually(t, 10*time.Second, "the ports are free again", func() bool {
		_, err := testhost.AskTCP(outside.Place, to)
		return err == nil
	})
}

func TestSilentDatagramFlowsAreReleased(t *testing.T) {
	n, outside := newScarceNode(t)
	for _, host := range []string{testhost.HostIPv4, testhost.HostIPv6} {
		for range 3 * scarce {
			testhost.Eventually(t, 10*time.Second, "a port is free", func() bool {
				got, err := testhost.AskUDP(outside.Place, addrPort(host, 30080))
				return err == nil && got.Server == "distant"
			})
		}
	}
	testhost.Eventually(t, 10*time.Second, "all flows are swept", func() bool {
		must(t, n.proxy.Sweep())
		return n.proxy.Stats().Flows == 0
	})
}
