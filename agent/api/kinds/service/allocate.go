package service

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	netutils "k8s.io/utils/net"
)

// maxProbes is how many candidates are looked up one by one before the whole list of taken ones is read.
const maxProbes = 16

var (
	errFull  = errors.New("range is full")
	errTaken = errors.New("provided IP is already allocated")
)

// view tells what is free. Its answers may be outdated when they are used: the write decides.
type view interface {
	// ranges are the ranges of a family that addresses may be taken from now.
	ranges(ctx context.Context, family corev1.IPFamily) ([]addressRange, error)
	// addressTaken says whether a record of the address exists.
	addressTaken(ctx context.Context, address string) (bool, error)
	// takenAddresses are all addresses with a record.
	takenAddresses(ctx context.Context) (map[string]bool, error)
	// portOwner is the service that a node port is recorded for, "" for none.
	portOwner(ctx context.Context, port int32) (string, error)
}

// allocator chooses addresses and ports for a service. It writes nothing. It is immutable.
type allocator struct {
	view     view
	families []corev1.IPFamily // of the cluster, primary first
	primary  addressRange
	ports    portRange
	random   func(below uint64) uint64
}

// fill gives a service the addresses and node ports that it needs and has not, and checks those that it asks for.
// old is nil on creation. dryRun looks at what is free and promises nothing.
func (a *allocator) fill(ctx context.Context, s, old *corev1.Service, dryRun bool) error {
	if errs := setFamilies(s, old, a.families); len(errs) > 0 {
		return invalidService(s, errs)
	}
	if err := a.fillAddresses(ctx, s, old); err != nil {
		return err
	}
	return a.fillPorts(ctx, s, old, dryRun)
}

func invalidService(s *corev1.Service, errs field.ErrorList) error {
	return apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), s.Name, errs)
}

func (a *allocator) fillAddresses(ctx context.Context, s, old *corev1.Service) error {
	if isExternalName(s) || isHeadless(s) {
		return nil
	}
	had := addressesOf(old)
	for i, family := range s.Spec.IPFamilies {
		if i >= len(s.Spec.ClusterIPs) {
			s.Spec.ClusterIPs = append(s.Spec.ClusterIPs, "")
		}
		wanted := s.Spec.ClusterIPs[i]
		if wanted == "" {
			address, err := a.freeAddress(ctx, family)
			if err != nil {
				return apierrors.NewInternalError(fmt.Errorf("failed to allocate a serviceIP: %w", err))
			}
			s.Spec.ClusterIPs[i] = address
			continue
		}
		if had[canonicalIP(wanted)] || old != nil && i < len(old.Spec.ClusterIPs) && old.Spec.ClusterIPs[i] != wanted {
			continue // its own already, or a change that validation refuses
		}
		if err := a.checkAddress(ctx, family, wanted); err != nil {
			return invalidService(s, field.ErrorList{field.Invalid(field.NewPath("spec", "clusterIPs"), s.Spec.ClusterIPs,
				fmt.Sprintf("failed to allocate IP %s: %v", wanted, err))})
		}
	}
	if len(s.Spec.ClusterIPs) > 0 {
		s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
	}
	return nil
}

// canonicalIP is the form of an address in which it names its record.
func canonicalIP(ip string) string {
	if parsed := netutils.ParseIPSloppy(ip); parsed != nil {
		return parsed.String()
	}
	return ip
}

// addressesOf are the addresses that a service holds, in canonical form.
func addressesOf(s *corev1.Service) map[string]bool {
	held := map[string]bool{}
	if s == nil || isExternalName(s) || isHeadless(s) {
		return held
	}
	for _, ip := range s.Spec.ClusterIPs {
		if ip != "" {
			held[canonicalIP(ip)] = true
		}
	}
	return held
}

// checkAddress says why an address that was asked for cannot be had.
func (a *allocator) checkAddress(ctx context.Context, family corev1.IPFamily, text string) error {
	ranges, err := a.view.ranges(ctx, family)
	if err != nil {
		return err
	}
	text = canonicalIP(text)
	address, err := netip.ParseAddr(text)
	if err != nil {
		return err
	}
	inside := false
	for _, r := range ranges {
		inside = inside || r.contains(address)
	}
	if !inside {
		return fmt.Errorf("the provided IP (%s) is not in the valid range. The range of valid IPs is %s", text, describe(ranges))
	}
	taken, err := a.view.addressTaken(ctx, text)
	if err != nil {
		return err
	}
	if taken {
		return errTaken
	}
	return nil
}

// freeAddress finds an address that nobody has: a few candidates are looked up, and only when all are taken the list.
func (a *allocator) freeAddress(ctx context.Context, family corev1.IPFamily) (string, error) {
	ranges, err := a.view.ranges(ctx, family)
	if err != nil {
		return "", err
	}
	if len(ranges) == 0 {
		return "", fmt.Errorf("no service range of family %s is ready", family)
	}
	for n := range uint64(maxProbes) {
		r := ranges[a.random(uint64(len(ranges)))]
		candidate, ok := r.candidate(a.random(maxRangeAddresses), n)
		if !ok || isReserved(a.primary, candidate) {
			continue
		}
		taken, err := a.view.addressTaken(ctx, candidate.String())
		if err != nil {
			return "", err
		}
		if !taken {
			return candidate.String(), nil
		}
	}
	taken, err := a.view.takenAddresses(ctx)
	if err != nil {
		return "", err
	}
	for _, r := range ranges {
		start := a.random(maxRangeAddresses)
		for n := uint64(0); ; n++ {
			candidate, ok := r.candidate(start, n)
			if !ok {
				break
			}
			if !isReserved(a.primary, candidate) && !taken[candidate.String()] {
				return candidate.String(), nil
			}
		}
	}
	return "", errFull
}

func (a *allocator) fillPorts(ctx context.Context, s, old *corev1.Service, dryRun bool) error {
	had := heldPorts(old)
	used := map[int32]bool{} // by this service, for whatever protocol
	if needsNodePorts(s) {
		if err := a.fillNodePorts(ctx, s, had, used, dryRun); err != nil {
			return err
		}
	}
	if !needsHealthCheckPort(s) || old != nil && needsHealthCheckPort(old) {
		return nil
	}
	if s.Spec.HealthCheckNodePort == 0 {
		port, err := a.freePort(ctx, used)
		if err != nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate requested HealthCheck NodePort %d: %w", 0, err))
		}
		s.Spec.HealthCheckNodePort = port
		return nil
	}
	if err := a.checkPort(ctx, s, s.Spec.HealthCheckNodePort, dryRun); err != nil && !had[s.Spec.HealthCheckNodePort] {
		return apierrors.NewInternalError(fmt.Errorf("failed to allocate requested HealthCheck NodePort %d: %w", s.Spec.HealthCheckNodePort, err))
	}
	return nil
}

// fillNodePorts gives each port a node port. One node port may serve several protocols of the same service, so those
// that are asked for are looked at first, and ports of equal number share.
func (a *allocator) fillNodePorts(ctx context.Context, s *corev1.Service, had, used map[int32]bool, dryRun bool) error {
	for i := range s.Spec.Ports {
		port := s.Spec.Ports[i].NodePort
		if port == 0 || used[port] {
			continue
		}
		used[port] = true
		if had[port] {
			continue
		}
		if err := a.checkPort(ctx, s, port, dryRun); err != nil {
			return invalidService(s, field.ErrorList{field.Invalid(field.NewPath("spec", "ports").Index(i).Child("nodePort"), port, err.Error())})
		}
	}
	type slot struct {
		protocol corev1.Protocol
		port     int32
	}
	taken := map[slot]bool{}
	shared := map[int32][]int32{} // node ports by service port
	for _, p := range s.Spec.Ports {
		if p.NodePort != 0 {
			taken[slot{p.Protocol, p.NodePort}] = true
			shared[p.Port] = append(shared[p.Port], p.NodePort)
		}
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.NodePort != 0 {
			continue
		}
		for _, candidate := range shared[p.Port] {
			if !taken[slot{p.Protocol, candidate}] {
				p.NodePort = candidate
				break
			}
		}
		if p.NodePort == 0 {
			port, err := a.choosePort(ctx, used, dryRun)
			if err != nil {
				return apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: %w", err))
			}
			p.NodePort, used[port] = port, true
			shared[p.Port] = append(shared[p.Port], port)
		}
		taken[slot{p.Protocol, p.NodePort}] = true
	}
	return nil
}

// heldPorts are the node ports that a service holds, its health check's included.
func heldPorts(s *corev1.Service) map[int32]bool {
	if s == nil {
		return map[int32]bool{}
	}
	held := map[int32]bool{}
	if needsNodePorts(s) {
		held = nodePortsOf(s)
	}
	if needsHealthCheckPort(s) && s.Spec.HealthCheckNodePort != 0 {
		held[s.Spec.HealthCheckNodePort] = true
	}
	return held
}

// checkPort says why a port that was asked for cannot be had. As in Kubernetes a dry run does not mind the range.
func (a *allocator) checkPort(ctx context.Context, s *corev1.Service, port int32, dryRun bool) error {
	if !dryRun && !a.ports.contains(port) {
		return fmt.Errorf("provided port is not in the valid range. The range of valid ports is %s", a.ports)
	}
	owner, err := a.view.portOwner(ctx, port)
	if err != nil {
		return err
	}
	if owner != "" && owner != ownerOf(s) {
		return errors.New("provided port is already allocated")
	}
	return nil
}

// choosePort takes a free port. As in Kubernetes a dry run counts on from the ports that were asked for, whatever they are.
func (a *allocator) choosePort(ctx context.Context, used map[int32]bool, dryRun bool) (int32, error) {
	if !dryRun || len(used) == 0 {
		return a.freePort(ctx, used)
	}
	last := int32(0)
	for port := range used {
		last = max(last, port)
	}
	return last + 1, nil
}

func (a *allocator) freePort(ctx context.Context, used map[int32]bool) (int32, error) {
	start := a.random(uint64(a.ports.last) + 1)
	for n := uint64(0); ; n++ {
		port, ok := a.ports.candidate(start, n)
		if !ok {
			return 0, errFull
		}
		if used[port] {
			continue
		}
		owner, err := a.view.portOwner(ctx, port)
		if err != nil {
			return 0, err
		}
		if owner == "" {
			return port, nil
		}
	}
}

// ownerOf names a service in the records of its ports.
func ownerOf(s *corev1.Service) string { return s.Namespace + "/" + s.Name }
