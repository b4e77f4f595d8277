package services_test

import (
	"net/netip"
	"testing"

	"github.com/podvine/podvine/dataplane/internal/testhost"
)

func TestLoadBalancerSourceRanges(t *testing.T) {
	n := newNode(t)
	outside := testhost.NewOutside(t)
	web, client := n.web("web"), n.pod("client")
	lb4, lb6 := netip.MustParseAddr("192.0.2.77"), netip.MustParseAddr("2001:db8::77")
	testhost.Route(t, outside.Netns, lb4.String()+"/32", testhost.HostIPv4)
	testhost.Route(t, outside.Netns, lb6.String()+"/128", testhost.HostIPv6)
	serve := func(ranges ...string) {
		t.Helper()
		s := webService(ready(web))
		s.LoadBalancerIPs = []netip.Addr{lb4, lb6}
		for _, r := range ranges {
			s.Sources = append(s.Sources, netip.MustParsePrefix(r))
		}
		n.set(s)
	}
	expect := func(what, place string, allowed bool) {
		t.Helper()
		for _, lb := range []netip.Addr{lb4, lb6} {
			for protocol, ask := range asks {
				got, err := ask(place, netip.AddrPortFrom(lb, 80))
				if allowed && (err != nil || got.Server != "web") {
					t.Errorf("%s over %s to %s: %+v, %v", what, protocol, lb, got, err)
				}
				if !allowed && err == nil {
					t.Errorf("%s over %s to %s was let in: %+v", what, protocol, lb, got)
				}
			}
		}
	}
	serve()
	n.follow(outside, netip.AddrPortFrom(lb4, 80))
	for what, place := range map[string]string{"outside": outside.Place, "host": "", "pod": client.netns} {
		expect(what+", no ranges", place, true)
	}
	serve(testhost.OutsideIPv4+"/32", testhost.OutsideIPv6+"/128")
	expect("outside, listed", outside.Place, true)
	expect("host, not listed", "", false)
	expect("pod, not listed", client.netns, false)
	if got := n.proxy.Stats().Programs["source_denied"]; got == 0 {
		t.Error("nothing was counted")
	}
	// Other addresses of the service are not concerned.
	if got, err := testhost.AskTCP(client.netns, netip.AddrPortFrom(vip4, 80)); err != nil || got.Server != "web" {
		t.Errorf("the cluster's address: %+v, %v", got, err)
	}
	serve(testhost.HostIPv4+"/32", testhost.HostIPv6+"/128", "10.244.0.0/16", "fd00:10:244::/48")
	expect("outside, not listed any more", outside.Place, false)
	expect("host, listed", "", true)
	expect("pod, listed", client.netns, true)
	if got, err := testhost.AskTCP(outside.Place, addrPort(testhost.HostIPv4, 30080)); err != nil || got.Server != "web" {
		t.Errorf("the node port: %+v, %v", got, err)
	}
	// Adopted as it is.
	n.restartProxy(t, withSources(webService(ready(web)), []netip.Addr{lb4, lb6}, testhost.HostIPv4+"/32", testhost.HostIPv6+"/128", "10.244.0.0/16", "fd00:10:244::/48"))
	serve()
	expect("outside, no ranges again", outside.Place, true)
}
