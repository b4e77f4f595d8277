package mesh

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// idleSpan is how long an idle mesh is looked at.
	idleSpan = time.Minute
	// ticksPerSecond is USER_HZ, in which the kernel counts CPU time for users; it is 100 on every architecture that Go runs on.
	ticksPerSecond = 100
)

// usage is what the agent and the network daemon of a host hold and used.
type usage struct {
	anonymousKB int
	ticks       int
}

// usages reads the usage of a host's programs: the agent's and the network daemon's, by name.
func usages(t testing.TB, host string) map[string]usage {
	t.Helper()
	// The lab's own init is a podvine, too.
	const look = `for p in /proc/[0-9]*; do tr '\0' ' ' < $p/cmdline | grep -q 'podvine agent\|podvine-netd' && echo "$(cut -c-12 $p/comm) $(grep RssAnon $p/status | tr -dc 0-9) $(cut -d')' -f2- $p/stat)"; done`
	found := map[string]usage{}
	for line := range strings.Lines(run(t, "h1", "lab", "exec", "--name", labName, host, "--", "sh", "-c", look)) {
		fields := strings.Fields(line)
		if len(fields) < 15 || fields[0] != "podvine" && fields[0] != "podvine-netd" {
			continue
		}
		// After the name, stat's fields 3 and on: 14 and 15 are the user's and the system's time.
		kb, err1 := strconv.Atoi(fields[1])
		user, err2 := strconv.Atoi(fields[2+14-3])
		system, err3 := strconv.Atoi(fields[2+15-3])
		if err1 != nil || err2 != nil || err3 != nil {
			t.Fatalf("%s: %q", host, line)
		}
		u := found[fields[0]]
		found[fields[0]] = usage{u.anonymousKB + kb, u.ticks + user + system}
	}
	if len(found) != 2 {
		t.Fatalf("%s runs %v", host, found)
	}
	return found
}

// BenchmarkIdle tells what a replica and an edge hold and use while nothing happens.
func BenchmarkIdle(b *testing.B) {
	healthy(b)
	roles := map[string]string{}
	for name, member := range members(b, "h1") {
		roles[name] = member.Role
	}
	for b.Loop() {
		before := map[string]map[string]usage{}
		for _, host := range hosts {
			before[host] = usages(b, host)
		}
		last(b, idleSpan)
		memory, cpu, count := map[string]int{}, map[string]int{}, map[string]int{}
		for _, host := range hosts {
			kind := "replica"
			if roles[host] == "edge" {
				kind = "edge"
			}
			count[kind]++
			for program, now := range usages(b, host) {
				memory[kind] += now.anonymousKB
				cpu[kind] += now.ticks - before[host][program].ticks
			}
		}
		for kind, n := range count {
			b.ReportMetric(float64(memory[kind])/1024/float64(n), kind+"-MB")
			b.ReportMetric(100*float64(cpu[kind])/float64(n)/ticksPerSecond/idleSpan.Seconds(), kind+"-%core")
		}
	}
}

// BenchmarkLeaderDeath tells how long no write is accepted after the leader's host loses its power, asked at a host that stays.
func BenchmarkLeaderDeath(b *testing.B) {
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		healthy(b)
		leader := quorumOf(b, "h1").Leader.Name
		stays := other(leader)
		client, _ := clientOf(b, stays)
		run(b, stays, "lab", "kill", "--name", labName, leader)
		killed := time.Now()
		name := fmt.Sprintf("after-death-%d", i)
		eventually(b, time.Minute, "a write without the leader", func() (string, bool) {
			ctx, cancel := context.WithTimeout(b.Context(), time.Second)
			defer cancel()
			_, err := client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
			return fmt.Sprint(err), err == nil || apierrors.IsAlreadyExists(err)
		})
		took = append(took, time.Since(killed))
		run(b, stays, "kubectl", "delete", "configmap", name)
		run(b, stays, "lab", "start", "--name", labName, leader)
		run(b, stays, "kubectl", "wait", "--for=condition=Ready", "node/"+leader, "--timeout=60s")
		answering(b, leader)
	}
	reportWorst(b, took)
}

// BenchmarkJoin tells how long a wiped host takes from its start until it is Ready again.
func BenchmarkJoin(b *testing.B) {
	var took []time.Duration
	for b.Loop() {
		healthy(b)
		wipe(b, "h3")
		begun := time.Now()
		run(b, "h1", "lab", "up", "--name", labName, "--hosts", fmt.Sprint(len(hosts)))
		run(b, "h1", "kubectl", "wait", "--for=condition=Ready", "node/h3", "--timeout=60s")
		took = append(took, time.Since(begun))
	}
	reportWorst(b, took)
}

func reportWorst(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds(), "median-s")
	b.ReportMetric(took[len(took)-1].Seconds(), "worst-s")
}
