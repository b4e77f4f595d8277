package mesh

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/podvine/podvine/cli/lab/labtest"
)

const (
	labName  = "mesh"
	appImage = "podvine.io/sample:v1"
	// parallelTests of those that may go at the same time mostly wait.
	parallelTests = "8"
)

var (
	hosts   = []string{"h1", "h2", "h3", "h4"}
	cluster = &labtest.Lab{Name: labName}
)

func TestMain(m *testing.M) {
	flag.Parse()
	if err := choose(); err != nil {
		fmt.Fprintln(os.Stderr, "mesh:", err)
		os.Exit(1)
	}
	cluster.Hosts = hosts
	os.Exit(labtest.Run(m, cluster, func() error { return nil }))
}

// choose makes hosts as many as the drills need, when all of them are wanted.
func choose() error {
	if err := flag.Set("test.parallel", parallelTests); err != nil {
		return err
	}
	_, all, err := wantedSeeds()
	if all {
		for i := len(hosts); i < drillHosts; i++ {
			hosts = append(hosts, fmt.Sprintf("h%d", i+1))
		}
	}
	return err
}

// agentLog is what the host's agents have logged.
func agentLog(t *testing.T, host string) string {
	t.Helper()
	return cluster.Log(t, host)
}

func kubeconfig(host string) string { return cluster.Kubeconfig(host) }

// run runs podvine against the host's API and returns what it printed; a failure ends the test.
func run(t testing.TB, host string, args ...string) string {
	t.Helper()
	return cluster.Run(t, host, args...)
}

func try(t testing.TB, host, stdin string, args ...string) (string, error) {
	t.Helper()
	return cluster.Try(t, host, stdin, args...)
}

// clientOf reaches the API at the host.
func clientOf(t testing.TB, host string) (kubernetes.Interface, *rest.Config) {
	t.Helper()
	return cluster.Client(t, host)
}

// status is a member as `podvine members -o json` tells.
type status struct {
	Name, ID, Role   string
	Address, Version string
	Alive            bool
}

func members(t testing.TB, host string) map[string]status {
	t.Helper()
	all, err := tryMembers(t, host)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// tryMembers is members at a host that may not answer.
func tryMembers(t testing.TB, host string) (map[string]status, error) {
	t.Helper()
	out, err := try(t, host, "", "members", "-o", "json")
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	var list []status
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		return nil, err
	}
	byName := map[string]status{}
	for _, member := range list {
		if _, twice := byName[member.Name]; twice {
			t.Errorf("%s is listed twice: %+v", member.Name, list)
		}
		byName[member.Name] = member
	}
	return byName, nil
}

func eventually(t testing.TB, limit time.Duration, what string, condition func() (string, bool)) time.Duration {
	t.Helper()
	return labtest.Eventually(t, limit, what, condition)
}
