package scheduler

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"
)

// nominate notes that the pod waits for room on the node; it waits on no other then.
func (d *decider) nominate(pod *Pod, at int) {
	d.withdraw(pod.UID())
	d.nominated[at], d.nodeOf[pod.UID()] = append(d.nominated[at], pod), at
}

func (d *decider) withdraw(uid types.UID) {
	at, ok := d.nodeOf[uid]
	if !ok {
		return
	}
	delete(d.nodeOf, uid)
	d.nominated[at] = slices.DeleteFunc(d.nominated[at], func(p *Pod) bool { return p.UID() == uid })
	if len(d.nominated[at]) == 0 {
		delete(d.nominated, at)
	}
}

// before are the pods nominated for the node that go before the pod: others that are no less important.
func (d *decider) before(pod *Pod, at int) (others []*Pod) {
	for _, other := range d.nominated[at] {
		if other.Priority >= pod.Priority && other.UID() != pod.UID() {
			others = append(others, other)
		}
	}
	return others
}

// hold keeps nodes for the pods that are nominated for them, as far as the pod would take their room. What the filters
// say beside these pods goes before what they say without.
func (d *decider) hold(e *evaluated, pod *Pod) {
	for at := range d.nominated {
		others := d.before(pod, at)
		if len(others) == 0 || e.nodes[at].fixed != fits {
			continue
		}
		t := e.try(at)
		for _, other := range others {
			t.put(other, 1)
		}
		if j := t.judge(); j.verdict != fits {
			d.held[at] = j
			e.candidates[at].fits = false
			e.rate(at)
		}
	}
}

// release takes back what hold did.
func (d *decider) release(e *evaluated) {
	for at := range d.held {
		e.candidates[at].fits = e.nodes[at].verdict == fits
		e.rate(at)
		delete(d.held, at)
	}
}

// ownNomination is the node that the pod is nominated for, when it can have it; otherwise negative.
func (d *decider) ownNomination(e *evaluated, pod *Pod) int {
	at, ok := d.nodeOf[pod.UID()]
	if !ok || !e.candidates[at].fits || e.related.filter(at) != fits {
		return -1
	}
	return at
}

// judge is what all filters say of the node for the pod of the class, as things are.
func (d *decider) judge(e *evaluated, at int) judgement {
	if j, ok := d.held[at]; ok {
		return j
	}
	if j := e.nodes[at].judgement; j.verdict != fits {
		return j
	}
	return judgement{verdict: e.related.filter(at)}
}
