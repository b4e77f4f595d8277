package service

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/storage"

	"github.com/podvine/podvine/agent/api/kinds"
)

// collection is the storage of a cluster-wide resource, without its API. It is safe for concurrent use.
type collection struct {
	storage.Interface
	resource schema.GroupResource
	prefix   string
}

// openCollection opens the stored objects of a resource. attributes are those of the kind's own storage.
func openCollection(env kinds.Env, resource schema.GroupResource, attributes storage.AttrFunc,
	newObject, newList func() runtime.Object) (*collection, error) {
	options, err := env.RESTOptions.GetRESTOptions(resource, newObject())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", resource, err)
	}
	prefix := "/" + strings.TrimPrefix(options.ResourcePrefix, "/")
	keyOf := func(obj runtime.Object) (string, error) {
		accessor, err := meta.Accessor(obj)
		if err != nil {
			return "", err
		}
		return prefix + "/" + accessor.GetName(), nil
	}
	opened, _, err := options.Decorator(options.StorageConfig, prefix, keyOf, newObject, newList, attributes, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", resource, err)
	}
	return &collection{Interface: opened, resource: resource, prefix: prefix}, nil
}

func (c *collection) key(name string) string { return c.prefix + "/" + name }

// find reads an object into out, and leaves out empty where there is none.
func (c *collection) find(ctx context.Context, name string, out runtime.Object) error {
	if err := c.Get(ctx, c.key(name), storage.GetOptions{IgnoreNotFound: true}, out); err != nil {
		return fmt.Errorf("look up %s %s: %w", c.resource, name, err)
	}
	return nil
}

// listAll reads every object of the collection into list.
func (c *collection) listAll(ctx context.Context, list runtime.Object) error {
	return c.GetList(ctx, c.prefix+"/", storage.ListOptions{Predicate: storage.Everything, Recursive: true}, list)
}

// records are the stored claims of all services, and the ranges that they are taken from. It implements view.
type records struct {
	addresses, ports, cidrs *collection
	// service reads a service from the store, nil for none.
	service func(ctx context.Context, namespace, name string) (*corev1.Service, error)
	seed    []addressRange // the cluster's own ranges, which are there before any ServiceCIDR
}

func openRecords(env kinds.Env) (*records, error) {
	r := &records{}
	for _, cidr := range env.Settings.ServiceRanges {
		parsed, err := parseRange(cidr)
		if err != nil {
			return nil, err
		}
		r.seed = append(r.seed, parsed)
	}
	if len(r.seed) == 0 {
		return nil, fmt.Errorf("open service records: no service range is set")
	}
	networking := networkingv1.SchemeGroupVersion
	var err error
	if r.addresses, err = openCollection(env, networking.WithResource("ipaddresses").GroupResource(), storage.DefaultClusterScopedAttr,
		func() runtime.Object { return &networkingv1.IPAddress{} }, func() runtime.Object { return &networkingv1.IPAddressList{} }); err != nil {
		return nil, err
	}
	if r.cidrs, err = openCollection(env, networking.WithResource("servicecidrs").GroupResource(), storage.DefaultClusterScopedAttr,
		func() runtime.Object { return &networkingv1.ServiceCIDR{} }, func() runtime.Object { return &networkingv1.ServiceCIDRList{} }); err != nil {
		return nil, err
	}
	r.ports, err = openCollection(env, corev1.Resource("rangeallocations"), storage.DefaultClusterScopedAttr,
		func() runtime.Object { return &corev1.RangeAllocation{} }, func() runtime.Object { return &corev1.List{} })
	return r, err
}

// families are those of the cluster's own ranges, primary first.
func (r *records) families() []corev1.IPFamily {
	families := []corev1.IPFamily{r.seed[0].family()}
	for _, s := range r.seed[1:] {
		if s.family() != families[0] {
			return append(families, s.family())
		}
	}
	return families
}

// ranges implements view: the cluster's own ranges, and those of every ServiceCIDR that is ready and stays.
func (r *records) ranges(ctx context.Context, family corev1.IPFamily) ([]addressRange, error) {
	var found []addressRange
	known := map[string]bool{}
	add := func(s addressRange) {
		if s.family() == family && !known[s.prefix.String()] {
			known[s.prefix.String()] = true
			found = append(found, s)
		}
	}
	for _, s := range r.seed {
		add(s)
	}
	var list networkingv1.ServiceCIDRList
	if err := r.cidrs.listAll(ctx, &list); err != nil {
		return nil, fmt.Errorf("list service ranges: %w", err)
	}
	for i := range list.Items {
		if c := &list.Items[i]; c.DeletionTimestamp == nil && isReady(c) {
			for _, cidr := range c.Spec.CIDRs {
				if parsed, err := parseRange(cidr); err == nil {
					add(parsed)
				}
			}
		}
	}
	return found, nil
}

func isReady(c *networkingv1.ServiceCIDR) bool {
	return meta.IsStatusConditionTrue(c.Status.Conditions, networkingv1.ServiceCIDRConditionReady)
}

// addressTaken implements view.
func (r *records) addressTaken(ctx context.Context, address string) (bool, error) {
	var found networkingv1.IPAddress
	if err := r.addresses.find(ctx, address, &found); err != nil {
		return false, err
	}
	return found.Name != "", nil
}

// takenAddresses implements view.
func (r *records) takenAddresses(ctx context.Context) (map[string]bool, error) {
	var list networkingv1.IPAddressList
	if err := r.addresses.listAll(ctx, &list); err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	taken := make(map[string]bool, len(list.Items))
	for i := range list.Items {
		taken[list.Items[i].Name] = true
	}
	return taken, nil
}

// portOwner implements view. A record whose service is gone, or no longer has the port, counts as none.
func (r *records) portOwner(ctx context.Context, port int32) (string, error) {
	record, live, err := r.portRecord(ctx, port)
	if err != nil || !live {
		return "", err
	}
	return string(record.Data), nil
}

// portRecord is the record of a node port, empty for none; live says that the service which it names has the port.
func (r *records) portRecord(ctx context.Context, port int32) (record *corev1.RangeAllocation, live bool, err error) {
	record = &corev1.RangeAllocation{}
	if err := r.ports.find(ctx, portName(port), record); err != nil || record.Name == "" {
		return record, false, err
	}
	namespace, name, _ := strings.Cut(string(record.Data), "/")
	s, err := r.service(ctx, namespace, name)
	if err != nil {
		return nil, false, fmt.Errorf("look up service %s of node port %d: %w", record.Data, port, err)
	}
	return record, heldPorts(s)[port], nil
}
