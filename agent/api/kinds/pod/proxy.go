package pod

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/registry/rest"
)

// proxyREST is pods/proxy: it passes requests on to a port of a pod. The identifier is NAME, NAME:PORT or
// SCHEME:NAME:PORT; without a port it is the first one that a container declares.
type proxyREST struct {
	pods      rest.Getter
	transport http.RoundTripper
}

// newProxyREST makes the storage with a transport of its own. Nobody vouches for what a pod serves, so that its
// certificate is not verified, as in Kubernetes.
func newProxyREST(pods rest.Getter) *proxyREST {
	return &proxyREST{pods: pods, transport: &http.Transport{
		DisableKeepAlives: true,
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12},
	}}
}

// New implements rest.Storage.
func (r *proxyREST) New() runtime.Object { return &corev1.PodProxyOptions{} }

// Destroy implements rest.Storage.
func (r *proxyREST) Destroy() {}

// NewConnectOptions implements rest.Connecter: the path below the resource goes into the options' path.
func (r *proxyREST) NewConnectOptions() (runtime.Object, bool, string) {
	return &corev1.PodProxyOptions{}, true, "path"
}

// ConnectMethods implements rest.Connecter.
func (r *proxyREST) ConnectMethods() []string {
	return []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodHead, http.MethodOptions}
}

// Connect implements rest.Connecter.
func (r *proxyREST) Connect(ctx context.Context, id string, options runtime.Object, responder rest.Responder) (http.Handler, error) {
	opts, ok := options.(*corev1.PodProxyOptions)
	if !ok {
		return nil, fmt.Errorf("invalid options object: %#v", options)
	}
	location, err := r.location(ctx, id)
	if err != nil {
		return nil, err
	}
	location.Path = path.Join("/", opts.Path)
	if strings.HasSuffix(opts.Path, "/") && location.Path != "/" {
		location.Path += "/"
	}
	return proxy.NewUpgradeAwareHandler(location, r.transport, true, false, proxy.NewErrorResponder(responder)), nil
}

func (r *proxyREST) location(ctx context.Context, id string) (*url.URL, error) {
	scheme, name, port, valid := utilnet.SplitSchemeNamePort(id)
	if !valid {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid pod request %q", id))
	}
	p, err := getPod(ctx, r.pods, name)
	if err != nil {
		return nil, err
	}
	ip := net.ParseIP(p.Status.PodIP)
	if ip == nil || ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsMulticast() {
		return nil, apierrors.NewBadRequest("address not allowed")
	}
	if port == "" {
		port = firstPort(p)
	}
	host := p.Status.PodIP
	if port != "" {
		host = net.JoinHostPort(host, port)
	} else if ip.To4() == nil {
		host = "[" + host + "]"
	}
	return &url.URL{Scheme: scheme, Host: host}, nil
}

func firstPort(p *corev1.Pod) string {
	for _, c := range p.Spec.Containers {
		if len(c.Ports) > 0 {
			return strconv.Itoa(int(c.Ports[0].ContainerPort))
		}
	}
	return ""
}
