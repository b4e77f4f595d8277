// Package addresses keeps the records of service addresses right: the ServiceCIDR objects and the IPAddress objects.
//
// Role: services and their IPAddress objects are written in one transaction by the API, so there is normally nothing to
// repair. The loop makes the default ServiceCIDR from the cluster's settings, guards ranges that are in use against
// deletion, writes their Ready condition, gives a service back a record that someone deleted, removes records whose
// service is gone, and names services that hold the same address or node port. What it finds wrong in its informers it
// looks up again before it writes.
//
// Ownership: it owns the ServiceCIDR named "kubernetes", status and finalizer of every ServiceCIDR, and the IPAddress
// objects with the managed-by label of services. Records of node ports belong to the service kind alone, which takes
// over stale ones by itself.
//
// Concurrency: Run may be called again after it returned. Test with `go test ./agent/control/addresses`.
package addresses

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/podvine/podvine/agent/control/loop"
)

const (
	// DefaultCIDRName is the ServiceCIDR that the cluster's settings make.
	DefaultCIDRName = "kubernetes"
	// managedBy marks the IPAddress objects that follow services.
	managedBy = "ipallocator.k8s.io"
	// nodePortIndex finds services by node port.
	nodePortIndex = "podvine.io/node-port"
)

// Config is what the loop needs. All fields but Clock and Metrics are required.
type Config struct {
	Client    kubernetes.Interface
	Informers informers.SharedInformerFactory
	Logger    *slog.Logger
	// ServiceRanges are the cluster's service CIDRs, one or one of each family, primary first.
	ServiceRanges []string
	// Clock is the time; nil is time.Now.
	Clock func() time.Time
	// Metrics counts the queues; nil counts nothing.
	Metrics *loop.Metrics
}

// Loop repairs address records. Make it with [New].
type Loop struct {
	cfg       Config
	services  corelisters.ServiceLister
	addresses networkinglisters.IPAddressLister
	cidrs     networkinglisters.ServiceCIDRLister

	serviceInformer, addressInformer, cidrInformer cache.SharedIndexInformer
}

// New makes the loop. Call it before the informers are started.
func New(cfg Config) (*Loop, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Logger == nil {
		return nil, errors.New("make addresses loop: Client, Informers and Logger are required")
	}
	if len(cfg.ServiceRanges) == 0 || len(cfg.ServiceRanges) > 2 {
		return nil, fmt.Errorf("make addresses loop: %d service ranges, want one or two", len(cfg.ServiceRanges))
	}
	for _, r := range cfg.ServiceRanges {
		if _, err := parsePrefix(r); err != nil {
			return nil, fmt.Errorf("make addresses loop: %w", err)
		}
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	services, networking := cfg.Informers.Core().V1().Services(), cfg.Informers.Networking().V1()
	l := &Loop{
		cfg:      cfg,
		services: services.Lister(), serviceInformer: services.Informer(),
		addresses: networking.IPAddresses().Lister(), addressInformer: networking.IPAddresses().Informer(),
		cidrs: networking.ServiceCIDRs().Lister(), cidrInformer: networking.ServiceCIDRs().Informer(),
	}
	if err := loop.Index(l.serviceInformer, nodePortIndex, indexNodePorts); err != nil {
		return nil, err
	}
	return l, nil
}

func indexNodePorts(object any) ([]string, error) {
	s, ok := object.(*corev1.Service)
	if !ok {
		return nil, nil
	}
	return nodePorts(s), nil
}

// Run works until ctx ends and returns ctx's error, or why it could not start.
func (l *Loop) Run(ctx context.Context) error {
	recorder, stop := loop.NewRecorder(l.cfg.Client, "ipallocator-repair-controller")
	defer stop()
	drivers, err := l.drivers(recorder)
	if err != nil {
		return err
	}
	return loop.RunAll(ctx, drivers)
}

func (l *Loop) drivers(recorder record.EventRecorder) ([]*loop.Driver, error) {
	cidrs := &cidrLoop{Loop: l}
	records := &recordLoop{Loop: l, recorder: recorder}
	configs := []loop.Config{
		{Name: "service_cidr", Reconcile: cidrs.reconcile, All: cidrs.all, Sources: []loop.Source{
			loop.On(l.cidrInformer, cidrs.ofRange),
			loop.On(l.addressInformer, cidrs.ofAddress),
			loop.On(l.serviceInformer, cidrs.ofService),
		}},
		{Name: "service_address", Reconcile: records.reconcileService, All: l.serviceInformer.GetStore().ListKeys, Sources: []loop.Source{
			loop.OnKey(l.serviceInformer),
			loop.On(l.addressInformer, records.servicesOfAddress),
		}},
		{Name: "ip_address", Reconcile: records.reconcileAddress, All: l.addressInformer.GetStore().ListKeys, Sources: []loop.Source{
			loop.OnKey(l.addressInformer),
			loop.On(l.serviceInformer, func(old, new *corev1.Service) []string { return released(old, new) }),
		}},
	}
	var drivers []*loop.Driver
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

// released are the addresses that a service held before an event and not after it.
func released(old, new *corev1.Service) []string {
	held := map[string]bool{}
	for _, ip := range clusterIPs(new) {
		held[ip] = true
	}
	var out []string
	for _, ip := range clusterIPs(old) {
		if !held[ip] {
			out = append(out, ip)
		}
	}
	return out
}

func isManaged(a *networkingv1.IPAddress) bool {
	return a.Labels[networkingv1.LabelManagedBy] == managedBy
}
