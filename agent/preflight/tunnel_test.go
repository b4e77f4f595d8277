package preflight

import (
	"errors"
	"strings"
	"testing"

	"github.com/podvine/podvine/dataplane/tunnel"
)

func TestTunnelNamesTheFallback(t *testing.T) {
	lacks := errors.New("not supported")
	for want, c := range map[string]struct {
		found    tunnel.Capabilities
		severity Severity
	}{
		"WireGuard in the kernel; VXLAN":      {tunnel.Capabilities{}, OK},
		"WireGuard in user space":             {tunnel.Capabilities{KernelWireGuard: lacks}, OK},
		"no TUN links":                        {tunnel.Capabilities{KernelWireGuard: lacks, TUN: lacks}, Warning},
		"WireGuard in the kernel; no VXLAN":   {tunnel.Capabilities{VXLAN: lacks}, OK},
		"since the kernel has none; no VXLAN": {tunnel.Capabilities{KernelWireGuard: lacks, VXLAN: lacks}, OK},
	} {
		got := tunnelLinks(c.found)
		if !strings.Contains(got.Detail, want) || got.Severity != c.severity || (got.Advice == "") != (got.Severity == OK) {
			t.Errorf("%+v is told as %+v, want %q", c.found, got, want)
		}
	}
}
