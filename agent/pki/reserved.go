package pki

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// APIServerName is in the certificate of every replica's API, and in no certificate that is signed for another node. By it,
// and not by an address, clients tell the API from a node: members serve the API under addresses that nodes have, too.
const APIServerName = "kubernetes.default.svc"

// apiNames are the names under which the API is served.
func apiNames(clusterDomain string) []string {
	return []string{"localhost", "kubernetes", "kubernetes.default", APIServerName, APIServerName + "." + clusterDomain}
}

// CheckNode reports what keeps the node from being certified: a name or an address with which it could pass for the API, or for
// a service. Addresses that the kubelet refuses as a node's are refused, too.
func (p *PKI) CheckNode(node NodeIdentity) error {
	name, domain := strings.ToLower(node.Name), p.config.ClusterDomain
	if slices.Contains(apiNames(domain), name) || strings.HasSuffix(name, ".svc") || strings.HasSuffix(name, "."+domain) {
		return fmt.Errorf("no node may have the name %s, which is the API's or a service's", node.Name)
	}
	for _, ip := range node.IPs {
		address, ok := netip.AddrFromSlice(ip)
		if !ok {
			return fmt.Errorf("node %s names no address", node.Name)
		}
		address = address.Unmap()
		switch {
		case address.IsLoopback(), address.IsUnspecified(), address.IsMulticast(), address.IsLinkLocalUnicast():
			return fmt.Errorf("no node may have the address %s, which is not a machine's alone", address)
		case slices.ContainsFunc(p.config.Ranges, func(r netip.Prefix) bool { return r.Contains(address) }):
			return fmt.Errorf("no node may have the address %s, which is in the range of pods or services", address)
		}
	}
	return nil
}
