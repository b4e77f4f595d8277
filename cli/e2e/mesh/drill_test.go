package mesh

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	// seedsVariable has every drill run so many times, with victims by chance, in a lab of drillHosts. Without it the short
	// ones run once, in the lab that the other tests have.
	seedsVariable = "PODVINE_DRILL_SEEDS"
	// drillHosts is the smallest number with five voters, any two of which may go.
	drillHosts = 5
	identity   = "drill-set"
	identities = 3
	// drillLimit bounds each wait for the lab to be as before.
	drillLimit = 2 * time.Minute
)

// drill breaks something at its victims while clients write and read, and mends it.
type drill struct {
	name string
	// short ones run with every `make test`.
	short   bool
	victims victims
	// span is about how long the fault lasts.
	span time.Duration
	run  func(t *testing.T, victims []string)
}

// victims says at which hosts something breaks.
type victims int

const (
	leading victims = iota
	// voting is one of the voters, by chance, votingTwo are two of them.
	voting
	votingTwo
	// everyOne leaves nobody to write through.
	everyOne
)

func (v victims) choose(t *testing.T, random *rand.Rand) []string {
	t.Helper()
	status := quorumOf(t, hosts[0])
	var voters []string
	for _, voter := range status.Voters {
		voters = append(voters, voter.Name)
	}
	random.Shuffle(len(voters), func(i, k int) { voters[i], voters[k] = voters[k], voters[i] })
	switch v {
	case leading:
		return []string{status.Leader.Name}
	case voting:
		return voters[:1]
	case votingTwo:
		return voters[:2]
	}
	return hosts
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

// survivor is a host beside the victims; the next one where there is none.
func survivor(victims []string) string {
	first := slices.Index(hosts, victims[0])
	for i := range hosts {
		if host := hosts[(first+i)%len(hosts)]; !slices.Contains(victims, host) {
			return host
		}
	}
	return hosts[(first+1)%len(hosts)]
}

// other is another host.
func other(host string) string { return survivor([]string{host}) }

// wantedSeeds is how often the drills run, and whether all of them do.
func wantedSeeds() (seeds int, all bool, err error) {
	told := os.Getenv(seedsVariable)
	if told == "" {
		return 1, false, nil
	}
	if seeds, err = strconv.Atoi(told); err != nil || seeds < 1 {
		return 0, false, fmt.Errorf("%s is %q: want how often the drills shall run", seedsVariable, told)
	}
	return seeds, true, nil
}

// TestDrills breaks the lab while clients at every host write and read, pods ask a service, and a StatefulSet runs.
func TestDrills(t *testing.T) {
	seeds, all, err := wantedSeeds()
	if err != nil {
		t.Fatal(err)
	}
	healthy(t)
	for _, kind := range []string{"Deployment", "StatefulSet"} {
		if out, err := try(t, hosts[0], drillObject(kind), "kubectl", "create", "-f", "-"); err != nil {
			t.Fatalf("make the %s: %v: %s", kind, err, out)
		}
	}
	t.Cleanup(func() {
		run(t, hosts[0], "kubectl", "delete", "deployment/drill", "statefulset/"+identity, "service/drill")
	})
	run(t, hosts[0], "kubectl", "expose", "deployment", "drill", "--port=80", "--target-port=8080")
	rolledOut(t)
	figures := figures{}
	t.Cleanup(func() { t.Log(figures.table()) })
	for seed := range seeds {
		for i, d := range drills {
			if d.short || all {
				t.Run(fmt.Sprintf("%s/%d", strings.ReplaceAll(d.name, " ", "-"), seed), func(t *testing.T) {
					figures.add(d.name, play(t, d, rand.New(rand.NewPCG(uint64(seed), uint64(i))), fmt.Sprintf("%d-%d", seed, i)))
				})
			}
		}
	}
}

// TestIdleClusterAppendsNothing holds the second law for several hosts: with nothing to do they write no entry into the log, for
// ten seconds, and for a minute where all drills run.
func TestIdleClusterAppendsNothing(t *testing.T) {
	quiet := 10 * time.Second
	if _, all, err := wantedSeeds(); err != nil {
		t.Fatal(err)
	} else if all {
		quiet = time.Minute
	}
	healthy(t)
	last, since := quorumOf(t, hosts[0]).LastIndex, time.Now()
	eventually(t, 5*quiet+drillLimit, fmt.Sprintf("%v without an entry in the log", quiet), func() (string, bool) {
		if now := quorumOf(t, hosts[0]).LastIndex; now != last {
			last, since = now, time.Now()
		}
		return time.Since(since).String(), time.Since(since) >= quiet
	})
}

func drillObject(kind string) string {
	name, extra := "drill", ""
	if kind == "StatefulSet" {
		name, extra = identity, `"serviceName":"drill",`
	}
	return fmt.Sprintf(`{"apiVersion":"apps/v1","kind":%q,"metadata":{"name":%q},"spec":{%s"replicas":%[5]d,"selector":{"matchLabels":{"app":%[2]q}},
"template":{"metadata":{"labels":{"app":%[2]q}},"spec":{"containers":[{"name":"app","image":%[4]q}]}}}}`, kind, name, extra, appImage, identities)
}

func rolledOut(t *testing.T) {
	t.Helper()
	for _, object := range []string{"statefulset/" + identity, "deployment/drill"} {
		run(t, hosts[0], "kubectl", "rollout", "status", object, "--timeout=80s")
	}
}

// play runs one drill and proves what must hold after each; name tells its objects from those of others.
func play(t *testing.T, d drill, random *rand.Rand, name string) figure {
	t.Cleanup(func() { mendAll(t) })
	chosen := d.victims.choose(t, random)
	t.Logf("victims: %v", chosen)
	twice := watchIdentities(t)
	loaded := loadDuring(t, takesPods(t, chosen), d.span)
	written := startHistory(t, name, chosen)
	begun := time.Now()
	d.run(t, chosen)
	mended := time.Now()
	for _, host := range hosts {
		answering(t, host)
	}
	healthy(t)
	seen := figure{Mended: time.Since(mended).Seconds()}
	t.Logf("the fault lasted %v; the quorum was healthy and every host answered %v after it was mended",
		mended.Sub(begun).Round(time.Millisecond), time.Since(mended).Round(time.Millisecond))
	run(t, hosts[0], "kubectl", "wait", "--for=condition=Ready", "node", "--all", "--timeout=80s")
	rolledOut(t)
	written.check(t)
	seen.Standstill = written.standstill(t, begun, mended, d.victims != everyOne).Seconds()
	loaded(&seen)
	for i := range identities {
		pod := fmt.Sprintf("%s-%d", identity, i)
		eventually(t, drillLimit, "a name to resolve in "+pod, func() (string, bool) {
			answer, err := try(t, hosts[0], "", "kubectl", "exec", pod, "--", "/app", "get", "http://drill.default/")
			return fmt.Sprint(answer, err), err == nil && answeredBy(answer) != ""
		})
	}
	if names := twice(); len(names) > 0 {
		t.Errorf("identities ran twice: %v", names)
	}
	seen.Passed = !t.Failed()
	t.Logf("figure of %s: %+v", d.name, seen)
	return seen
}

// mendAll undoes every fault, also when a drill ended in its midst.
func mendAll(t *testing.T) {
	t.Helper()
	inflict(t, "heal")
	inflict(t, append([]string{"start"}, hosts...)...)
	inflict(t, append([]string{"resume"}, hosts...)...)
	for _, host := range hosts {
		inflict(t, "disk", host, "ok")
	}
}
