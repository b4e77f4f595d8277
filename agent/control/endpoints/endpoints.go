// Package endpoints keeps what is behind each service: EndpointSlices and Endpoints of services with a selector, and
// EndpointSlices of Endpoints that people write for services without one.
//
// Role: three loops over the same informers, run by one [Loop]. Slices of selectors come from Kubernetes' published
// reconciler; desiredEndpoints and planMirror decide the rest purely. The endpoints of default/kubernetes are written by
// the members that serve the API. Liveness is no concern here: on the death of a node every member drops its endpoints from the data plane by gossip.
//
// Ownership: the loops own the slices labelled as theirs and the Endpoints named like a service with a selector, never
// others. Objects from informers are shared and never changed.
//
// Concurrency: Run may be called again after it returned; each run begins without memory of the last.
//
// Inspect with `kubectl get endpointslices`; test with `go test ./agent/control/endpoints`.
package endpoints

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/control/loop"
)

const (
	// maxEndpointsPerSlice keeps the cost of one changed endpoint small; Kubernetes has the same default.
	maxEndpointsPerSlice = 100
	// maxEndpointsAddresses is how many addresses an Endpoints object may hold, as in Kubernetes.
	maxEndpointsAddresses = 1000
	// maxMirroredAddresses is how many addresses of a subset are mirrored, as in Kubernetes.
	maxMirroredAddresses = 1000
)

// The names by which slices and Endpoints say who writes them.
const (
	sliceController  = "endpointslice-controller.k8s.io"
	mirrorController = "endpointslicemirroring-controller.k8s.io"
)

// Config is what the loop needs. All fields but Metrics are required.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Logger    *slog.Logger
	// Metrics counts the queues; nil counts nothing.
	Metrics *loop.Metrics
}

// Loop runs the loops of services. Make it with [New].
type Loop struct {
	cfg  Config
	view view
}

// view is the cluster as the informers show it.
type view struct {
	services  corelisters.ServiceLister
	pods      corelisters.PodLister
	nodes     corelisters.NodeLister
	endpoints corelisters.EndpointsLister
	slices    discoverylisters.EndpointSliceLister

	serviceInformer, podInformer, nodeInformer, endpointsInformer, sliceInformer cache.SharedIndexInformer
}

// New makes the loop. Call it before the informers are started.
func New(cfg Config) (*Loop, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Logger == nil {
		return nil, errors.New("make endpoints loop: Client, Informers and Logger are required")
	}
	core, discovery := cfg.Informers.Core().V1(), cfg.Informers.Discovery().V1()
	return &Loop{cfg: cfg, view: view{
		services: core.Services().Lister(), serviceInformer: core.Services().Informer(),
		pods: core.Pods().Lister(), podInformer: core.Pods().Informer(),
		nodes: core.Nodes().Lister(), nodeInformer: core.Nodes().Informer(),
		endpoints: core.Endpoints().Lister(), endpointsInformer: core.Endpoints().Informer(),
		slices: discovery.EndpointSlices().Lister(), sliceInformer: discovery.EndpointSlices().Informer(),
	}}, nil
}

// Run works until ctx ends and returns ctx's error, or why it could not start.
func (l *Loop) Run(ctx context.Context) error {
	recorder, stop := loop.NewRecorder(l.cfg.Client, "endpoint-slice-controller")
	defer stop()
	drivers, err := l.drivers(recorder)
	if err != nil {
		return err
	}
	return loop.RunAll(ctx, drivers)
}

// allServices lists every service for a full pass.
func (v *view) allServices() []string { return v.serviceInformer.GetStore().ListKeys() }

// allMirrored lists every service and every Endpoints object for a full pass.
func (v *view) allMirrored() []string {
	return append(v.serviceInformer.GetStore().ListKeys(), v.endpointsInformer.GetStore().ListKeys()...)
}

// serviceKey is the service that a slice belongs to, nil for none.
func serviceKey(s *discoveryv1.EndpointSlice) []string {
	if s == nil || s.Labels[discoveryv1.LabelServiceName] == "" {
		return nil
	}
	return []string{s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]}
}

// keysOfSlice are the services that an event of a slice concerns, when a loop of the given name writes it.
func keysOfSlice(controller string) func(old, new *discoveryv1.EndpointSlice) []string {
	return func(old, new *discoveryv1.EndpointSlice) []string {
		var keys []string
		for _, s := range []*discoveryv1.EndpointSlice{old, new} {
			if s != nil && s.Labels[discoveryv1.LabelManagedBy] == controller {
				keys = append(keys, serviceKey(s)...)
			}
		}
		return keys
	}
}

func wrap(doing, key string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %s: %w", doing, key, err)
}
