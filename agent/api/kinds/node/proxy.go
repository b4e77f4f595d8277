package node

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/agent/api/kinds"
)

// proxyREST is nodes/proxy: it passes requests on to the node's kubelet API, or to another port of the node. The
// identifier is NAME, NAME:PORT or SCHEME:NAME:PORT.
type proxyREST struct {
	nodes   rest.Getter
	connect kinds.NodeConnector
}

// New implements rest.Storage.
func (r *proxyREST) New() runtime.Object { return &corev1.NodeProxyOptions{} }

// Destroy implements rest.Storage.
func (r *proxyREST) Destroy() {}

// ConnectMethods implements rest.Connecter.
func (r *proxyREST) ConnectMethods() []string {
	return []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodHead, http.MethodOptions}
}

// NewConnectOptions implements rest.Connecter: the path below the resource goes into the options' path.
func (r *proxyREST) NewConnectOptions() (runtime.Object, bool, string) {
	return &corev1.NodeProxyOptions{}, true, "path"
}

// Connect implements rest.Connecter.
func (r *proxyREST) Connect(ctx context.Context, id string, options runtime.Object, responder rest.Responder) (http.Handler, error) {
	opts, ok := options.(*corev1.NodeProxyOptions)
	if !ok {
		return nil, fmt.Errorf("connect to a node with options of type %T", options)
	}
	location, transport, err := r.location(ctx, id)
	if err != nil {
		return nil, err
	}
	location.Path = joinPath(opts.Path)
	handler := proxy.NewUpgradeAwareHandler(location, transport, true, false, proxy.NewErrorResponder(responder))
	return handler, nil
}

// joinPath makes the absolute path of a request, with its trailing slash kept.
func joinPath(p string) string {
	joined := path.Join("/", p)
	if strings.HasSuffix(p, "/") && !strings.HasSuffix(joined, "/") {
		joined += "/"
	}
	return joined
}

func (r *proxyREST) location(ctx context.Context, id string) (*url.URL, http.RoundTripper, error) {
	scheme, name, port, valid := utilnet.SplitSchemeNamePort(id)
	if !valid {
		return nil, nil, apierrors.NewBadRequest(fmt.Sprintf("invalid node request %q", id))
	}
	if _, err := r.nodes.Get(ctx, name, &metav1.GetOptions{}); err != nil {
		return nil, nil, err
	}
	connection, err := r.connect.ConnectNode(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	if port == "" || port == connection.URL.Port() {
		location := *connection.URL
		return &location, connection.Transport, nil
	}
	host := connection.URL.Hostname()
	if ip := net.ParseIP(host); ip != nil && !ip.IsGlobalUnicast() {
		return nil, nil, apierrors.NewBadRequest("address not allowed")
	}
	return &url.URL{Scheme: cmp.Or(scheme, "http"), Host: net.JoinHostPort(host, port)}, otherPortTransport(), nil
}

// otherPortTransport reaches what a node serves beside its kubelet API. As in Kubernetes nobody vouches for the
// certificate of such a port, so it is not verified.
func otherPortTransport() http.RoundTripper {
	return &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12},
	}
}
