package kinds

import (
	"net"

	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// ValidateRoutable refuses an address that no other host can be asked at: a service that led there would reach into the node itself, or
// nowhere. text is as the user wrote it.
func ValidateRoutable(text string, at *field.Path) field.ErrorList {
	ip := netutils.ParseIPSloppy(text)
	if ip == nil {
		return field.ErrorList{field.Invalid(at, text, "must be a valid IP address")}
	}
	var errs field.ErrorList
	for _, k := range []struct {
		is      func(net.IP) bool
		message string
	}{
		{net.IP.IsUnspecified, "may not be unspecified (" + text + ")"},
		{net.IP.IsLoopback, "may not be in the loopback range (127.0.0.0/8, ::1/128)"},
		{net.IP.IsLinkLocalUnicast, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"},
		{net.IP.IsLinkLocalMulticast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"},
	} {
		if k.is(ip) {
			errs = append(errs, field.Invalid(at, text, k.message))
		}
	}
	return errs
}
