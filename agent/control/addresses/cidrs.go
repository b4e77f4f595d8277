package addresses

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

const (
	// cidrFinalizer keeps a range until no address of it is in use.
	cidrFinalizer = "networking.k8s.io/service-cidr-finalizer"
	// deletionGrace is how long a range outlives its deletion at least: long enough that every write which began
	// before it has ended.
	deletionGrace = 10 * time.Second
	// maxFamilies is how many ranges an object holds: one of each IP family.
	maxFamilies = 2
)

// cidrLoop keeps the ServiceCIDR objects.
type cidrLoop struct{ *Loop }

func (c *cidrLoop) all() []string {
	return append(c.cidrInformer.GetStore().ListKeys(), DefaultCIDRName)
}

// ofRange are the range itself, and those that wait to go: another one may hold their addresses now.
func (c *cidrLoop) ofRange(old, new *networkingv1.ServiceCIDR) []string {
	changed := new
	if changed == nil {
		changed = old
	}
	keys := []string{changed.Name}
	if old != nil && new != nil {
		return keys
	}
	list, err := c.cidrs.List(labels.Everything())
	if err != nil {
		return keys // reads memory
	}
	for _, cidr := range list {
		if cidr.DeletionTimestamp != nil && cidr.Name != changed.Name {
			keys = append(keys, cidr.Name)
		}
	}
	return keys
}

// ofAddress are the ranges that wait for an address to go.
func (c *cidrLoop) ofAddress(old, new *networkingv1.IPAddress) []string {
	if new != nil {
		return nil
	}
	address, err := netip.ParseAddr(old.Name)
	if err != nil {
		return nil
	}
	list, err := c.cidrs.List(labels.Everything())
	if err != nil {
		return nil // reads memory
	}
	var keys []string
	for _, cidr := range list {
		if cidr.DeletionTimestamp != nil && covers(cidr, address) {
			keys = append(keys, cidr.Name)
		}
	}
	return keys
}

// ofService makes the default range when the first service is seen: every cluster has one.
func (c *cidrLoop) ofService(_, new *corev1.Service) []string {
	if new == nil {
		return nil
	}
	if _, err := c.cidrs.Get(DefaultCIDRName); err == nil {
		return nil
	}
	return []string{DefaultCIDRName}
}

func (c *cidrLoop) reconcile(ctx context.Context, name string) (time.Duration, error) {
	cidr, err := c.cidrs.Get(name)
	if apierrors.IsNotFound(err) {
		if name != DefaultCIDRName {
			return 0, nil
		}
		return 0, c.createDefault(ctx)
	}
	if err != nil {
		return 0, fmt.Errorf("get service range %s: %w", name, err)
	}
	all, err := c.cidrs.List(labels.Everything())
	if err != nil {
		return 0, fmt.Errorf("list service ranges: %w", err)
	}
	used, err := c.addresses.List(labels.Everything())
	if err != nil {
		return 0, fmt.Errorf("list addresses: %w", err)
	}
	plan := planCIDR(cidr, all, used, c.cfg.ServiceRanges, c.cfg.Clock())
	return plan.again, c.apply(ctx, cidr, plan)
}

func (c *cidrLoop) createDefault(ctx context.Context) error {
	_, err := c.cfg.Client.NetworkingV1().ServiceCIDRs().Create(ctx, &networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: DefaultCIDRName, Finalizers: []string{cidrFinalizer}},
		Spec:       networkingv1.ServiceCIDRSpec{CIDRs: c.cfg.ServiceRanges},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create service range %s: %w", DefaultCIDRName, err)
	}
	return nil
}

// cidrPlan is what to do to a ServiceCIDR.
type cidrPlan struct {
	finalizers []string          // nil: as they are
	cidrs      []string          // nil: as they are
	condition  *metav1.Condition // nil: as it is
	again      time.Duration     // look again after this, 0: on the next event
}

// planCIDR decides what a range needs. all are the ranges of the cluster, used the addresses in use, ranges the
// cluster's settings.
func planCIDR(cidr *networkingv1.ServiceCIDR, all []*networkingv1.ServiceCIDR, used []*networkingv1.IPAddress, ranges []string, now time.Time) cidrPlan {
	var plan cidrPlan
	if cidr.DeletionTimestamp == nil {
		if !slices.Contains(cidr.Finalizers, cidrFinalizer) {
			plan.finalizers = append(slices.Clone(cidr.Finalizers), cidrFinalizer)
		}
		if cidr.Name == DefaultCIDRName && len(cidr.Spec.CIDRs) == 1 && len(ranges) == maxFamilies && ranges[0] == cidr.Spec.CIDRs[0] {
			plan.cidrs = ranges // the cluster became dual-stack
		}
		plan.condition = unlessSet(cidr, metav1.Condition{Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionTrue,
			Reason: "NetworkReady", Message: "Kubernetes Service CIDR is ready"})
		return plan
	}
	if !slices.Contains(cidr.Finalizers, cidrFinalizer) {
		return plan
	}
	if n := orphaned(cidr, all, used); n > 0 {
		plan.condition = unlessSet(cidr, metav1.Condition{Type: networkingv1.ServiceCIDRConditionReady, Status: metav1.ConditionFalse,
			Reason:  networkingv1.ServiceCIDRReasonTerminating,
			Message: "There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR"})
		return plan
	}
	if left := cidr.DeletionTimestamp.Add(deletionGrace).Sub(now); left > 0 {
		plan.again = left
		return plan
	}
	plan.finalizers = slices.DeleteFunc(slices.Clone(cidr.Finalizers), func(f string) bool { return f == cidrFinalizer })
	return plan
}

// unlessSet returns the condition, or nil where the object has it already.
func unlessSet(cidr *networkingv1.ServiceCIDR, want metav1.Condition) *metav1.Condition {
	have := meta.FindStatusCondition(cidr.Status.Conditions, want.Type)
	if have != nil && have.Status == want.Status && have.Reason == want.Reason && have.Message == want.Message {
		return nil
	}
	return &want
}

// orphaned counts the addresses in use that no range would hold if this one went.
func orphaned(cidr *networkingv1.ServiceCIDR, all []*networkingv1.ServiceCIDR, used []*networkingv1.IPAddress) int {
	count := 0
	for _, a := range used {
		address, err := netip.ParseAddr(a.Name)
		if err != nil || !covers(cidr, address) {
			continue
		}
		held := slices.ContainsFunc(all, func(other *networkingv1.ServiceCIDR) bool {
			return other.Name != cidr.Name && other.DeletionTimestamp == nil && covers(other, address)
		})
		if !held {
			count++
		}
	}
	return count
}

func covers(cidr *networkingv1.ServiceCIDR, address netip.Addr) bool {
	return slices.ContainsFunc(cidr.Spec.CIDRs, func(text string) bool {
		prefix, err := parsePrefix(text)
		return err == nil && prefix.Contains(address)
	})
}

func parsePrefix(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("parse service range: %w", err)
	}
	return prefix.Masked(), nil
}

func (c *cidrLoop) apply(ctx context.Context, cidr *networkingv1.ServiceCIDR, plan cidrPlan) error {
	client := c.cfg.Client.NetworkingV1().ServiceCIDRs()
	current := cidr
	if plan.finalizers != nil || plan.cidrs != nil {
		changed := current.DeepCopy()
		if plan.finalizers != nil {
			changed.Finalizers = plan.finalizers
		}
		if plan.cidrs != nil {
			changed.Spec.CIDRs = plan.cidrs
		}
		updated, err := client.Update(ctx, changed, metav1.UpdateOptions{})
		if err != nil {
			return fmt.Errorf("update service range %s: %w", cidr.Name, err)
		}
		current = updated
	}
	if plan.condition == nil {
		return nil
	}
	changed := current.DeepCopy()
	condition := *plan.condition
	condition.LastTransitionTime = metav1.NewTime(c.cfg.Clock())
	meta.SetStatusCondition(&changed.Status.Conditions, condition)
	if _, err := client.UpdateStatus(ctx, changed, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("update status of service range %s: %w", cidr.Name, err)
	}
	return nil
}
