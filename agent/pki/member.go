package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	clusterCAName    = "cluster-ca"
	frontProxyCAName = "front-proxy-ca"
	// The names in their certificates.
	clusterAuthority    = "podvine-cluster-ca"
	frontProxyAuthority = "podvine-front-proxy-ca"
	tokenFolder         = "tokens"

	requestBlock = "CERTIFICATE REQUEST"
	// ReplicasGroup is in the certificate of a replica. Only a replica can have one, because it signs its own: a node that
	// joins is certified without it.
	ReplicasGroup = "podvine:replicas"
	// idScheme starts the URI by which a certificate names a node's UUID.
	idScheme = "urn:uuid:"
)

// NodeIdentity is what a node's certificate says.
type NodeIdentity struct {
	Name string
	// ID is the node's UUID.
	ID  string
	IPs []net.IP
	// Replica says that the node holds a replica of the store, and with it the keys of the cluster.
	Replica bool
}

// nodeRequest is the certificate with which a node speaks to its peers, serves its kubelet API and, where it is no
// replica, asks the API.
func nodeRequest(node NodeIdentity) request {
	r := request{
		subject:  pkix.Name{CommonName: NodeUserStart + node.Name, Organization: []string{NodesGroup}},
		dnsNames: []string{"localhost", node.Name},
		ips:      append([]net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, node.IPs...),
		usages:   []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		lifetime: LeafLifetimeHours * time.Hour,
	}
	if node.Replica {
		r.subject.Organization = []string{ReplicasGroup, NodesGroup}
	}
	if node.ID != "" {
		r.uris = []*url.URL{{Scheme: "urn", Opaque: strings.TrimPrefix(idScheme, "urn:") + node.ID}}
	}
	return r
}

// NodeOf reads who a peer is from its verified certificate.
func NodeOf(cert *x509.Certificate) (NodeIdentity, error) {
	name, isNode := strings.CutPrefix(cert.Subject.CommonName, NodeUserStart)
	if !isNode || !slices.Contains(cert.Subject.Organization, NodesGroup) {
		return NodeIdentity{}, fmt.Errorf("identify peer: the certificate of %q is not a node's", cert.Subject.CommonName)
	}
	for _, uri := range cert.URIs {
		if id, found := strings.CutPrefix(uri.String(), idScheme); found {
			return NodeIdentity{Name: name, ID: id, IPs: cert.IPAddresses, Replica: slices.Contains(cert.Subject.Organization, ReplicasGroup)}, nil
		}
	}
	return NodeIdentity{}, fmt.Errorf("identify peer: the certificate of node %s names no node ID", name)
}

// Peer is the certificate with which this node speaks to its peers.
func (p *PKI) Peer() *CertKey { return &CertKey{pki: p, name: peerName} }

// NewRequest makes a key and a request to certify it, both in PEM. What the certificate says is the signer's to decide.
func NewRequest() (requestPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("make certificate request: %w", err)
	}
	keyPEM, err = encodeKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: requestBlock, Bytes: der}), keyPEM, err
}

// SignNode certifies the key of a request for another node that passes [PKI.CheckNode]. It never makes a replica of it.
func (p *PKI) SignNode(node NodeIdentity, requestPEM []byte, now time.Time) ([]byte, error) {
	authority := p.cluster.own()
	if authority.key == nil {
		return nil, errors.New("sign certificate: this node is no replica and holds no key of the cluster")
	}
	block, _ := pem.Decode(requestPEM)
	if block == nil || block.Type != requestBlock {
		return nil, errors.New("sign certificate: there is no certificate request in PEM")
	}
	asked, err := x509.ParseCertificateRequest(block.Bytes)
	if err == nil {
		err = asked.CheckSignature()
	}
	if err != nil {
		return nil, fmt.Errorf("sign certificate: read the request: %w", err)
	}
	if err := p.CheckNode(node); err != nil {
		return nil, fmt.Errorf("sign certificate: %w", err)
	}
	node.Replica = false
	der, err := authority.sign(asked.PublicKey, nodeRequest(node), now)
	if err != nil {
		return nil, err
	}
	p.config.Log.Info("issued node certificate", "node", node.Name)
	return encodeCert(der), nil
}

// enrol has another node sign the leaf.
func (s leafSpec) enrol(sign func([]byte) ([]byte, error)) (*leaf, error) {
	requestPEM, keyPEM, err := NewRequest()
	if err != nil {
		return nil, err
	}
	certPEM, err := sign(requestPEM)
	if err != nil {
		return nil, err
	}
	cert, err := parseCert(s.name, certPEM)
	if err != nil {
		return nil, err
	}
	if err := cert.CheckSignatureFrom(s.authority.cert); err != nil {
		return nil, fmt.Errorf("the replica has signed with another key than that of authority %s: %w", shortID(s.authority.ID()), err)
	}
	return &leaf{cert: cert, certPEM: certPEM, keyPEM: keyPEM}, nil
}

// Enrol puts into an empty key folder what a node that joins has got.
func Enrol(dir string, caPEM, certPEM, keyPEM []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make key folder: %w", err)
	}
	if err := writeFile(filepath.Join(dir, clusterCAName+".crt"), caPEM, 0o644); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, peerName+".pem"), slices.Concat(certPEM, keyPEM), 0o600)
}

// OnDisk reads the cluster's CA and this node's certificate for peers from a key folder, and makes nothing.
func OnDisk(dir string) (*x509.CertPool, *tls.Certificate, error) {
	authority, err := openTrusted(filepath.Join(dir, clusterCAName), clusterCAName, time.Now())
	if err != nil {
		return nil, nil, err
	}
	file := filepath.Join(dir, peerName+".pem")
	certificate, err := tls.LoadX509KeyPair(file, file)
	if err != nil {
		return nil, nil, fmt.Errorf("load %s: %w", file, err)
	}
	return authority.Pool(), &certificate, nil
}

// SetMemberIPs has the API's serving certificate cover the addresses of all members, because a replica serves what comes
// in through an edge. It reports whether the certificate is issued anew.
func (p *PKI) SetMemberIPs(ips []net.IP, now time.Time) (bool, error) {
	sorted := slices.SortedFunc(slices.Values(ips), func(a, b net.IP) int { return strings.Compare(a.String(), b.String()) })
	p.mu.Lock()
	same := slices.EqualFunc(p.config.MemberIPs, sorted, net.IP.Equal)
	p.config.MemberIPs = sorted
	p.mu.Unlock()
	if same {
		return false, nil
	}
	_, err := p.Renew(now)
	return true, err
}

// otherMembers are the addresses of members that are not this node's own.
func (p *PKI) otherMembers() []net.IP {
	p.mu.RLock()
	defer p.mu.RUnlock()
	var others []net.IP
	for _, ip := range p.config.MemberIPs {
		if !slices.ContainsFunc(p.config.NodeIPs, ip.Equal) {
			others = append(others, ip)
		}
	}
	return others
}
