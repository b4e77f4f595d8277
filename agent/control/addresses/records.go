package addresses

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/record"
	netutils "k8s.io/utils/net"

	"github.com/podvine/podvine/agent/control/loop"
)

// recordLoop keeps services and their IPAddress objects together.
type recordLoop struct {
	*Loop
	recorder record.EventRecorder
}

// clusterIPs are the addresses that a service holds, in the form that names their records.
func clusterIPs(s *corev1.Service) []string {
	if s == nil || s.Spec.Type == corev1.ServiceTypeExternalName {
		return nil
	}
	var out []string
	for _, ip := range s.Spec.ClusterIPs {
		if parsed := netutils.ParseIPSloppy(ip); parsed != nil {
			out = append(out, parsed.String())
		}
	}
	return out
}

// nodePorts are the node ports that a service holds, each once.
func nodePorts(s *corev1.Service) []string {
	ports := map[int32]bool{}
	for _, p := range s.Spec.Ports {
		ports[p.NodePort] = true
	}
	ports[s.Spec.HealthCheckNodePort] = true
	delete(ports, 0)
	var out []string
	for p := range ports {
		out = append(out, strconv.Itoa(int(p)))
	}
	slices.Sort(out)
	return out
}

// servicesOfAddress is the service whose record changed.
func (r *recordLoop) servicesOfAddress(old, new *networkingv1.IPAddress) []string {
	if new != nil || old.Spec.ParentRef == nil || old.Spec.ParentRef.Resource != "services" || old.Spec.ParentRef.Group != "" {
		return nil // only a record that went needs a look at the service
	}
	return []string{old.Spec.ParentRef.Namespace + "/" + old.Spec.ParentRef.Name}
}

// finding is something wrong about a service that only people can repair.
type finding struct{ reason, message string }

// inspect decides which records a service lacks, and what else is wrong. records are those of its addresses, by name;
// others are further services with one of its addresses or node ports.
func inspect(s *corev1.Service, records map[string]*networkingv1.IPAddress, others []*corev1.Service) (missing []string, found []finding) {
	for _, ip := range clusterIPs(s) {
		switch record := records[ip]; {
		case record == nil:
			missing = append(missing, ip)
		case !refersTo(record, s):
			found = append(found, finding{"ClusterIPAlreadyAllocated", fmt.Sprintf("Cluster IP %s was assigned to multiple services; please recreate service", ip)})
		}
	}
	mine := nodePorts(s)
	for _, other := range others {
		if other.UID == s.UID || !isOlder(other, s) {
			continue
		}
		for _, port := range nodePorts(other) {
			if slices.Contains(mine, port) {
				found = append(found, finding{"PortAlreadyAllocated", fmt.Sprintf("Port %s was assigned to multiple services; please recreate service", port)})
			}
		}
	}
	return missing, found
}

// isOlder says which of two services came first, so that only the later one is told to go.
func isOlder(a, b *corev1.Service) bool {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.CreationTimestamp.Before(&b.CreationTimestamp)
	}
	return a.Namespace+"/"+a.Name < b.Namespace+"/"+b.Name
}

func refersTo(a *networkingv1.IPAddress, s *corev1.Service) bool {
	ref := a.Spec.ParentRef
	return ref != nil && ref.Group == "" && ref.Resource == "services" && ref.Namespace == s.Namespace && ref.Name == s.Name
}

func (r *recordLoop) reconcileService(ctx context.Context, key string) (time.Duration, error) {
	namespace, name, err := loop.SplitKey(key)
	if err != nil {
		return 0, err
	}
	s, err := r.services.Services(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("get service %s: %w", key, err)
	}
	records := map[string]*networkingv1.IPAddress{}
	for _, ip := range clusterIPs(s) {
		if a, err := r.addresses.Get(ip); err == nil {
			records[ip] = a
		}
	}
	var others []*corev1.Service
	for _, port := range nodePorts(s) {
		same, err := loop.Indexed[*corev1.Service](r.serviceInformer.GetIndexer(), nodePortIndex, port)
		if err != nil {
			return 0, err
		}
		others = append(others, same...)
	}
	missing, found := inspect(s, records, others)
	for _, f := range found {
		r.recorder.Event(s, corev1.EventTypeWarning, f.reason, f.message)
	}
	var errs []error
	for _, ip := range missing {
		errs = append(errs, r.restore(ctx, s, ip))
	}
	return 0, errors.Join(errs...)
}

// restore writes the record of an address that a service still holds.
func (r *recordLoop) restore(ctx context.Context, s *corev1.Service, ip string) error {
	current, err := r.cfg.Client.CoreV1().Services(s.Namespace).Get(ctx, s.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up service %s/%s: %w", s.Namespace, s.Name, err)
	}
	if !slices.Contains(clusterIPs(current), ip) {
		return nil
	}
	client := r.cfg.Client.NetworkingV1().IPAddresses()
	if _, err := client.Get(ctx, ip, metav1.GetOptions{}); err == nil {
		return nil // the informer is behind
	} else if !apierrors.IsNotFound(err) {
		return fmt.Errorf("look up address %s: %w", ip, err)
	}
	family := corev1.IPv4Protocol
	if netutils.IsIPv6String(ip) {
		family = corev1.IPv6Protocol
	}
	_, err = client.Create(ctx, &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{Name: ip, Labels: map[string]string{
			networkingv1.LabelManagedBy: managedBy, networkingv1.LabelIPAddressFamily: string(family)}},
		Spec: networkingv1.IPAddressSpec{ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: s.Namespace, Name: s.Name}},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("restore address %s: %w", ip, err)
	}
	r.cfg.Logger.Info("restored the record of a service's address", "address", ip, "service", s.Namespace+"/"+s.Name)
	r.recorder.Event(s, corev1.EventTypeWarning, "ClusterIPNotAllocated", fmt.Sprintf("Cluster IP %s is not allocated; repairing", ip))
	return nil
}

// isLeaked decides whether a record has no service: s is the service that it names, nil for none.
func isLeaked(a *networkingv1.IPAddress, s *corev1.Service) bool {
	if !isManaged(a) || a.Spec.ParentRef == nil || a.Spec.ParentRef.Resource != "services" || a.Spec.ParentRef.Group != "" {
		return false // someone else's
	}
	return s == nil || !slices.Contains(clusterIPs(s), a.Name)
}

func (r *recordLoop) reconcileAddress(ctx context.Context, name string) (time.Duration, error) {
	a, err := r.addresses.Get(name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("get address %s: %w", name, err)
	}
	var s *corev1.Service
	if ref := a.Spec.ParentRef; ref != nil {
		if s, err = r.services.Services(ref.Namespace).Get(ref.Name); err != nil && !apierrors.IsNotFound(err) {
			return 0, fmt.Errorf("get service of address %s: %w", name, err)
		}
		if err != nil {
			s = nil
		}
	}
	if !isLeaked(a, s) {
		return 0, nil
	}
	current, err := r.cfg.Client.CoreV1().Services(a.Spec.ParentRef.Namespace).Get(ctx, a.Spec.ParentRef.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		current = nil
	case err != nil:
		return 0, fmt.Errorf("look up service of address %s: %w", name, err)
	}
	if !isLeaked(a, current) {
		return 0, nil // the informer is behind
	}
	err = r.cfg.Client.NetworkingV1().IPAddresses().Delete(ctx, name, metav1.DeleteOptions{
		Preconditions: &metav1.Preconditions{UID: &a.UID, ResourceVersion: &a.ResourceVersion}})
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("remove address %s: %w", name, err)
	}
	return 0, nil
}
