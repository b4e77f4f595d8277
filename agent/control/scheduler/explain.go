package scheduler

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// refuse words why no node took the pod, as kube-scheduler does, and makes room for it where that can be.
func (d *decider) refuse(e *evaluated, pod *Pod) *Refusal {
	counts, plugins := map[string]int{}, map[string]bool{}
	for i := range e.nodes {
		j := d.judge(e, i)
		if j.verdict == nodeGone {
			continue
		}
		plugins[j.verdict.refusal().plugin] = true
		for _, text := range e.c.texts(j) {
			counts[text]++
		}
	}
	r := &Refusal{Reason: v1.PodReasonUnschedulable, Plugins: sortedKeys(plugins), Message: available(d.present, counts)}
	preemption, withdraw, why := d.preempt(e, pod)
	if r.Preemption, r.Withdraw = preemption, withdraw; why != "" {
		r.Message += " preemption: " + why
	}
	return r
}

// removable tells whether the node could be had when pods left it.
func (j judgement) removable() bool { return j.verdict.refusal().removable && j.never == 0 }

// texts words a judgement.
func (c *constraints) texts(j judgement) []string {
	if j.verdict == resources {
		return c.shortageTexts(j.short)
	}
	return []string{j.verdict.refusal().text}
}

func available(nodes int, counts map[string]int) string {
	return fmt.Sprintf("0/%d nodes are available: %s.", nodes, histogram(counts))
}

func histogram(counts map[string]int) string {
	texts := make([]string, 0, len(counts))
	for text, n := range counts {
		texts = append(texts, fmt.Sprintf("%d %s", n, text))
	}
	sort.Strings(texts)
	return strings.Join(texts, ", ")
}

func sortedKeys(set map[string]bool) []string {
	keys := make([]string, 0, len(set))
	for key := range set {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}
