package mesh

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// loadMore is for how long a service is asked beyond the fault: traffic must come back too.
const loadMore = 6 * time.Second

// takesPods is a survivor whose disk was not full a moment ago: for five minutes after, a node refuses pods.
func takesPods(t *testing.T, victims []string) string {
	t.Helper()
	first := survivor(victims)
	from := slices.Index(hosts, first)
	for i := range hosts {
		host := hosts[(from+i)%len(hosts)]
		const pressed = `jsonpath={.status.conditions[?(@.type=="DiskPressure")].status}`
		if !slices.Contains(victims, host) && run(t, hosts[0], "kubectl", "get", "node", host, "-o", pressed) == "False" {
			return host
		}
	}
	return first
}

// loadDuring has a pod on the host ask the drill's service by its name, during the fault and what follows, whatever becomes of
// the API; what it returns waits for the end and counts the requests that were lost.
func loadDuring(t *testing.T, host string, span time.Duration) func(*figure) {
	t.Helper()
	run(t, host, "kubectl", "run", "drill-load", "--image="+appImage, "--restart=Never", "--overrides", `{"spec":{"nodeName":"`+host+`"}}`,
		"--", "load", "http://drill.default/", (span + loadMore).String())
	t.Cleanup(func() { run(t, hosts[0], "kubectl", "delete", "pod", "drill-load", "--now") })
	log := func() string {
		out, err := try(t, host, "", "kubectl", "logs", "drill-load")
		return fmt.Sprint(out, err)
	}
	eventually(t, drillLimit, "the load to begin", func() (string, bool) {
		out := log()
		state, err := try(t, host, "", "kubectl", "get", "pod", "drill-load", "-o", "jsonpath={.status}")
		return fmt.Sprint(out, state, err), strings.Contains(out, "all clients have asked")
	})
	begun := time.Now()
	return func(to *figure) {
		t.Helper()
		var all struct{ Fresh, Kept outcome }
		eventually(t, max(0, span+loadMore-time.Since(begun))+drillLimit, "the load to end", func() (string, bool) {
			out := log()
			if _, told, ok := strings.Cut(out, "\n{"); ok {
				line, _, _ := strings.Cut(told, "\n")
				return out, json.Unmarshal([]byte("{"+line), &all) == nil
			}
			phase, err := try(t, host, "", "kubectl", "get", "pod", "drill-load", "-o", "jsonpath={.status.phase}")
			return fmt.Sprint(out, phase, err), phase == "Failed"
		})
		if all.Fresh.Requests == 0 {
			t.Logf("the load's host ended, and its requests with it")
			return
		}
		to.Asked, to.Lost = [2]int{all.Fresh.Requests, all.Kept.Requests}, [2]int{all.Fresh.Failed, all.Kept.Failed}
		t.Logf("of %d requests by new connections %d were lost, of %d by kept ones %d",
			all.Fresh.Requests, all.Fresh.Failed, all.Kept.Requests, all.Kept.Failed)
		if all.Fresh.Requests == all.Fresh.Failed || all.Kept.Requests == all.Kept.Failed {
			t.Error("no request was answered")
		}
	}
}

// watchIdentities looks at the machine's processes all the time: whatever the API says, no pod of the set may run twice. What
// it returns ends the watch and tells which did.
func watchIdentities(t *testing.T) func() []string {
	t.Helper()
	const pause = 200 * time.Millisecond
	eventually(t, drillLimit, "every pod of the set to run once", func() (string, bool) {
		running := runningIdentities()
		ones := slices.DeleteFunc(slices.Collect(maps.Values(running)), func(count int) bool { return count != 1 })
		return fmt.Sprint(running), len(running) == identities && len(ones) == identities
	})
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
