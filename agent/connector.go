package agent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/podvine/podvine/agent/api/kinds"
)

// nodeDialTimeout bounds the wait for a node's kubelet API to accept a connection.
const nodeDialTimeout = 10 * time.Second

// nodeConnector reaches the kubelet API of nodes at the address and port that their Node objects name.
type nodeConnector struct {
	nodes              func() corelisters.NodeLister
	verified, insecure *http.Transport
}

// newNodeConnector speaks as the API server: with the client certificate that certificate returns, to nodes whose serving
// certificate is of one of the authorities. Both are asked for each connection.
func newNodeConnector(nodes func() corelisters.NodeLister, authorities func() *x509.CertPool, certificate func() (*tls.Certificate, error)) *nodeConnector {
	transport := func(config *tls.Config) *http.Transport {
		config.MinVersion = tls.VersionTLS12
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate() }
		dialer := &net.Dialer{Timeout: nodeDialTimeout}
		return &http.Transport{TLSClientConfig: config, DialContext: dialer.DialContext, TLSHandshakeTimeout: nodeDialTimeout, MaxIdleConnsPerHost: 4}
	}
	return &nodeConnector{
		nodes:    nodes,
		verified: transport(verifying(authorities)),
		insecure: transport(&tls.Config{InsecureSkipVerify: true}), //nolint:gosec // what the user asks for by name
	}
}

// verifying is the TLS configuration of a client that trusts whom authorities returns when it connects.
func verifying(authorities func() *x509.CertPool) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does the same, with the authorities of now
		VerifyConnection: func(state tls.ConnectionState) error {
			options := x509.VerifyOptions{DNSName: state.ServerName, Roots: authorities(), Intermediates: x509.NewCertPool()}
			for _, cert := range state.PeerCertificates[1:] {
				options.Intermediates.AddCert(cert)
			}
			if _, err := state.PeerCertificates[0].Verify(options); err != nil {
				return fmt.Errorf("verify %s: %w", state.ServerName, err)
			}
			return nil
		},
	}
}

// renew has no idle connection used again: they show a certificate that may count no more. What goes on over others does.
func (c *nodeConnector) renew() {
	c.verified.CloseIdleConnections()
	c.insecure.CloseIdleConnections()
}

// ConnectNode implements kinds.NodeConnector.
func (c *nodeConnector) ConnectNode(_ context.Context, name string) (kinds.NodeConnection, error) {
	node, err := c.nodes().Get(name)
	if err != nil {
		return kinds.NodeConnection{}, err
	}
	host := nodeHost(node)
	port := int(node.Status.DaemonEndpoints.KubeletEndpoint.Port)
	if host == "" || port == 0 {
		return kinds.NodeConnection{}, apierrors.NewServiceUnavailable(fmt.Sprintf("node %q has not said yet where it is", name))
	}
	return kinds.NodeConnection{
		URL:       &url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(port))},
		Transport: c.verified, InsecureTransport: c.insecure,
	}, nil
}

func nodeHost(node *corev1.Node) string {
	for _, address := range node.Status.Addresses {
		if address.Type == corev1.NodeInternalIP {
			return address.Address
		}
	}
	return ""
}
