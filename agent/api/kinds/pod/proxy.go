package pod

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/agent/api/kinds/proxying"
)

// proxyREST is pods/proxy: it passes requests on to a port of a pod. The identifier is NAME, NAME:PORT or
// SCHEME:NAME:PORT; without a port it is the first one that a container declares.
type proxyREST struct{ pods rest.Getter }

// New implements rest.Storage.
func (r *proxyREST) New() runtime.Object { return &corev1.PodProxyOptions{} }

// Destroy implements rest.Storage.
func (r *proxyREST) Destroy() {}

// NewConnectOptions implements rest.Connecter: the path below the resource goes into the options' path.
func (r *proxyREST) NewConnectOptions() (runtime.Object, bool, string) {
	return &corev1.PodProxyOptions{}, true, "path"
}

// ConnectMethods implements rest.Connecter.
func (r *proxyREST) ConnectMethods() []string { return proxying.Methods() }

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
	return proxying.Handler(location, opts.Path, proxying.Transport, responder), nil
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
	if err := proxying.Check(ip); err != nil {
		return nil, err
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
