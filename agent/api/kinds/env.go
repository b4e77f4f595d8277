package kinds

import (
	"context"
	"net/http"
	"net/url"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/registry/generic"
)

// Env is what the server gives to every kind that it installs.
type Env struct {
	Scheme      *runtime.Scheme
	RESTOptions generic.RESTOptionsGetter
	// Authorizer decides for the review kinds, and for the escalation checks of the RBAC kinds.
	Authorizer authorizer.Authorizer
	// Mapper finds the resource of a kind, built in or not, while the server runs.
	Mapper meta.RESTMapper
	// Nodes reaches the nodes' kubelet API, for logs, exec, attach, port-forward and proxies. It is never nil.
	Nodes NodeConnector
	// Namespace returns a namespace as the store has it, while the server runs.
	Namespace func(ctx context.Context, name string) (*corev1.Namespace, error)
	// Settings are the cluster settings that validation and allocation need.
	Settings Settings
}

// NodeConnector says how to reach the kubelet HTTP API of a node. It is safe for concurrent use.
type NodeConnector interface {
	// ConnectNode returns the connection for the node of that name, or an API status error (NotFound,
	// ServiceUnavailable) when there is none. It does not dial.
	ConnectNode(ctx context.Context, node string) (NodeConnection, error)
}

// NodeConnection is where a node's kubelet API listens, and how to speak to it.
type NodeConnection struct {
	// URL has the scheme and the host with its port ("https://192.0.2.7:10250") and nothing more.
	URL *url.URL
	// Transport authenticates as the API server and verifies the node. It is a *http.Transport, or answers
	// k8s.io/apimachinery/pkg/util/net.DialerFor and TLSClientConfig, so that connections can be upgraded.
	Transport http.RoundTripper
	// InsecureTransport is Transport without verification of the node's certificate (kubectl logs --insecure-skip-tls-verify-backend).
	InsecureTransport http.RoundTripper
}

// Settings are the cluster settings that kinds depend on; they never change while the server runs.
type Settings struct {
	// ServiceRanges are the CIDRs that seed the default ServiceCIDR, primary family first.
	ServiceRanges []string
	// NodePortFirst and NodePortLast bound allocated and requested node ports, both inclusive (30000, 32767).
	NodePortFirst, NodePortLast int32
	// ClusterDomain is the DNS domain of services ("cluster.local").
	ClusterDomain string
	// PodSecurityPolicies serves that kind, and admits pods by them alone.
	PodSecurityPolicies bool
}
