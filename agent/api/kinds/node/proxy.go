package node

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/proxying"
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
func (r *proxyREST) ConnectMethods() []string { return proxying.Methods() }

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
	return proxying.Handler(location, opts.Path, transport, responder), nil
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
	if port == "" || port == connection.URL.Port() { // the kubelet's own, wherever it is: its certificate is verified
		location := *connection.URL
		return &location, connection.Transport, nil
	}
	host := connection.URL.Hostname()
	if err := proxying.CheckHost(ctx, host); err != nil {
		return nil, nil, err
	}
	return &url.URL{Scheme: cmp.Or(scheme, "http"), Host: net.JoinHostPort(host, port)}, proxying.Transport, nil
}
