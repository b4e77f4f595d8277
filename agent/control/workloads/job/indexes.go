package job

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
)

// noIndex is that of a pod whose annotation is missing or of no use.
const noIndex = -1

// indexOf is a pod's completion index.
func indexOf(pod *v1.Pod) int {
	n, err := strconv.Atoi(pod.Annotations[batchv1.JobCompletionIndexAnnotation])
	if err != nil || n < 0 {
		return noIndex
	}
	return n
}

// indexSet is a set of indexes.
type indexSet map[int]bool

// parseIndexes reads "0,2-4" as the status has it; indexes of limit and above, and what cannot be read, are left out: a job
// that shrank forgets them.
func parseIndexes(s string, limit int) indexSet {
	set := indexSet{}
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRun := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		if err != nil {
			continue
		}
		last := first
		if isRun {
			if last, err = strconv.Atoi(to); err != nil {
				continue
			}
		}
		for n := first; n <= last && n < limit; n++ {
			set[n] = true
		}
	}
	return set
}

// String writes the set as the status has it: runs of three and more with a dash.
func (s indexSet) String() string {
	sorted := make([]int, 0, len(s))
	for n := range s {
		sorted = append(sorted, n)
	}
	slices.Sort(sorted)
	var parts []string
	for i := 0; i < len(sorted); {
		k := i
		for k+1 < len(sorted) && sorted[k+1] == sorted[k]+1 {
			k++
		}
		switch k - i {
		case 0:
			parts = append(parts, strconv.Itoa(sorted[i]))
		case 1:
			parts = append(parts, strconv.Itoa(sorted[i]), strconv.Itoa(sorted[k]))
		default:
			parts = append(parts, fmt.Sprintf("%d-%d", sorted[i], sorted[k]))
		}
		i = k + 1
	}
	return strings.Join(parts, ",")
}
