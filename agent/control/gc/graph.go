package gc

import (
	"slices"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Identity says where an object is. It costs a few words a live object; nothing else of objects without owners
// is kept.
type Identity struct {
	Resource        schema.GroupVersionResource
	Namespace, Name string
	UID             types.UID
}

// entry is an object as its watch showed it last.
type entry struct {
	Identity
	owners []metav1.OwnerReference
	// foreground and orphaning: the object is being deleted and waits for its dependents to go, or to be let go.
	foreground, orphaning bool
}

// Graph knows who owns whom. It holds what watches showed, which may lag; whoever destroys looks at the live
// objects first. Safe for concurrent use.
type Graph struct {
	mu         sync.Mutex
	records    map[types.UID]*entry
	dependents map[types.UID]map[types.UID]*entry // by the owner's UID, whether or not the owner is known
}

// NewGraph makes an empty graph.
func NewGraph() *Graph {
	return &Graph{records: map[types.UID]*entry{}, dependents: map[types.UID]map[types.UID]*entry{}}
}

// Observe notes an object as it is now and returns whom to look at.
func (g *Graph) Observe(resource schema.GroupVersionResource, object metav1.Object) []types.UID {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := &entry{Identity: Identity{resource, object.GetNamespace(), object.GetName(), object.GetUID()},
		owners: slices.Clone(object.GetOwnerReferences())}
	if object.GetDeletionTimestamp() != nil {
		next.foreground = slices.Contains(object.GetFinalizers(), metav1.FinalizerDeleteDependents)
		next.orphaning = slices.Contains(object.GetFinalizers(), metav1.FinalizerOrphanDependents)
	}
	old := g.records[next.UID]
	look := map[types.UID]bool{}
	if next.foreground || next.orphaning || g.doubtfulLocked(next) {
		look[next.UID] = true
	}
	if old != nil {
		// An owner that waited for this one may have waited long enough.
		for i := range old.owners {
			if owner := g.records[old.owners[i].UID]; owner != nil && owner.foreground && !blocks(next.owners, owner.UID) {
				look[owner.UID] = true
			}
		}
		g.unlinkLocked(old)
	}
	g.records[next.UID] = next
	for i := range next.owners {
		of := g.dependents[next.owners[i].UID]
		if of == nil {
			of = map[types.UID]*entry{}
			g.dependents[next.owners[i].UID] = of
		}
		of[next.UID] = next
	}
	return keys(look)
}

// doubtfulLocked tells whether an object's owners have to be looked at.
func (g *Graph) doubtfulLocked(r *entry) bool {
	return slices.ContainsFunc(r.owners, func(ref metav1.OwnerReference) bool {
		owner := g.records[ref.UID]
		return owner == nil || owner.foreground || owner.Namespace != "" && owner.Namespace != r.Namespace
	})
}

// Forget notes that an object is gone and returns whom to look at: its dependents, and owners that waited for it.
func (g *Graph) Forget(uid types.UID) []types.UID {
	g.mu.Lock()
	defer g.mu.Unlock()
	look := map[types.UID]bool{}
	for dependent := range g.dependents[uid] {
		look[dependent] = true
	}
	if old := g.records[uid]; old != nil {
		for i := range old.owners {
			if owner := g.records[old.owners[i].UID]; owner != nil && owner.foreground {
				look[owner.UID] = true
			}
		}
		g.unlinkLocked(old)
		delete(g.records, uid)
	}
	return keys(look)
}

func (g *Graph) unlinkLocked(r *entry) {
	for i := range r.owners {
		of := g.dependents[r.owners[i].UID]
		if delete(of, r.UID); len(of) == 0 {
			delete(g.dependents, r.owners[i].UID)
		}
	}
}

// Dependent is an object that names another as its owner.
type Dependent struct {
	Identity
	// Blocks: it keeps an owner that is deleted in the foreground.
	Blocks bool
	// Waits: it is itself being deleted and waits for its dependents.
	Waits bool
}

// Find returns where the object is, its dependents, and whether its owners or its deletion need a look; ok is
// false when it is not known.
func (g *Graph) Find(uid types.UID) (identity Identity, dependents []Dependent, doubtful, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.records[uid]
	if r == nil {
		return Identity{}, nil, false, false
	}
	for _, d := range g.dependents[uid] {
		dependents = append(dependents, Dependent{d.Identity, blocks(d.owners, uid), d.foreground})
	}
	return r.Identity, dependents, r.foreground || r.orphaning || g.doubtfulLocked(r), true
}

// Owner returns where a known owner is.
func (g *Graph) Owner(uid types.UID) (Identity, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r := g.records[uid]; r != nil {
		return r.Identity, true
	}
	return Identity{}, false
}

// Len is the number of known objects.
func (g *Graph) Len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.records)
}

func blocks(owners []metav1.OwnerReference, uid types.UID) bool {
	return slices.ContainsFunc(owners, func(ref metav1.OwnerReference) bool {
		return ref.UID == uid && ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion
	})
}

func keys(set map[types.UID]bool) []types.UID {
	var out []types.UID
	for uid := range set {
		out = append(out, uid)
	}
	return out
}
