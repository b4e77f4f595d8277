package service

import (
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/registry/rest"
)

// managedBy marks the IPAddress objects that follow services.
const managedBy = "ipallocator.k8s.io"

// Change is what a write of a service claims and releases, each sorted.
type Change struct {
	ClaimAddresses, ReleaseAddresses []string
	ClaimPorts, ReleasePorts         []int32
}

// Empty says that nothing is claimed or released.
func (c Change) Empty() bool {
	return len(c.ClaimAddresses)+len(c.ReleaseAddresses)+len(c.ClaimPorts)+len(c.ReleasePorts) == 0
}

// changeOf compares what a service holds before and after a write; nil stands for a service that does not exist.
func changeOf(old, s *corev1.Service) Change {
	var c Change
	c.ClaimAddresses, c.ReleaseAddresses = compare(addressesOf(old), addressesOf(s))
	c.ClaimPorts, c.ReleasePorts = compare(heldPorts(old), heldPorts(s))
	return c
}

func compare[T string | int32](was, now map[T]bool) (added, removed []T) {
	for key := range now {
		if !was[key] {
			added = append(added, key)
		}
	}
	for key := range was {
		if !now[key] {
			removed = append(removed, key)
		}
	}
	slices.Sort(added)
	slices.Sort(removed)
	return added, removed
}

// AddressRecord is the IPAddress object by which a service holds an address.
func AddressRecord(s *corev1.Service, address string) *networkingv1.IPAddress {
	return &networkingv1.IPAddress{
		ObjectMeta: metav1.ObjectMeta{
			Name: address,
			Labels: map[string]string{
				networkingv1.LabelIPAddressFamily: string(familyOf(address)),
				networkingv1.LabelManagedBy:       managedBy,
			},
		},
		Spec: networkingv1.IPAddressSpec{
			ParentRef: &networkingv1.ParentReference{Resource: "services", Namespace: s.Namespace, Name: s.Name},
		},
	}
}

// portRecord is the object by which a service holds a node port.
func portRecord(s *corev1.Service, port int32) *corev1.RangeAllocation {
	return &corev1.RangeAllocation{
		ObjectMeta: metav1.ObjectMeta{Name: portName(port)},
		Range:      portName(port),
		Data:       []byte(ownerOf(s)),
	}
}

func portName(port int32) string { return strconv.Itoa(int(port)) }

// stamped is a record as a registry would create it: with an identity and a time of creation.
func stamped[T metav1.Object](record T) T {
	rest.FillObjectMetaSystemFields(record)
	return record
}
