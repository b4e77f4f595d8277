package gossip_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/podvine/podvine/gossip"
	"github.com/podvine/podvine/gossip/memnet"
)

// BenchmarkDeath tells, by the size of the cluster and in virtual time, when the death of a member is known to half and to all
// others, and what a member sends while nothing happens. docs/performance.md draws it.
func BenchmarkDeath(b *testing.B) {
	for _, members := range []int{3, 5, 10, 30, 100, 300, 1000} {
		b.Run(fmt.Sprintf("members=%d", members), func(b *testing.B) {
			var seconds, half []float64
			var idle float64
			for b.Loop() {
				// testing/synctest wants a test; a benchmark's own failures end it here.
				ok := testing.RunTests(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: b.Name(), F: func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						all, middle, bytes := die(t, members)
						seconds = append(seconds, all.Seconds())
						half = append(half, middle.Seconds())
						idle += bytes
					})
				}}})
				if !ok {
					b.Fatal("the simulation failed")
				}
			}
			slices.Sort(seconds)
			slices.Sort(half)
			b.ReportMetric(half[len(half)/2], "median-s-to-half")
			b.ReportMetric(seconds[len(seconds)/2], "median-s-to-all")
			b.ReportMetric(seconds[len(seconds)-1], "worst-s-to-all")
			if members <= largestQuiet {
				b.ReportMetric(idle/float64(len(seconds)), "B/s/member")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// largestQuiet is the largest cluster that is watched while nothing happens: a minute of that costs more than all the rest.
const largestQuiet = 300

// die has the last of so many members cut off. It returns after what time all others know, and half of them, and the bytes a
// second that a member sent before.
func die(t *testing.T, members int) (all, half time.Duration, idle float64) {
	const settle, quiet = 20 * time.Second, time.Minute // a member exchanges its whole state every 30 s, each at a time of its own
	network := new(memnet.Network)
	nodes := mesh(t, network, members)
	time.Sleep(settle) // what the beginning has to tell is told
	if members <= largestQuiet {
		_, before := network.Carried()
		time.Sleep(quiet)
		_, after := network.Carried()
		idle = float64(after-before) / quiet.Seconds() / float64(members)
	}
	victim := fmt.Sprint("node-", members-1)
	nodes[members-1].transport.SetCut(true)
	unknowing := slices.Clone(nodes[:members-1])
	begun := time.Now()
	await(t, time.Minute, "the death to be known to all", func() bool {
		unknowing = slices.DeleteFunc(unknowing, func(n node) bool { return member(n, victim).State == gossip.StateDead })
		if half == 0 && len(unknowing) <= members/2 {
			half = time.Since(begun)
		}
		return len(unknowing) == 0
	})
	all = time.Since(begun)
	shut(t, nodes...)
	return all, half, idle
}
