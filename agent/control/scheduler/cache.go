package scheduler

import (
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// AssumedMaxSeconds is how long a pod whose binding was acknowledged counts on its node without the informer
// showing it. The informer reads the same store, so this is reached only when the pod was deleted meanwhile.
const AssumedMaxSeconds = 30

// Cache is the incremental picture of nodes and the pods on them. Events change it; View freezes it. Safe for
// concurrent use.
type Cache struct {
	mu     sync.Mutex
	nodes  map[string]*Node
	placed map[types.UID]placement
	// assumed are those of the placed that were not seen yet: there are few, and each cycle looks through them.
	assumed    map[types.UID]bool
	namespaces *Namespaces
	sorted     []*Node // nil after a change of which nodes there are
	changed    map[string]bool
	// nominated are the pods that wait for room on a node, budgets the disruption budgets; byNode and inOrder are made
	// of them for views, nil after a change.
	nominated map[types.UID]nomination
	byNode    map[string][]*Pod
	budgets   map[types.NamespacedName]*Budget
	inOrder   []*Budget
	services  services
}

type nomination struct {
	pod  *Pod
	node string
}

type placement struct {
	pod  *Pod
	node string
	// assumed is the time of the acknowledgement of a binding not yet seen; before it, the zero time.
	assumed bool
	expires time.Time // of an acknowledged assumption
}

// NewCache makes an empty cache.
func NewCache() *Cache {
	return &Cache{nodes: map[string]*Node{}, placed: map[types.UID]placement{}, assumed: map[types.UID]bool{}, changed: map[string]bool{},
		namespaces: &Namespaces{}, nominated: map[types.UID]nomination{}, budgets: map[types.NamespacedName]*Budget{},
		services: newServices()}
}

// SetNode adds or changes a node.
func (c *Cache) SetNode(object *v1.Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n, ok := c.nodes[object.Name]; ok {
		c.putLocked(n.withObject(object))
		return
	}
	c.putLocked(NewNode(object))
}

// RemoveNode removes a node. Pods that still say they run there are kept until they end.
func (c *Cache) RemoveNode(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n, ok := c.nodes[name]; ok {
		c.putLocked(n.withObject(nil))
	}
}

// SetPod notes a pod that has a node and has not ended; it confirms an assumption.
func (c *Cache) SetPod(pod *Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if before, ok := c.placed[pod.UID()]; ok && before.pod.Evicting {
		pod.Evicting = true
	}
	c.removeLocked(pod.UID())
	c.addLocked(placement{pod: pod, node: pod.Object.Spec.NodeName})
}

// RemovePod forgets a pod that ended or was deleted. It returns the pod as it was on its node, nil when on none.
func (c *Cache) RemovePod(uid types.UID) *Pod {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.withdrawLocked(uid)
	return c.removeLocked(uid)
}

// SetEvicting notes that the pod was told to go, or that this failed.
func (c *Cache) SetEvicting(uid types.UID, evicting bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, ok := c.placed[uid]
	if !ok || p.pod.Evicting == evicting {
		return
	}
	changed := *p.pod
	changed.Evicting = evicting
	p.pod = &changed
	c.removeLocked(uid)
	c.addLocked(p)
}

// Nominate notes that the pod waits for room on the node, or has a new object while it does; the empty node changes
// only a pod that waits already.
func (c *Cache) Nominate(pod *Pod, node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	before, ok := c.nominated[pod.UID()]
	switch {
	case c.placed[pod.UID()].pod != nil || node == "" && !ok:
		return
	case node == "":
		node = before.node
	}
	c.nominated[pod.UID()], c.byNode = nomination{pod, node}, nil
}

// Withdraw forgets that the pod waits for room on a node.
func (c *Cache) Withdraw(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.withdrawLocked(uid)
}

func (c *Cache) withdrawLocked(uid types.UID) {
	if _, ok := c.nominated[uid]; ok {
		delete(c.nominated, uid)
		c.byNode = nil
	}
}

// SetBudget notes a disruption budget; a nil one is gone.
func (c *Cache) SetBudget(name types.NamespacedName, budget *Budget) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inOrder = nil
	if budget == nil {
		delete(c.budgets, name)
		return
	}
	c.budgets[name] = budget
}

// Assume counts the pod on the node before its binding is known.
func (c *Cache) Assume(pod *Pod, node string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.placed[pod.UID()]; !ok {
		c.addLocked(placement{pod: pod, node: node, assumed: true})
	}
}

// Bound notes that the binding was acknowledged: if nothing is seen of it, the assumption ends in time.
func (c *Cache) Bound(uid types.UID, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.placed[uid]; ok && p.assumed {
		p.expires = now.Add(AssumedMaxSeconds * time.Second)
		c.placed[uid] = p
	}
}

// Forget takes back an assumption, not a pod that was seen on its node.
func (c *Cache) Forget(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.placed[uid]; ok && p.assumed {
		c.removeLocked(uid)
	}
}

// Expire forgets the assumptions whose time is over, and reports whether there were any.
func (c *Cache) Expire(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	expired := false
	for uid := range c.assumed {
		if p := c.placed[uid]; !p.expires.IsZero() && now.After(p.expires) {
			c.removeLocked(uid)
			expired = true
		}
	}
	return expired
}

// Has tells whether the pod is on a node, assumed or seen.
func (c *Cache) Has(uid types.UID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.placed[uid]
	return ok
}

// SetNamespace notes a namespace's labels; nil removes it.
func (c *Cache) SetNamespace(name string, labels map[string]string, exists bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := make(map[string]map[string]string, len(c.namespaces.Labels)+1)
	for key, value := range c.namespaces.Labels {
		next[key] = value
	}
	delete(next, name)
	if exists {
		next[name] = labels
	}
	c.namespaces = &Namespaces{Labels: next}
}

// SetService notes a service's selector; an empty one removes it.
func (c *Cache) SetService(name types.NamespacedName, selector map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.services.set(name, selector)
}

// View freezes the picture.
func (c *Cache) View() *View {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sorted == nil {
		c.sorted = make([]*Node, 0, len(c.nodes))
		for _, n := range c.nodes {
			c.sorted = append(c.sorted, n)
		}
		slices.SortFunc(c.sorted, byName)
	} else if len(c.changed) > 0 {
		c.sorted = slices.Clone(c.sorted) // an earlier view keeps its own
		for name := range c.changed {
			if at, ok := slices.BinarySearchFunc(c.sorted, &Node{Name: name}, byName); ok {
				c.sorted[at] = c.nodes[name]
			}
		}
	}
	clear(c.changed)
	if c.byNode == nil {
		c.byNode = make(map[string][]*Pod, len(c.nominated))
		for _, n := range c.nominated {
			c.byNode[n.node] = append(c.byNode[n.node], n.pod)
		}
	}
	if c.inOrder == nil {
		c.inOrder = make([]*Budget, 0, len(c.budgets))
		for _, budget := range c.budgets {
			c.inOrder = append(c.inOrder, budget)
		}
	}
	return &View{Nodes: c.sorted, Namespaces: c.namespaces, Services: c.services.freeze(), Nominated: c.byNode, Budgets: c.inOrder}
}

// Namespaces are the labels of the namespaces now.
func (c *Cache) Namespaces() *Namespaces {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.namespaces
}

func byName(a, b *Node) int {
	switch {
	case a.Name < b.Name:
		return -1
	case a.Name > b.Name:
		return 1
	}
	return 0
}

func (c *Cache) putLocked(n *Node) {
	_, known := c.nodes[n.Name]
	gone := n.Object == nil && len(n.Pods) == 0
	if gone {
		delete(c.nodes, n.Name)
	} else {
		c.nodes[n.Name] = n
	}
	if known == gone {
		c.sorted = nil
	}
	c.changed[n.Name] = true
}

func (c *Cache) addLocked(p placement) {
	c.withdrawLocked(p.pod.UID())
	c.placed[p.pod.UID()] = p
	if p.assumed {
		c.assumed[p.pod.UID()] = true
	}
	n, ok := c.nodes[p.node]
	if !ok {
		n = &Node{Name: p.node}
	}
	c.putLocked(n.With(p.pod))
}

func (c *Cache) removeLocked(uid types.UID) *Pod {
	p, ok := c.placed[uid]
	if !ok {
		return nil
	}
	delete(c.placed, uid)
	delete(c.assumed, uid)
	if n, ok := c.nodes[p.node]; ok {
		if next, found := n.Without(uid); found {
			c.putLocked(next)
		}
	}
	return p.pod
}
