package service

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/proxying"
)

// proxyREST is services/proxy: it passes requests on to a ready endpoint of a service. The identifier is NAME,
// NAME:PORT or SCHEME:NAME:PORT, where PORT is the name or the number of a port of the service.
type proxyREST struct {
	services  rest.Getter
	slices    *collection
	transport http.RoundTripper
}

func newProxyREST(env kinds.Env, services rest.Getter) (*proxyREST, error) {
	slices, err := openCollection(env, discoveryv1.SchemeGroupVersion.WithResource("endpointslices").GroupResource(), storage.DefaultNamespaceScopedAttr,
		func() runtime.Object { return &discoveryv1.EndpointSlice{} }, func() runtime.Object { return &discoveryv1.EndpointSliceList{} })
	if err != nil {
		return nil, err
	}
	return &proxyREST{services: services, slices: slices, transport: proxying.Transport}, nil
}

// New implements rest.Storage.
func (r *proxyREST) New() runtime.Object { return &corev1.ServiceProxyOptions{} }

// Destroy implements rest.Storage.
func (r *proxyREST) Destroy() {}

// ConnectMethods implements rest.Connecter.
func (r *proxyREST) ConnectMethods() []string { return proxying.Methods() }

// NewConnectOptions implements rest.Connecter: the path below the resource goes into the options' path.
func (r *proxyREST) NewConnectOptions() (runtime.Object, bool, string) {
	return &corev1.ServiceProxyOptions{}, true, "path"
}

// Connect implements rest.Connecter.
func (r *proxyREST) Connect(ctx context.Context, id string, options runtime.Object, responder rest.Responder) (http.Handler, error) {
	opts, ok := options.(*corev1.ServiceProxyOptions)
	if !ok {
		return nil, fmt.Errorf("connect to a service with options of type %T", options)
	}
	location, err := r.location(ctx, id)
	if err != nil {
		return nil, err
	}
	return proxying.Handler(location, opts.Path, r.transport, responder), nil
}

func (r *proxyREST) location(ctx context.Context, id string) (*url.URL, error) {
	scheme, name, port, valid := utilnet.SplitSchemeNamePort(id)
	if !valid {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("invalid service request %q", id))
	}
	obj, err := r.services.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if number, err := strconv.ParseInt(port, 10, 32); err == nil {
		if port, err = portByNumber(obj.(*corev1.Service), int32(number)); err != nil {
			return nil, err
		}
	}
	namespace := genericapirequest.NamespaceValue(ctx)
	var list discoveryv1.EndpointSliceList
	selector := labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: name})
	predicate := storage.SelectionPredicate{Label: selector, Field: fields.Everything(), GetAttrs: storage.DefaultNamespaceScopedAttr}
	if err := r.slices.GetList(ctx, r.slices.prefix+"/"+namespace+"/", storage.ListOptions{Predicate: predicate, Recursive: true}, &list); err != nil {
		return nil, err
	}
	candidates := readyAt(list.Items, port)
	if len(candidates) == 0 {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", id))
	}
	chosen := candidates[rand.IntN(len(candidates))]
	host, _, err := net.SplitHostPort(chosen)
	if err != nil {
		return nil, fmt.Errorf("read the endpoint %q: %w", chosen, err)
	}
	if err := proxying.Check(net.ParseIP(host)); err != nil {
		return nil, err
	}
	return &url.URL{Scheme: cmp.Or(scheme, "http"), Host: chosen}, nil
}

func portByNumber(s *corev1.Service, number int32) (string, error) {
	for _, p := range s.Spec.Ports {
		if p.Port == number {
			return p.Name, nil
		}
	}
	return "", apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", number, s.Name))
}

// readyAt are the "address:port" pairs of ready endpoints for a port name.
func readyAt(slices []discoveryv1.EndpointSlice, port string) []string {
	var found []string
	for i := range slices {
		if slices[i].AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		for _, p := range slices[i].Ports {
			if ptr.Deref(p.Name, "") != port || p.Port == nil {
				continue
			}
			for _, e := range slices[i].Endpoints {
				if ptr.Deref(e.Conditions.Ready, true) && len(e.Addresses) > 0 {
					found = append(found, net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port))))
				}
			}
		}
	}
	return found
}
