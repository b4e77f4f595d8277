package endpoints

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/record"
	"k8s.io/endpointslice"
	"k8s.io/endpointslice/topologycache"
	endpointsliceutil "k8s.io/endpointslice/util"
	"k8s.io/klog/v2"

	"github.com/podvine/podvine/agent/control/loop"
)

// sliceLoop keeps the EndpointSlices of services with a selector. Its trackers remember the loop's own writes, so that
// an informer that is behind does not lead to the same write twice.
type sliceLoop struct {
	view       *view
	reconciler *endpointslice.Reconciler
	written    *endpointsliceutil.EndpointSliceTracker
	triggers   *endpointsliceutil.TriggerTimeTracker
	topology   *topologycache.TopologyCache
	logger     klog.Logger
}

func (l *Loop) drivers(recorder record.EventRecorder) ([]*loop.Driver, error) {
	slices := l.newSliceLoop(recorder)
	legacy := &legacyLoop{view: &l.view, client: l.cfg.Client, triggers: endpointsliceutil.NewTriggerTimeTracker()}
	mirror := &mirrorLoop{view: &l.view, client: l.cfg.Client, recorder: recorder}
	var drivers []*loop.Driver
	configs := []loop.Config{
		{Name: "endpoint_slice", All: l.view.allServices, Reconcile: slices.reconcile, Sources: []loop.Source{
			loop.OnKey(l.view.serviceInformer),
			loop.On(l.view.podInformer, l.view.servicesOfPod),
			loop.On(l.view.nodeInformer, slices.servicesOfNode),
			loop.On(l.view.sliceInformer, keysOfSlice(sliceController)),
		}},
		{Name: "endpoint", All: l.view.allMirrored, Reconcile: legacy.reconcile, Sources: []loop.Source{
			loop.OnKey(l.view.serviceInformer),
			loop.On(l.view.podInformer, l.view.servicesOfPod),
			loop.OnKey(l.view.endpointsInformer),
		}},
		{Name: "endpoint_slice_mirroring", All: l.view.allMirrored, Reconcile: mirror.reconcile, Sources: []loop.Source{
			loop.OnKey(l.view.serviceInformer),
			loop.OnKey(l.view.endpointsInformer),
			loop.On(l.view.sliceInformer, keysOfSlice(mirrorController)),
		}},
	}
	for _, cfg := range configs {
		cfg.Logger, cfg.Metrics = l.cfg.Logger, l.cfg.Metrics
		d, err := loop.New(cfg)
		if err != nil {
			return nil, err
		}
		drivers = append(drivers, d)
	}
	return drivers, nil
}

func (l *Loop) newSliceLoop(recorder record.EventRecorder) *sliceLoop {
	s := &sliceLoop{
		view:     &l.view,
		written:  endpointsliceutil.NewEndpointSliceTracker(),
		triggers: endpointsliceutil.NewTriggerTimeTracker(),
		topology: topologycache.NewTopologyCache(),
		logger:   klog.Logger{}, // discards: what the library has to say, it says again as an error or an event
	}
	s.reconciler = endpointslice.NewReconciler(l.cfg.Client, l.view.nodes, maxEndpointsPerSlice, s.written, s.topology,
		recorder, sliceController, endpointslice.WithPreferSameTrafficDistributionEnabled(true))
	return s
}

// servicesOfPod are the services whose endpoints an event of a pod may change. Events that change nothing that an
// endpoint shows give none.
func (v *view) servicesOfPod(old, new *corev1.Pod) []string {
	var o, n any // typed nil pointers must not become non-nil interfaces
	if old != nil {
		o = old
	}
	if new != nil {
		n = new
	}
	services, err := endpointsliceutil.GetServicesToUpdate(v.services, endpointsliceutil.GetPodUpdateProjectionKey(o, n))
	if err != nil {
		return nil // the lister reads memory; an error means a selector that does not parse, which selects nothing
	}
	return services.UnsortedList()
}

// servicesOfNode keeps the zones that topology hints count with, and returns the services that had too few of them.
func (s *sliceLoop) servicesOfNode(old, new *corev1.Node) []string {
	if old != nil && new != nil && sameTopology(old, new) {
		return nil
	}
	nodes, err := s.view.nodes.List(labels.Everything())
	if err != nil {
		return nil // reads memory
	}
	s.topology.SetNodes(s.logger, nodes)
	return s.topology.GetOverloadedServices()
}

// sameTopology says that two versions of a node count the same for topology hints.
func sameTopology(a, b *corev1.Node) bool {
	if ready(a) != ready(b) || a.Labels[corev1.LabelTopologyZone] != b.Labels[corev1.LabelTopologyZone] || len(a.Labels) != len(b.Labels) {
		return false
	}
	return a.Status.Allocatable.Cpu().Cmp(*b.Status.Allocatable.Cpu()) == 0
}

func ready(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func (s *sliceLoop) reconcile(_ context.Context, key string) (time.Duration, error) {
	namespace, name, err := loop.SplitKey(key)
	if err != nil {
		return 0, err
	}
	service, err := s.view.services.Services(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		s.triggers.DeleteService(namespace, name)
		s.reconciler.DeleteService(namespace, name)
		s.written.DeleteService(namespace, name)
		return 0, nil // its slices have it as owner
	}
	if err != nil {
		return 0, wrap("get service", key, err)
	}
	if service.Spec.Type == corev1.ServiceTypeExternalName || service.Spec.Selector == nil {
		return 0, nil
	}
	pods, err := s.view.pods.Pods(namespace).List(labels.Set(service.Spec.Selector).AsSelectorPreValidated())
	if err != nil {
		return 0, wrap("list pods of service", key, err)
	}
	owned := labels.Set{discoveryv1.LabelServiceName: name, discoveryv1.LabelManagedBy: sliceController}
	slices, err := s.view.slices.EndpointSlices(namespace).List(owned.AsSelectorPreValidated())
	if err != nil {
		return 0, wrap("list slices of service", key, err)
	}
	kept := slices[:0:0]
	for _, slice := range slices {
		if slice.DeletionTimestamp == nil {
			kept = append(kept, slice)
		}
	}
	if s.written.StaleSlices(service, kept) {
		return 0, fmt.Errorf("reconcile slices of service %s: own writes are not seen yet", key)
	}
	changed := s.triggers.ComputeEndpointLastChangeTriggerTime(namespace, service, pods)
	return 0, wrap("reconcile slices of service", key, s.reconciler.Reconcile(s.logger, service, pods, kept, changed))
}
