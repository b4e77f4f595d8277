package mesh

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
)

// figure is what one run of a drill showed.
type figure struct {
	Passed bool
	// Standstill is the longest time in which no write was acknowledged through a host that was no victim, in seconds.
	Standstill float64
	// Mended is from the fault's end until the quorum was healthy and every host answered, in seconds.
	Mended float64
	// Asked and Lost count requests to a service, by new connections and by kept ones.
	Asked, Lost [2]int
}

// figures are those of all runs, by drill.
type figures map[string][]figure

func (f figures) add(drill string, one figure) { f[drill] = append(f[drill], one) }

// table shows the median, the 99th percentile and the worst of each drill's runs.
func (f figures) table() string {
	var out strings.Builder
	fmt.Fprint(&out, "median / p99 / worst:\n| drill | runs, passed | no write for, s | healthy after, s | lost by new connections | by kept ones |\n|---|---|---|---|---|---|\n")
	for _, drill := range slices.Sorted(maps.Keys(f)) {
		passed := 0
		var standstill, mended []float64
		var lost [2][]float64
		asked := [2]int{}
		for _, one := range f[drill] {
			if one.Passed {
				passed++
			}
			standstill, mended = append(standstill, one.Standstill), append(mended, one.Mended)
			for i := range asked {
				if one.Asked[i] > 0 {
					asked[i] += one.Asked[i]
					lost[i] = append(lost[i], float64(one.Lost[i]))
				}
			}
		}
		fmt.Fprintf(&out, "| %s | %d, %d | %s | %s | %s of %d | %s of %d |\n", drill, len(f[drill]), passed,
			spread(standstill, 1), spread(mended, 1), spread(lost[0], 0), asked[0]/max(1, len(lost[0])), spread(lost[1], 0), asked[1]/max(1, len(lost[1])))
	}
	return out.String()
}

// spread is the median, the 99th percentile and the largest, by the nearest rank.
func spread(values []float64, digits int) string {
	if len(values) == 0 {
		return "none"
	}
	sorted := slices.Sorted(slices.Values(values))
	rank := func(share float64) float64 { return sorted[max(0, int(math.Ceil(share*float64(len(sorted))))-1)] }
	return fmt.Sprintf("%.*f / %.*f / %.*f", digits, rank(0.5), digits, rank(0.99), digits, sorted[len(sorted)-1])
}

func TestFiguresSpread(t *testing.T) {
	if got := spread([]float64{3, 1, 2}, 0); got != "2 / 3 / 3" {
		t.Errorf("of 1, 2, 3: %s", got)
	}
	if got := spread(nil, 0); got != "none" {
		t.Errorf("of nothing: %s", got)
	}
}
