package scheduler

import "maps"

// MaxMemoEvaluations bounds the memory of a [Memo]: evaluations of a node by a class, about 200 bytes each. At
// 5,000 nodes 26 classes are remembered.
const MaxMemoEvaluations = 131_072

// MaxMemoClasses bounds the classes, which on a small cluster are what costs.
const MaxMemoClasses = 256

// Memo remembers, for classes of equal pods, what they make of each node, so that a decision looks again only
// at nodes that changed. A memo never changes a decision. Not safe for concurrent use.
type Memo struct {
	classes map[string]*evaluated
	clock   uint64
	// run counts the calls of Decide.
	run      uint64
	scratch  evaluated
	scan     *scan
	grouping grouping
	// namespaces that the classes were compiled with.
	namespaces *Namespaces
	services   *Services
}

// NewMemo makes an empty memo.
func NewMemo() *Memo {
	return &Memo{classes: map[string]*evaluated{}, scan: newScan(), grouping: usualGrouping()}
}

// class finds or compiles the pod's class.
func (m *Memo) class(pod *Pod, view *View) *evaluated {
	if m.namespaces != view.Namespaces {
		m.classes, m.namespaces = map[string]*evaluated{}, view.Namespaces
	}
	if m.services != view.Services {
		m.services = view.Services
		maps.DeleteFunc(m.classes, func(_ string, e *evaluated) bool { return !maps.Equal(m.services.servedBy(e.c.pod), e.c.servedBy) })
	}
	m.clock++
	if e, ok := m.classes[pod.Class]; ok {
		e.used = m.clock
		return e
	}
	if _, ok := pinned(pod.Object); ok {
		// A class of one pod that looks at one node is not worth remembering.
		m.scratch = evaluated{c: compile(pod, view)}
		return &m.scratch
	}
	for len(m.classes) >= min(MaxMemoClasses, max(1, MaxMemoEvaluations/max(1, len(view.Nodes)))) {
		m.evict()
	}
	e := &evaluated{c: compile(pod, view), used: m.clock}
	m.classes[pod.Class] = e
	return e
}

// evict forgets the class that was not used for longest.
func (m *Memo) evict() {
	oldest, used := "", m.clock+1
	for key, e := range m.classes {
		if e.used < used {
			oldest, used = key, e.used
		}
	}
	delete(m.classes, oldest)
}
