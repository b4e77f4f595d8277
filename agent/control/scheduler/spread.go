package scheduler

import (
	"math"

	v1 "k8s.io/api/core/v1"
)

// Pods of one controller that do not say how they want to be spread are spread over hosts and zones as far as
// nothing else speaks against it, with Kubernetes' built-in constraints.
const (
	defaultHostSkew = 3
	defaultZoneSkew = 5
)

// mates counts the pods on the node that the class's controller made.
func (c *constraints) mates(n *Node) (count int32) {
	if !c.spreadByDefault {
		return 0
	}
	for _, p := range n.Pods {
		if p.Controller == c.pod.Controller && p.Object.DeletionTimestamp == nil {
			count++
		}
	}
	return count
}

// zone numbers the node's zone; 0 is none.
func (e *evaluated) zone(n *Node) int32 {
	if !e.c.spreadByDefault || n.Object == nil {
		return 0
	}
	name, ok := n.Object.Labels[v1.LabelTopologyZone]
	if !ok {
		return 0
	}
	number, ok := e.zones[name]
	if !ok {
		if e.zones == nil {
			e.zones = map[string]int32{}
		}
		number = int32(len(e.zones) + 1)
		e.zones[name] = number
	}
	return number
}

// neighbours are the counts of a controller's pods, as raw scores: the fewer the better.
type neighbours struct {
	hostWeight      float64   // of each of them on the host
	zones           []float64 // of all of them in the zone
	lowest, highest int64
}

// gather counts; nil when the class is not spread by default or has no pods yet.
func (d *decider) gather(e *evaluated) *neighbours {
	if !e.c.spreadByDefault {
		return nil
	}
	zones := append(d.zones[:0], make([]float64, len(e.zones)+1)...)
	d.zones = zones
	total, hosts := int32(0), 0
	for i := range e.candidates {
		v := &e.candidates[i]
		zones[v.zone] += float64(v.mates)
		total += v.mates
		if v.fits {
			hosts++
		}
	}
	if total == 0 {
		return nil
	}
	weight := math.Log(float64(len(e.zones) + 2))
	for i := range zones {
		zones[i] = zones[i]*weight + defaultZoneSkew - 1
	}
	zones[0] = 0
	return &neighbours{zones: zones, hostWeight: math.Log(float64(hosts + 2)), lowest: math.MaxInt64}
}

func (n *neighbours) observe(v *candidate) {
	const half = 0.5 // rounds, of a positive number
	v.crowd = int64(float64(v.mates)*n.hostWeight + defaultHostSkew - 1 + n.zones[v.zone] + half)
	n.lowest, n.highest = min(n.lowest, v.crowd), max(n.highest, v.crowd)
}

func (n *neighbours) score(v *candidate) int64 {
	return weightSpread * (maxScore * (n.highest + n.lowest - v.crowd) / max(1, n.highest))
}
