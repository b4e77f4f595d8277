package preflight

import (
	"strings"

	"github.com/podvine/podvine/dataplane/tunnel"
)

// tunnelLinks tells by what pods of different nodes reach each other here. What the kernel lacks has a fallback, as long as
// there is one of the three.
func tunnelLinks(found tunnel.Capabilities) Finding {
	const name = "tunnel"
	var detail []string
	switch {
	case found.KernelWireGuard == nil:
		detail = append(detail, "WireGuard in the kernel")
	case found.TUN == nil:
		detail = append(detail, "WireGuard in user space, since the kernel has none")
	default:
		detail = append(detail, "no WireGuard: the kernel has none, and no TUN links for the one in user space ("+found.TUN.Error()+")")
	}
	if found.VXLAN == nil {
		detail = append(detail, "VXLAN")
	} else {
		detail = append(detail, "no VXLAN")
	}
	finding := Finding{name, OK, strings.Join(detail, "; "), ""}
	if found.KernelWireGuard != nil && found.TUN != nil {
		finding.Severity, finding.Advice = Warning, "run a kernel with CONFIG_WIREGUARD or CONFIG_TUN, or set the tunnel to vxlan or direct"
	}
	return finding
}
