package mesh

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	// seedsVariable has every drill run so many times, with victims by chance. Without it the short ones run once.
	seedsVariable = "PODVINE_DRILL_SEEDS"
	// faultSpan is how long a fault of the short drills lasts, longSpan of the others.
	faultSpan = 6 * time.Second
	longSpan  = 30 * time.Second
	// drillLoad is for how long a service is asked: a short fault and what follows.
	drillLoad = "12s"
	identity  = "drill-set"
)

// drill breaks something at a host while clients write and read, and mends it.
type drill struct {
	name string
	// short ones run with every `make test`.
	short bool
	// leader: the host leads; else it is one of the voters.
	leader bool
	run    func(t *testing.T, victim string)
}

// inflict runs a command of the lab.
func inflict(t *testing.T, args ...string) {
	t.Helper()
	run(t, hosts[0], append([]string{"lab", args[0], "--name", labName}, args[1:]...)...)
}

// last keeps a fault for a while.
func last(t testing.TB, span time.Duration) {
	t.Helper()
	select {
	case <-t.Context().Done():
	case <-time.After(span):
	}
}

// victim is the leader or one of the voters, by chance.
func (d drill) victim(t *testing.T, random *rand.Rand) string {
	t.Helper()
	status := quorumOf(t, hosts[0])
	if d.leader {
		return status.Leader.Name
	}
	return status.Voters[random.IntN(len(status.Voters))].Name
}

func other(host string) string {
	return hosts[(slices.Index(hosts, host)+1)%len(hosts)]
}

var drills = []drill{
	{"isolate the leader", true, true, func(t *testing.T, victim string) { whileIsolated(t, victim, faultSpan) }},
	{"hang the leader's disk", true, true, func(t *testing.T, victim string) { whileDisk(t, victim, "hang") }},
	{"kill the leader", false, true, func(t *testing.T, victim string) {
		inflict(t, "kill", victim)
		last(t, faultSpan)
		inflict(t, "start", victim)
	}},
	{"cut one way from the leader", false, true, func(t *testing.T, victim string) {
		inflict(t, "cut", "--one-way", victim, other(victim))
		last(t, faultSpan)
		inflict(t, "heal")
	}},
	{"cut one way to the leader", false, true, func(t *testing.T, victim string) {
		inflict(t, "cut", "--one-way", other(victim), victim)
		last(t, faultSpan)
		inflict(t, "heal")
	}},
	{"isolate for long", false, false, func(t *testing.T, victim string) { whileIsolated(t, victim, longSpan) }},
	{"flap", false, false, func(t *testing.T, victim string) {
		for range 10 {
			whileIsolated(t, victim, time.Second)
			last(t, time.Second)
		}
	}},
	{"pause a host", false, false, func(t *testing.T, victim string) {
		inflict(t, "pause", victim)
		last(t, faultSpan)
		inflict(t, "resume", victim)
	}},
	{"slow disk", false, false, func(t *testing.T, victim string) { whileDisk(t, victim, "slow") }},
	{"full disk", false, false, func(t *testing.T, victim string) { whileDisk(t, victim, "full") }},
	{"restart all at once", false, false, func(t *testing.T, _ string) {
		inflict(t, append([]string{"kill"}, hosts...)...)
		inflict(t, append([]string{"start"}, hosts...)...)
	}},
}

func whileIsolated(t *testing.T, victim string, span time.Duration) {
	t.Helper()
	inflict(t, "isolate", victim)
	last(t, span)
	inflict(t, "heal")
}

func whileDisk(t *testing.T, victim, fault string) {
	t.Helper()
	inflict(t, "disk", victim, fault)
	last(t, faultSpan)
	inflict(t, "disk", victim, "ok")
}

// TestDrills breaks the lab while clients at every host write and read, pods ask a service, and a StatefulSet runs.
func TestDrills(t *testing.T) {
	seeds, all := 1, false
	if told := os.Getenv(seedsVariable); told != "" {
		var err error
		if seeds, err = strconv.Atoi(told); err != nil {
			t.Fatalf("read %s: %v", seedsVariable, err)
		}
		all = true
	}
	healthy(t)
	for _, kind := range []string{"deployment", "statefulset"} {
		if out, err := try(t, "h1", drillObjects(kind), "kubectl", "create", "-f", "-"); err != nil {
			t.Fatalf("make the %s: %v: %s", kind, err, out)
		}
	}
	t.Cleanup(func() {
		run(t, "h1", "kubectl", "delete", "deployment/drill", "statefulset/"+identity, "service/drill")
	})
	run(t, "h1", "kubectl", "expose", "deployment", "drill", "--port=80", "--target-port=8080")
	run(t, "h1", "kubectl", "rollout", "status", "deployment/drill", "--timeout=60s")
	run(t, "h1", "kubectl", "rollout", "status", "statefulset/"+identity, "--timeout=60s")
	for seed := range seeds {
		for i, d := range drills {
			if d.short || all {
				t.Run(fmt.Sprintf("%s/%d", strings.ReplaceAll(d.name, " ", "-"), seed), func(t *testing.T) {
					play(t, d, rand.New(rand.NewPCG(uint64(seed), uint64(i))), fmt.Sprintf("%d-%d", seed, i))
				})
			}
		}
	}
}

func drillObjects(kind string) string {
	name, extra := "drill", ""
	if kind == "statefulset" {
		name, extra = identity, `"serviceName":"drill",`
	}
	return fmt.Sprintf(`{"apiVersion":"apps/v1","kind":%q,"metadata":{"name":%q},"spec":{%s"replicas":3,"selector":{"matchLabels":{"app":%[2]q}},
"template":{"metadata":{"labels":{"app":%[2]q}},"spec":{"containers":[{"name":"app","image":%[4]q}]}}}}`,
		map[string]string{"deployment": "Deployment", "statefulset": "StatefulSet"}[kind], name, extra, appImage)
}

func play(t *testing.T, d drill, random *rand.Rand, name string) {
	t.Cleanup(func() {
		inflict(t, "heal")
		inflict(t, append([]string{"start"}, hosts...)...)
		for _, host := range hosts {
			inflict(t, "resume", host)
			inflict(t, "disk", host, "ok")
		}
	})
	victim := d.victim(t, random)
	twice := watchIdentities(t)
	loaded := loadDuring(t, other(victim))
	written := startHistory(t, name)
	begun := time.Now()
	d.run(t, victim)
	mended := time.Now()
	for _, host := range hosts {
		answering(t, host)
	}
	healthy(t)
	t.Logf("the fault lasted %v; the quorum was healthy and every host answered %v after it was mended",
		mended.Sub(begun).Round(time.Millisecond), time.Since(mended).Round(time.Millisecond))
	run(t, "h1", "kubectl", "wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")
	run(t, "h1", "kubectl", "rollout", "status", "statefulset/"+identity, "--timeout=90s")
	run(t, "h1", "kubectl", "rollout", "status", "deployment/drill", "--timeout=90s")
	written.check(t)
	loaded(victim)
	for i := range 3 {
		pod := fmt.Sprintf("%s-%d", identity, i)
		eventually(t, 20*time.Second, "a name to resolve in "+pod, func() (string, bool) {
			answer, err := try(t, "h1", "", "kubectl", "exec", pod, "--", "/app", "get", "http://drill.default/")
			return fmt.Sprint(answer, err), err == nil && answeredBy(answer) != ""
		})
	}
	if seen := twice(); len(seen) > 0 {
		t.Errorf("identities ran twice: %v", seen)
	}
}

// watchIdentities looks at the machine's processes all the time: whatever the API says, no pod of the set may run twice. What
// it returns ends the watch and tells which did.
func watchIdentities(t *testing.T) func() []string {
	t.Helper()
	const pause = 100 * time.Millisecond
	stop := make(chan struct{})
	var once sync.Once
	var done sync.WaitGroup
	var twice []string
	done.Go(func() {
		for {
			for name, count := range runningIdentities() {
				if count > 1 && !slices.Contains(twice, name) {
					twice = append(twice, name)
				}
			}
			select {
			case <-stop:
				return
			case <-time.After(pause):
			}
		}
	})
	end := func() []string {
		once.Do(func() { close(stop) })
		done.Wait()
		return twice
	}
	t.Cleanup(func() { end() })
	return end
}

// runningIdentities counts the servers of the set's pods, by pod name. A process that ends meanwhile is none.
func runningIdentities() map[string]int {
	counts := map[string]int{}
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return counts // the pattern is right
	}
	for _, file := range files {
		if arguments, err := os.ReadFile(file); err != nil || string(arguments) != "/app\x00" {
			continue
		}
		environment, err := os.ReadFile(filepath.Join(filepath.Dir(file), "environ"))
		if err != nil {
			continue
		}
		for variable := range strings.SplitSeq(string(environment), "\x00") {
			if name, ok := strings.CutPrefix(variable, "HOSTNAME="); ok && strings.HasPrefix(name, identity+"-") {
				counts[name]++
			}
		}
	}
	return counts
}

// loadDuring has a pod on the host ask the drill's service all the time; what it returns waits for the end and tells how many
// requests were lost.
func loadDuring(t *testing.T, host string) func(victim string) {
	t.Helper()
	run(t, host, "kubectl", "run", "drill-load", "--image="+appImage, "--restart=Never", "--overrides", `{"spec":{"nodeName":"`+host+`"}}`)
	t.Cleanup(func() { run(t, "h1", "kubectl", "delete", "pod", "drill-load", "--now") })
	run(t, host, "kubectl", "wait", "--for=condition=Ready", "pod/drill-load", "--timeout=30s")
	type result struct {
		out string
		err error
	}
	told := make(chan result, 1)
	go func() {
		out, err := try(t, host, "", "kubectl", "exec", "drill-load", "--", "/app", "load", "http://drill.default/", drillLoad)
		told <- result{out, err}
	}()
	return func(victim string) {
		t.Helper()
		end := <-told
		var all struct{ Fresh, Kept outcome }
		lines := strings.Split(strings.TrimSpace(end.out), "\n")
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &all); err != nil {
			// A host that ends, ends its clients too; only then is there nothing to count.
			t.Logf("the load through %s (the victim was %s) was cut short: %v: %s", host, victim, end.err, end.out)
			return
		}
		t.Logf("victim %s: of %d requests by new connections %d were lost, of %d by kept ones %d",
			victim, all.Fresh.Requests, all.Fresh.Failed, all.Kept.Requests, all.Kept.Failed)
		if all.Fresh.Requests == all.Fresh.Failed || all.Kept.Requests == all.Kept.Failed {
			t.Error("no request was answered")
		}
	}
}
