package scheduler

import v1 "k8s.io/api/core/v1"

// evaluated is a class and its evaluations, in the order of the view's nodes.
type evaluated struct {
	c          *constraints
	used       uint64
	seen       []*Node
	nodes      []evaluation
	candidates []candidate
	// ratings are what candidates score by themselves, negative where they do not fit: what each placement scans, one
	// beside the other. uneven counts the candidates with taints or preferences, whose scores depend on the others'.
	ratings []int32
	uneven  int
	related *related
	groups  groups
	// holders are the nodes that have each image of the class, present how many nodes there are: what the images'
	// scores were computed with.
	holders []int64
	present int
	counted bool
	// run and change are the number of the Decide, and of its last change of a node, that the class has seen.
	run    uint64
	change int
}

// judgement is what the filters say of a node alone.
type judgement struct {
	verdict verdict
	// short is the mask of the resources that are missing, never of those that the node would not have when empty.
	short, never uint64
}

// evaluation is what a class makes of one node. It holds as long as the node is the same.
type evaluation struct {
	object *v1.Node
	fixed  verdict
	judgement
	tally tally
	// images are the sizes of the class's images that the node has; nil when it has none.
	images []int64
}

// unfit is the rating of a node on which the class cannot be placed.
const unfit = -1

// candidate is the part of an evaluation that makes the score.
type candidate struct {
	fits                    bool
	intolerable, preference int32
	room, image             int32
}

func (c *candidate) uneven() bool { return c.intolerable != 0 || c.preference != 0 }

// rate brings the rating of a candidate that changed up to date.
func (e *evaluated) rate(i int) {
	e.groups.touch(i)
	e.ratings[i] = unfit
	if v := &e.candidates[i]; v.fits {
		e.ratings[i] = v.room + weightImages*v.image
	}
}

// refresh evaluates the nodes that changed since the class was last looked at.
func (e *evaluated) refresh(d *decider) {
	if count := len(d.nodes); len(e.seen) != count {
		e.nodes, e.seen, e.candidates = make([]evaluation, count), make([]*Node, count), make([]candidate, count)
		e.ratings, e.uneven = make([]int32, count), 0
		e.related, e.holders, e.run = newRelated(e.c, count), make([]int64, len(e.c.images)), 0
		e.groups = groups{wait: d.memo.grouping.after}
	}
	if e.run == d.memo.run {
		for _, i := range d.changes[e.change:] {
			if e.seen[i] != d.nodes[i] {
				e.evaluate(i, d.nodes[i])
			}
		}
	} else {
		for i, n := range d.nodes {
			if e.seen[i] != n {
				e.evaluate(i, n)
			}
		}
	}
	e.run, e.change = d.memo.run, len(d.changes)
	if len(e.c.images) > 0 && (!e.counted || e.present != d.present) {
		e.scoreImages(d.present)
	}
}

func (e *evaluated) evaluate(i int, n *Node) {
	v, to, c := &e.nodes[i], &e.candidates[i], e.c
	related := !c.relations.empty() || len(n.related) > 0 || len(v.tally.pulls)+len(v.tally.forbids) > 0
	if related {
		e.related.apply(i, &v.tally, -1)
	}
	e.seen[i] = n
	if v.object != n.Object || n.Object == nil {
		v.object, v.fixed = n.Object, c.static(n)
		if v.fixed == fits {
			if to.uneven() {
				e.uneven--
			}
			to.intolerable, to.preference = int32(c.intolerable(n)), int32(c.preference(n))
			if to.uneven() {
				e.uneven++
			}
		}
		e.related.place(i, n.Object)
		e.findImages(v, n.Object)
	}
	v.judgement = judgement{verdict: v.fixed}
	if v.fixed == fits {
		v.judgement = c.dynamic(n)
	}
	if to.fits = v.verdict == fits; to.fits {
		to.room = int32(c.room(n))
	}
	e.rate(i)
	if related {
		e.tally(n, &v.tally)
		e.related.apply(i, &v.tally, 1)
	}
}

// tally counts what all pods of the node are to the class.
func (e *evaluated) tally(n *Node, t *tally) {
	e.related.reset(t)
	pods := n.Pods
	if e.c.relations.empty() {
		pods = n.related
	}
	for _, p := range pods {
		e.related.take(t, p, 1, e.seen)
	}
}

// trial is a node as it would be with other pods on it.
type trial struct {
	e     *evaluated
	i     int
	node  Node // its Pods are not kept up, nothing that judges reads them
	delta tally
}

func (e *evaluated) try(i int) *trial {
	t := &trial{e: e, i: i, node: *e.seen[i]}
	e.related.reset(&t.delta)
	return t
}

// put puts a pod on the node, or takes one off it.
func (t *trial) put(p *Pod, sign int32) {
	t.node.add(p, int64(sign))
	t.node.setPorts(p, sign)
	t.e.related.take(&t.delta, p, sign, t.e.seen)
}

// judge runs all filters.
func (t *trial) judge() judgement {
	e := t.e
	if fixed := e.nodes[t.i].fixed; fixed != fits {
		return judgement{verdict: fixed}
	}
	if j := e.c.dynamic(&t.node); j.verdict != fits {
		return j
	}
	e.related.apply(t.i, &t.delta, 1)
	v := e.related.filter(t.i)
	e.related.apply(t.i, &t.delta, -1)
	return judgement{verdict: v}
}
