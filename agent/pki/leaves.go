package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"net"
	"net/url"
	"slices"
	"sync"
	"time"

	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

// File names, without extension, of the agent's own certificates.
const (
	servingName       = "serving"
	nodeServingName   = "node-serving"
	peerName          = "peer"
	proxyClientName   = "front-proxy-client"
	kubeletClientName = "kubelet-client"
)

// leafSpec is what a certificate of the agent must be; another one is replaced.
type leafSpec struct {
	name      string
	authority *Authority
	request   request
}

// leaf is a certificate of the agent as it is. PKI.mu guards its fields.
type leaf struct {
	cert            *x509.Certificate
	certPEM, keyPEM []byte
	listeners       []dynamiccertificates.Listener
}

func (p *PKI) specs() []leafSpec {
	c := p.config
	server := []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	ips := append([]net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, c.NodeIPs...)
	apiIPs := ips
	if c.ServiceIP != nil {
		apiIPs = append(slices.Clone(ips), c.ServiceIP)
	}
	life, own := LeafLifetimeHours*time.Hour, p.cluster.own()
	peer := leafSpec{peerName, own, nodeRequest(NodeIdentity{Name: c.NodeName, ID: c.NodeID, IPs: c.NodeIPs, Replica: c.Sign == nil})}
	if c.Sign != nil {
		return []leafSpec{peer}
	}
	apiIPs = append(apiIPs, p.otherMembers()...)
	return []leafSpec{
		peer,
		{servingName, own, request{
			subject:  pkix.Name{CommonName: "podvine-api"},
			dnsNames: slices.Insert(apiNames(c.ClusterDomain), 1, c.NodeName), ips: apiIPs, usages: server, lifetime: life,
		}},
		{nodeServingName, own, request{
			subject:  pkix.Name{CommonName: NodeUserStart + c.NodeName, Organization: []string{NodesGroup}},
			dnsNames: []string{"localhost", c.NodeName}, ips: ips, usages: server, lifetime: life,
		}},
		{kubeletClientName, own, clientRequest(Identity{User: "system:kube-apiserver-kubelet-client", Groups: []string{"podvine:kubelet-api"}}, life)},
		{proxyClientName, p.frontProxy.own(), clientRequest(Identity{User: FrontProxyUser}, life)},
	}
}

// openLeaf loads path.pem, certificate and key in one file so that both change at once. An absent file is an empty leaf.
func openLeaf(path string) (*leaf, error) {
	content, err := readSecret(path + ".pem")
	if errors.Is(err, fs.ErrNotExist) {
		return &leaf{}, nil
	}
	if err != nil {
		return nil, err
	}
	certPEM, keyPEM := splitPEM(content)
	cert, err := parseCert(path+".pem", certPEM)
	if err != nil {
		return nil, err
	}
	key, err := parseKey(path+".pem", keyPEM)
	if err != nil {
		return nil, err
	}
	if err := matching(path+".pem", cert, key); err != nil {
		return nil, err
	}
	return &leaf{cert: cert, certPEM: certPEM, keyPEM: keyPEM}, nil
}

// mismatch says that the certificate is of another authority or for other names than wanted.
func (l *leaf) mismatch(spec leafSpec) bool {
	if l.cert.CheckSignatureFrom(spec.authority.cert) != nil || l.cert.Subject.CommonName != spec.request.subject.CommonName {
		return true
	}
	// A certificate holds groups as a set, in an order of its own.
	groups, wanted := slices.Sorted(slices.Values(l.cert.Subject.Organization)), slices.Sorted(slices.Values(spec.request.subject.Organization))
	if !slices.Equal(groups, wanted) || !slices.Equal(l.cert.DNSNames, spec.request.dnsNames) {
		return true
	}
	if !slices.EqualFunc(l.cert.URIs, spec.request.uris, func(a, b *url.URL) bool { return a.String() == b.String() }) {
		return true
	}
	return !slices.EqualFunc(l.cert.IPAddresses, spec.request.ips, net.IP.Equal)
}

func (l *leaf) save(path string) error {
	return writeFile(path+".pem", slices.Concat(l.certPEM, l.keyPEM), 0o600)
}

func (l *leaf) notBefore(mu *sync.RWMutex) time.Time {
	mu.RLock()
	defer mu.RUnlock()
	return l.cert.NotBefore
}

func (l *leaf) notAfter(mu *sync.RWMutex) time.Time {
	mu.RLock()
	defer mu.RUnlock()
	return l.cert.NotAfter
}

// RenewAt is when a certificate is due: after two thirds of its life. It is the whole decision, and pure.
func RenewAt(notBefore, notAfter time.Time) time.Time {
	return notBefore.Add(notAfter.Sub(notBefore) * 2 / 3)
}
