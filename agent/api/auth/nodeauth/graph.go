package nodeauth

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// kind is a kind of object that nodes may read only where one of their pods needs it.
type kind uint8

const (
	pods kind = iota
	secrets
	configMaps
	claims
	volumes
	accounts
	resourceClaims
	attachments
	resourceSlices
)

// key names an object; cluster-wide ones have no namespace.
type key struct {
	kind            kind
	namespace, name string
}

// edge says that an object uses another.
type edge struct{ user, used key }

// declaration is what one object tells: the node it is on ("" for none), and edges. No two objects declare the same edge.
type declaration struct {
	node  string
	edges []edge
}

// graph knows which node needs which object. Safe for concurrent use.
type graph struct {
	mu       sync.RWMutex
	declared map[key]declaration  // guarded by mu, by the object that declares
	users    map[key]map[key]bool // guarded by mu, an object to those that use it
}

func newGraph() *graph {
	return &graph{declared: map[key]declaration{}, users: map[key]map[key]bool{}}
}

// declare replaces what an object has told before.
func (g *graph) declare(owner key, d declaration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetLocked(owner)
	g.declared[owner] = d
	for _, e := range d.edges {
		if g.users[e.used] == nil {
			g.users[e.used] = map[key]bool{}
		}
		g.users[e.used][e.user] = true
	}
}

func (g *graph) withdraw(owner key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.forgetLocked(owner)
}

func (g *graph) forgetLocked(owner key) {
	for _, e := range g.declared[owner].edges {
		delete(g.users[e.used], e.user)
		if len(g.users[e.used]) == 0 {
			delete(g.users, e.used)
		}
	}
	delete(g.declared, owner)
}

// maxHops is the longest way from an object to a pod: secret, volume, claim, pod.
const maxHops = 3

// needs says whether the node, or a pod on it, needs the object.
func (g *graph) needs(node string, object key) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.reachesLocked(node, object, maxHops)
}

func (g *graph) reachesLocked(node string, object key, hops int) bool {
	if d, ok := g.declared[object]; ok && d.node != "" && d.node == node {
		return true
	}
	if hops == 0 {
		return false
	}
	for user := range g.users[object] {
		if g.reachesLocked(node, user, hops-1) {
			return true
		}
	}
	return false
}

func podKey(p *corev1.Pod) key { return key{pods, p.Namespace, p.Name} }

func (g *graph) setPod(p *corev1.Pod) {
	if p.Spec.NodeName == "" {
		g.withdraw(podKey(p))
		return
	}
	d := declaration{node: p.Spec.NodeName}
	// A mirror pod is the node's own writing: it must not open anything to that node.
	if _, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]; !mirror {
		for used := range podReferences(p) {
			d.edges = append(d.edges, edge{podKey(p), used})
		}
	}
	g.declare(podKey(p), d)
}

func volumeKey(v *corev1.PersistentVolume) key { return key{volumes, "", v.Name} }

func (g *graph) setVolume(v *corev1.PersistentVolume) {
	claim := v.Spec.ClaimRef
	if claim == nil {
		g.withdraw(volumeKey(v))
		return
	}
	d := declaration{edges: []edge{{key{claims, claim.Namespace, claim.Name}, volumeKey(v)}}}
	for _, used := range volumeSecrets(v) {
		d.edges = append(d.edges, edge{volumeKey(v), used})
	}
	g.declare(volumeKey(v), d)
}

func attachmentKey(a *storagev1.VolumeAttachment) key { return key{attachments, "", a.Name} }

func (g *graph) setAttachment(a *storagev1.VolumeAttachment) {
	g.declare(attachmentKey(a), declaration{node: a.Spec.NodeName})
}
