package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	labName  = "mesh"
	appImage = "podvine.io/sample:v1"
	// commandLimit bounds one command.
	commandLimit = 90 * time.Second
	// parallelTests of those that may go at the same time mostly wait.
	parallelTests = "8"
)

// the lab, made by TestMain
var (
	podvine string
	folder  string
	hosts   = []string{"h1", "h2", "h3", "h4"}
)

func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", parallelTests); err != nil {
		fmt.Fprintln(os.Stderr, "mesh:", err)
		os.Exit(1)
	}
	code, err := runInLab(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mesh:", err)
		code = 1
	}
	os.Exit(code)
}

func runInLab(m *testing.M) (code int, err error) {
	if podvine = os.Getenv("PODVINE_BIN"); podvine == "" {
		return 1, fmt.Errorf("PODVINE_BIN names no binary: run the tests with `make test`")
	}
	if folder, err = os.MkdirTemp("", "podvine-mesh-"); err != nil {
		return 1, err
	}
	defer os.RemoveAll(folder)
	defer func() {
		if code != 0 || err != nil {
			printLogs()
		}
		if out, downErr := exec.Command(podvine, "lab", "down", "--name", labName).CombinedOutput(); downErr != nil {
			err = fmt.Errorf("end the lab: %w: %s", downErr, out)
		}
	}()
	if _, all, err := wantedSeeds(); err != nil {
		return 1, err
	} else if all {
		for i := len(hosts); i < drillHosts; i++ {
			hosts = append(hosts, fmt.Sprintf("h%d", i+1))
		}
	}
	begun := time.Now()
	if out, err := exec.Command(podvine, "lab", "up", "--name", labName, "--hosts", fmt.Sprint(len(hosts))).CombinedOutput(); err != nil {
		return 1, fmt.Errorf("start the lab: %w: %s", err, out)
	}
	fmt.Fprintf(os.Stderr, "%d hosts were Ready after %v\n", len(hosts), time.Since(begun).Round(time.Millisecond))
	for _, host := range hosts {
		content, err := exec.Command(podvine, "lab", "kubeconfig", "--name", labName, "--host", host).Output()
		if err != nil {
			return 1, fmt.Errorf("get the kubeconfig of %s: %w", host, err)
		}
		if err := os.WriteFile(kubeconfig(host), content, 0o600); err != nil {
			return 1, err
		}
	}
	if err := importImage(); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// printLogs shows the end of each agent's log, for the reader of a failed run.
func printLogs() {
	const lastBytes = 10 << 10
	for _, host := range hosts {
		content, err := os.ReadFile("/var/lib/podvine/labs/" + labName + "/hosts/" + host + "/agent.log")
		if err != nil {
			fmt.Fprintln(os.Stderr, "mesh: read the agent's log:", err)
			continue
		}
		fmt.Fprintf(os.Stderr, "--- the end of the log of %s\n%s\n---\n", host, content[max(0, len(content)-lastBytes):])
	}
}

// agentLog is what the host's agents have logged.
func agentLog(t *testing.T, host string) string {
	t.Helper()
	content, err := os.ReadFile("/var/lib/podvine/labs/" + labName + "/hosts/" + host + "/agent.log")
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func importImage() error {
	archive, err := exec.Command(podvine, "lab", "image").Output()
	if err != nil {
		return fmt.Errorf("build the sample's image: %w", err)
	}
	c := exec.Command(podvine, "image", "import", "-")
	c.Env, c.Stdin = append(os.Environ(), "KUBECONFIG="+kubeconfig("h1")), bytes.NewReader(archive)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("import the image: %w: %s", err, out)
	}
	return nil
}

// kubeconfig is the file of the administrator's kubeconfig that leads to the host's API.
func kubeconfig(host string) string { return filepath.Join(folder, host) }

// run runs podvine against the host's API and returns what it printed; a failure ends the test.
func run(t testing.TB, host string, args ...string) string {
	t.Helper()
	out, err := try(t, host, "", args...)
	if err != nil {
		t.Fatalf("podvine %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func try(t testing.TB, host, stdin string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), commandLimit) // a clean-up runs commands too
	defer cancel()
	c := exec.CommandContext(ctx, podvine, args...)
	c.Env, c.Stdin = append(os.Environ(), "KUBECONFIG="+kubeconfig(host)), strings.NewReader(stdin)
	out, err := c.CombinedOutput()
	return string(out), err
}

// clientOf reaches the API at the host.
func clientOf(t testing.TB, host string) (kubernetes.Interface, *rest.Config) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig(host))
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client, config
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

// eventually asks until the condition holds; it fails the test with the last answer when it does not in time.
func eventually(t testing.TB, limit time.Duration, what string, condition func() (string, bool)) time.Duration {
	t.Helper()
	const pause = 100 * time.Millisecond
	begun := time.Now()
	for {
		seen, ok := condition()
		took := time.Since(begun)
		if ok {
			return took
		}
		if took > limit {
			t.Fatalf("waited %v for %s; last seen:\n%s", limit, what, seen)
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("the test ended while it waited for %s", what)
		case <-time.After(pause):
		}
	}
}
