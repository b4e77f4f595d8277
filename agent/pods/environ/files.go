package environ

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// HostsFile is the pod's /etc/hosts. Pods on the host's network pass the
// host's own file as host; others pass "".
func HostsFile(f Facts, hostname, domain, host string) string {
	var b strings.Builder
	if host != "" {
		b.WriteString("# Kubernetes-managed hosts file (host network).\n")
		b.WriteString(host)
	} else {
		b.WriteString("# Kubernetes-managed hosts file.\n")
		b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n")
		b.WriteString("fe00::\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n")
		for _, ip := range f.PodIPs {
			if fqdn := FQDN(f.Pod, hostname, domain); fqdn != "" {
				fmt.Fprintf(&b, "%s\t%s\t%s\n", ip, fqdn, hostname)
			} else {
				fmt.Fprintf(&b, "%s\t%s\n", ip, hostname)
			}
		}
	}
	if len(f.Pod.Spec.HostAliases) > 0 {
		b.WriteString("\n# Entries added by HostAliases.\n")
		for _, a := range f.Pod.Spec.HostAliases {
			fmt.Fprintf(&b, "%s\t%s\n", a.IP, strings.Join(a.Hostnames, "\t"))
		}
	}
	return b.String()
}

// FQDN is the pod's name in the cluster's DNS; "" without a subdomain.
func FQDN(pod *corev1.Pod, hostname, domain string) string {
	if pod.Spec.Subdomain == "" {
		return ""
	}
	return fmt.Sprintf("%s.%s.%s.svc.%s", hostname, pod.Spec.Subdomain, pod.Namespace, domain)
}

// Resolver is the content of a resolv.conf.
type Resolver struct {
	Servers, Searches, Options []string
}

// The limits of a resolv.conf.
const (
	maxServers     = 3
	maxSearches    = 32
	maxSearchChars = 2048
)

// ParseResolver reads a resolv.conf.
func ParseResolver(text string) Resolver {
	var r Resolver
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			r.Servers = append(r.Servers, f[1])
		case "search":
			r.Searches = f[1:]
		case "options":
			r.Options = append(r.Options, f[1:]...)
		}
	}
	return r
}

// Resolve works out the pod's resolver from its policy, the cluster's DNS
// (servers, domain) and the host's.
func Resolve(pod *corev1.Pod, servers []string, domain string, host Resolver) Resolver {
	policy := pod.Spec.DNSPolicy
	if policy == corev1.DNSClusterFirst && pod.Spec.HostNetwork {
		policy = corev1.DNSDefault
	}
	if len(servers) == 0 && policy != corev1.DNSNone {
		policy = corev1.DNSDefault
	}
	var r Resolver
	switch policy {
	case corev1.DNSNone:
	case corev1.DNSDefault:
		r = Resolver{slices.Clone(host.Servers), slices.Clone(host.Searches), slices.Clone(host.Options)}
	default:
		r.Servers = slices.Clone(servers)
		r.Searches = append([]string{pod.Namespace + ".svc." + domain, "svc." + domain, domain}, host.Searches...)
		r.Options = []string{"ndots:5"}
	}
	if c := pod.Spec.DNSConfig; c != nil {
		r.Servers = append(r.Servers, c.Nameservers...)
		r.Searches = append(r.Searches, c.Searches...)
		for _, o := range c.Options {
			r.Options = mergeOption(r.Options, o)
		}
	}
	r.Servers, r.Searches = dedupe(r.Servers), dedupe(r.Searches)
	r.Servers = r.Servers[:min(len(r.Servers), maxServers)]
	r.Searches = r.Searches[:min(len(r.Searches), maxSearches)]
	for len(strings.Join(r.Searches, " ")) > maxSearchChars {
		r.Searches = r.Searches[:len(r.Searches)-1]
	}
	return r
}

func mergeOption(opts []string, o corev1.PodDNSConfigOption) []string {
	text := o.Name
	if o.Value != nil && *o.Value != "" {
		text += ":" + *o.Value
	}
	for i, have := range opts {
		if name, _, _ := strings.Cut(have, ":"); name == o.Name {
			opts[i] = text
			return opts
		}
	}
	return append(opts, text)
}

func dedupe(in []string) []string {
	var out []string
	for _, s := range in {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// String is the file's text.
func (r Resolver) String() string {
	var b strings.Builder
	if len(r.Searches) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(r.Searches, " "))
	}
	for _, s := range r.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(r.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(r.Options, " "))
	}
	return b.String()
}
