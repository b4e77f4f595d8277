package scheduler

import (
	"encoding/binary"
	"maps"
	"slices"

	v1 "k8s.io/api/core/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1"
)

// What a container that requests nothing is counted as when nodes are scored, so that a thousand of them spread;
// Kubernetes' figures.
const (
	unsetRequestMilliCPU    = 100
	unsetRequestMemoryBytes = 200 << 20
)

// Resources is an amount of what a node has and pods request.
type Resources struct {
	MilliCPU, MemoryBytes, EphemeralBytes, Pods int64
	// Scalars are extended resources and huge pages; nil when there are none. Never changed after it is set.
	Scalars map[v1.ResourceName]int64
}

// NewResources reads a resource list; quantities are rounded up.
func NewResources(list v1.ResourceList) Resources {
	var r Resources
	for name, quantity := range list {
		switch name {
		case v1.ResourceCPU:
			r.MilliCPU = quantity.MilliValue()
		case v1.ResourceMemory:
			r.MemoryBytes = quantity.Value()
		case v1.ResourceEphemeralStorage:
			r.EphemeralBytes = quantity.Value()
		case v1.ResourcePods:
			r.Pods = quantity.Value()
		default:
			if r.Scalars == nil {
				r.Scalars = map[v1.ResourceName]int64{}
			}
			r.Scalars[name] = quantity.Value()
		}
	}
	return r
}

// plus is r + sign×other, in a new value.
func (r Resources) plus(other Resources, sign int64) Resources {
	r.MilliCPU += sign * other.MilliCPU
	r.MemoryBytes += sign * other.MemoryBytes
	r.EphemeralBytes += sign * other.EphemeralBytes
	r.Pods += sign * other.Pods
	if len(other.Scalars) > 0 {
		sum := maps.Clone(r.Scalars)
		if sum == nil {
			sum = make(map[v1.ResourceName]int64, len(other.Scalars))
		}
		for name, n := range other.Scalars {
			sum[name] += sign * n
		}
		r.Scalars = sum
	}
	return r
}

// Port is a host port as two pods may fight for it.
type Port struct {
	IP       string // "0.0.0.0" is every address
	Protocol v1.Protocol
	Port     int32
}

func (p Port) conflicts(other Port) bool {
	const every = "0.0.0.0"
	return p.Port == other.Port && p.Protocol == other.Protocol &&
		(p.IP == other.IP || p.IP == every || other.IP == every)
}

// Pod is a pod with what scheduling needs of it computed once. Never changed after [NewPod].
type Pod struct {
	Object   *v1.Pod
	Requests Resources
	// ScoredMilliCPU and ScoredMemoryBytes are the requests with unset ones counted.
	ScoredMilliCPU, ScoredMemoryBytes int64
	Ports                             []Port
	Priority                          int32
	// Class is equal for pods that every filter and score treats alike; empty for a pod that has a node.
	Class string
	// Controller that made the pod, if any: pods of one are spread by default. Replicated: it keeps a number of equal pods, which
	// services select alike.
	Controller types.UID
	Replicated bool
	// Evicting: the pod has been told to go for a more important one.
	Evicting bool
	// terms are the affinity terms, which also concern pods that come later.
	terms terms
}

// UID of the pod.
func (p *Pod) UID() types.UID { return p.Object.UID }

// NewPod computes a pod's requests (sidecars, init containers and overhead counted as Kubernetes counts them),
// ports and class. The object is kept, and must not change.
func NewPod(object *v1.Pod) *Pod {
	p := &Pod{Object: object, Priority: corev1.PodPriority(object), Ports: hostPorts(object)}
	options := resource.PodResourcesOptions{UseStatusResources: true}
	p.Requests = NewResources(resource.PodRequests(object, options))
	p.Requests.Pods = 1
	options.NonMissingContainerRequests = unsetRequests()
	scored := NewResources(resource.PodRequests(object, options))
	p.ScoredMilliCPU, p.ScoredMemoryBytes = scored.MilliCPU, scored.MemoryBytes
	p.terms = newTerms(object)
	if owner := metav1.GetControllerOfNoCopy(object); owner != nil {
		p.Controller = owner.UID
		p.Replicated = slices.Contains([]string{"ReplicaSet", "StatefulSet", "ReplicationController"}, owner.Kind)
	}
	if object.Spec.NodeName == "" {
		p.Class = class(p)
	}
	return p
}

func unsetRequests() v1.ResourceList {
	return v1.ResourceList{
		v1.ResourceCPU:    *apiresource.NewMilliQuantity(unsetRequestMilliCPU, apiresource.DecimalSI),
		v1.ResourceMemory: *apiresource.NewQuantity(unsetRequestMemoryBytes, apiresource.BinarySI),
	}
}

func hostPorts(pod *v1.Pod) []Port {
	var ports []Port
	add := func(containers []v1.Container, wanted func(v1.Container) bool) {
		for _, c := range containers {
			if !wanted(c) {
				continue
			}
			for _, port := range c.Ports {
				if port.HostPort > 0 {
					ports = append(ports, newPort(port))
				}
			}
		}
	}
	add(pod.Spec.Containers, func(v1.Container) bool { return true })
	add(pod.Spec.InitContainers, isSidecar) // an ordinary init container's ports are free before the others start
	return ports
}

func newPort(port v1.ContainerPort) Port {
	p := Port{IP: port.HostIP, Protocol: port.Protocol, Port: port.HostPort}
	if p.IP == "" {
		p.IP = "0.0.0.0"
	}
	if p.Protocol == "" {
		p.Protocol = v1.ProtocolTCP
	}
	return p
}

func isSidecar(c v1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
}

// class is a byte string of all that a filter or a score reads of a pod.
func class(p *Pod) string {
	spec := &p.Object.Spec
	b := make([]byte, 0, 256)
	number := func(n int64) { b = binary.AppendVarint(b, n) }
	text := func(s string) { number(int64(len(s))); b = append(b, s...) }
	pairs := func(m map[string]string) {
		number(int64(len(m)))
		for _, key := range slices.Sorted(maps.Keys(m)) {
			text(key)
			text(m[key])
		}
	}
	for _, n := range []int64{p.Requests.MilliCPU, p.Requests.MemoryBytes, p.Requests.EphemeralBytes,
		p.ScoredMilliCPU, p.ScoredMemoryBytes, int64(p.Priority), int64(len(p.Requests.Scalars))} {
		number(n)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Requests.Scalars)) {
		text(string(name))
		number(p.Requests.Scalars[name])
	}
	text(p.Object.Namespace)
	text(string(p.Controller))
	text(spec.NodeName)
	pairs(p.Object.Labels)
	pairs(spec.NodeSelector)
	number(int64(len(p.Ports)))
	for _, port := range p.Ports {
		text(port.IP)
		text(string(port.Protocol))
		number(int64(port.Port))
	}
	images := wantedImages(spec)
	number(int64(len(images)))
	for _, image := range images {
		text(image)
	}
	return string(appendMessages(b, spec))
}

// appendMessages adds the structured constraints in their wire form, which is canonical.
func appendMessages(b []byte, spec *v1.PodSpec) []byte {
	add := func(message []byte, err error) {
		if err != nil { // in-memory objects always encode; a lone class is the safe answer if ever not
			message = []byte(err.Error())
		}
		b = binary.AppendVarint(b, int64(len(message)))
		b = append(b, message...)
	}
	if spec.Affinity != nil {
		add(spec.Affinity.Marshal())
	}
	b = binary.AppendVarint(b, int64(len(spec.Tolerations)))
	for i := range spec.Tolerations {
		add(spec.Tolerations[i].Marshal())
	}
	b = binary.AppendVarint(b, int64(len(spec.TopologySpreadConstraints)))
	for i := range spec.TopologySpreadConstraints {
		add(spec.TopologySpreadConstraints[i].Marshal())
	}
	return b
}
