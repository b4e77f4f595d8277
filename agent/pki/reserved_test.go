package pki

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestNoNodePassesForTheAPI holds that nothing is certified for another node with which clients would take it for the API.
func TestNoNodePassesForTheAPI(t *testing.T) {
	founder, err := Open(Config{
		Dir: t.TempDir(), NodeName: "a", NodeID: "id-a", ServiceIP: net.IPv4(10, 96, 0, 1),
		Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("fd00::/108")},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, address, reason string }{
		{"b", "192.0.2.2", ""},
		{"b.example.com", "2001:db8::2", ""},
		{"localhost", "192.0.2.2", "the API's"},
		{"kubernetes", "192.0.2.2", "the API's"},
		{"kubernetes.default", "192.0.2.2", "the API's"},
		{"kubernetes.default.svc", "192.0.2.2", "the API's"},
		{"Kubernetes.Default.SVC", "192.0.2.2", "the API's"},
		{"kubernetes.default.svc.cluster.local", "192.0.2.2", "the API's"},
		{"shop.default.svc", "192.0.2.2", "a service's"},
		{"b.cluster.local", "192.0.2.2", "a service's"},
		{"b", "10.96.0.1", "the range of pods or services"},
		{"b", "::ffff:10.96.0.1", "the range of pods or services"},
		{"b", "10.244.3.4", "the range of pods or services"},
		{"b", "fd00::1", "the range of pods or services"},
		{"b", "127.0.0.1", "not a machine's alone"},
		{"b", "::1", "not a machine's alone"},
		{"b", "0.0.0.0", "not a machine's alone"},
		{"b", "224.0.0.1", "not a machine's alone"},
		{"b", "169.254.169.254", "not a machine's alone"},
	} {
		t.Run(c.name+" "+c.address, func(t *testing.T) {
			request, _, err := NewRequest()
			if err != nil {
				t.Fatal(err)
			}
			signed, err := founder.SignNode(NodeIdentity{Name: c.name, ID: "id-b", IPs: []net.IP{net.ParseIP(c.address)}}, request, time.Now())
			switch {
			case c.reason == "" && err != nil:
				t.Errorf("it is refused: %v", err)
			case c.reason == "":
				certificate, err := parseCert("b", signed)
				if err != nil || certificate.VerifyHostname(c.name) != nil || certificate.VerifyHostname(APIServerName) == nil {
					t.Errorf("it is certified as %+v, %v", certificate, err)
				}
			case c.reason != "" && err == nil:
				t.Error("it is certified")
			case c.reason != "" && !strings.Contains(err.Error(), c.reason):
				t.Errorf("it is refused for another reason: %v", err)
			}
		})
	}
}
