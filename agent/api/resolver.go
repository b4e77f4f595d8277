package api

import (
	"context"
	"fmt"

	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/util/webhook"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/component-base/tracing"
	aggregator "k8s.io/kube-aggregator/pkg/apiserver"

	"github.com/podvine/podvine/agent/api/kinds"
)

// serviceResolver finds where the services behind API services and webhooks listen: an endpoint of theirs, or their
// cluster IP where the member's host translates those.
func (s *Server) serviceResolver() aggregator.ServiceResolver {
	services := s.informers.Core().V1().Services().Lister()
	if s.config.ClusterServices {
		return aggregator.NewClusterIPServiceResolver(services)
	}
	return aggregator.NewEndpointServiceResolver(services, slicesOfService{s.informers.Discovery().V1().EndpointSlices().Lister()})
}

// slicesOfService lists the endpoint slices of a service.
type slicesOfService struct {
	lister discoverylisters.EndpointSliceLister
}

// GetEndpointSlices implements proxy.EndpointSliceGetter.
func (s slicesOfService) GetEndpointSlices(namespace, name string) ([]*discoveryv1.EndpointSlice, error) {
	return s.lister.EndpointSlices(namespace).List(labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: name}))
}

// webhookAuthentication gives conversion webhooks their client configuration; the API itself is called in process.
func (s *Server) webhookAuthentication() webhook.AuthenticationInfoResolverWrapper {
	return webhook.NewDefaultAuthenticationInfoResolverWrapper(nil, nil, s.loopback.clientConfig(ownUser()), tracing.NewNoopTracerProvider())
}

// noNodes answers for a server that has no way to nodes.
type noNodes struct{}

// ConnectNode implements kinds.NodeConnector.
func (noNodes) ConnectNode(_ context.Context, node string) (kinds.NodeConnection, error) {
	return kinds.NodeConnection{}, apierrors.NewServiceUnavailable(fmt.Sprintf("node %q cannot be reached from here", node))
}
