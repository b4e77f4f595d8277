package software

import (
	"bytes"
	"context"
	"errors"
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

	"github.com/podvine/podvine/cli/lab"
)

const (
	labName     = "software"
	sampleImage = "podvine.io/sample:v1"
	// rolesImage holds this test's binary.
	rolesImage = "podvine.io/roles:v1"
	// commandLimit bounds one command.
	commandLimit = 2 * time.Minute
	// settled is how long the cluster may take to do what it was told; it does not, but the machine may be busy.
	settled = 90 * time.Second
)

// the lab, made by TestMain
var (
	podvine  string
	programs string // the folder of helm, kwok and metrics-server
	folder   string
	hosts    = []string{"h1", "h2", "h3"}
)

// roles are the programs that this binary plays in a pod, by its first argument.
func roles() map[string]func() error {
	return map[string]func() error{"candidate": candidate, "say": say, "operator": operator, "garden": garden, "ask": ask}
}

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		if play := roles()[os.Args[1]]; play != nil {
			if err := play(); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", os.Args[1], err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}
	code, err := runInLab(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "software:", err)
		code = 1
	}
	os.Exit(code)
}

func runInLab(m *testing.M) (code int, err error) {
	if podvine = os.Getenv("PODVINE_BIN"); podvine == "" {
		return 1, errors.New("PODVINE_BIN names no binary: run the tests with `make test`")
	}
	if programs = os.Getenv("PODVINE_PROGRAMS"); programs == "" {
		return 1, errors.New("PODVINE_PROGRAMS names no folder: run the tests with `make test`")
	}
	programs = filepath.Join(programs, "software")
	if folder, err = os.MkdirTemp("", "podvine-software-"); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	defer func() {
		if code != 0 || err != nil {
			printLogs()
		}
		if out, downErr := exec.Command(podvine, "lab", "down", "--name", labName).CombinedOutput(); downErr != nil {
			err = errors.Join(err, fmt.Errorf("end the lab: %w: %s", downErr, out))
		}
	}()
	if out, err := exec.Command(podvine, "lab", "up", "--name", labName, "--hosts", fmt.Sprint(len(hosts))).CombinedOutput(); err != nil {
		return 1, fmt.Errorf("start the lab: %w: %s", err, out)
	}
	for _, host := range hosts {
		content, err := exec.Command(podvine, "lab", "kubeconfig", "--name", labName, "--host", host).Output()
		if err != nil {
			return 1, fmt.Errorf("get the kubeconfig of %s: %w", host, err)
		}
		if err := os.WriteFile(kubeconfig(host), content, 0o600); err != nil {
			return 1, err
		}
	}
	if err := importImages(); err != nil {
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
			fmt.Fprintln(os.Stderr, "software: read the agent's log:", err)
			continue
		}
		fmt.Fprintf(os.Stderr, "--- the end of the log of %s\n%s\n---\n", host, content[max(0, len(content)-lastBytes):])
	}
}

// importImages brings the sample application and this binary.
func importImages() error {
	sample, err := exec.Command(podvine, "lab", "image").Output()
	if err != nil {
		return fmt.Errorf("build the sample's image: %w", err)
	}
	if err := importArchive(sample); err != nil {
		return err
	}
	own, err := os.Executable()
	if err != nil {
		return err
	}
	return importProgram(rolesImage, own)
}

// importProgram brings an image that holds the program alone, and starts it.
func importProgram(image, path string) error {
	program, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("%w: run the tests with `make test`", err)
	}
	var archive bytes.Buffer
	if err := lab.WriteImage(&archive, image, program); err != nil {
		return err
	}
	return importArchive(archive.Bytes())
}

func importArchive(archive []byte) error {
	c := exec.Command(podvine, "image", "import", "-")
	c.Env, c.Stdin = append(os.Environ(), "KUBECONFIG="+kubeconfig("h1")), bytes.NewReader(archive)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("import an image: %w: %s", err, out)
	}
	return nil
}

// kubeconfig is the file of the administrator's kubeconfig that leads to the host's API.
func kubeconfig(host string) string { return filepath.Join(folder, host) }

// tryProgram runs a program against the host's API and returns what it printed.
func tryProgram(t testing.TB, host, stdin, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), commandLimit) // a clean-up runs commands too
	defer cancel()
	c := exec.CommandContext(ctx, program, args...)
	c.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig(host), "HOME="+folder)
	c.Stdin = strings.NewReader(stdin)
	out, err := c.CombinedOutput()
	return string(out), err
}

// kubectl runs the real kubectl at the host's API; a failure ends the test.
func kubectl(t testing.TB, host string, args ...string) string {
	t.Helper()
	out, err := tryProgram(t, host, "", podvine, append([]string{"kubectl"}, args...)...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// apply feeds the manifest to kubectl apply; what names no namespace goes to the given one, which may be empty where all do.
func apply(t testing.TB, namespace, manifest string) {
	t.Helper()
	args := []string{"kubectl", "apply", "-f", "-"}
	if namespace != "" {
		args = append(args, "--namespace", namespace)
	}
	if out, err := tryProgram(t, "h1", manifest, podvine, args...); err != nil {
		t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
}

// newNamespace makes a namespace and deletes it, with what is in it, when the test ends.
func newNamespace(t testing.TB, namespace string) {
	t.Helper()
	kubectl(t, "h1", "create", "namespace", namespace)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(describe(t, namespace))
		}
		if out, err := tryProgram(t, "h1", "", podvine, "kubectl", "delete", "namespace", namespace, "--timeout=90s"); err != nil {
			t.Errorf("delete namespace %s: %v: %s", namespace, err, out)
		}
	})
}

// describe shows the pods of a namespace, what they said last and what happened, for the reader of a failed test.
func describe(t testing.TB, namespace string) string {
	var all strings.Builder
	for _, args := range []string{"get all,leases -o wide", "get events --sort-by=.lastTimestamp"} {
		out, err := tryProgram(t, "h1", "", podvine, append([]string{"kubectl", "--namespace", namespace}, strings.Fields(args)...)...)
		fmt.Fprintf(&all, "--- kubectl %s (%v)\n%s", args, err, out)
	}
	pods, err := tryProgram(t, "h1", "", podvine, "kubectl", "--namespace", namespace, "get", "pods", "-o", "name")
	if err != nil {
		return all.String()
	}
	for _, pod := range strings.Fields(pods) {
		out, err := tryProgram(t, "h1", "", podvine, "kubectl", "--namespace", namespace, "logs", "--tail=40", pod)
		fmt.Fprintf(&all, "--- logs of %s (%v)\n%s", pod, err, out)
	}
	return all.String()
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

// eventually asks until the condition holds; it fails the test with the last answer when it does not in time.
func eventually(t testing.TB, what string, condition func() (string, bool)) time.Duration {
	t.Helper()
	const pause = 100 * time.Millisecond
	begun := time.Now()
	for {
		seen, ok := condition()
		took := time.Since(begun)
		if ok {
			return took
		}
		if took > settled {
			t.Fatalf("waited %v for %s; last seen:\n%s", settled, what, seen)
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("the test ended while it waited for %s", what)
		case <-time.After(pause):
		}
	}
}

// wants fails the test unless text contains every one of the parts.
func wants(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is missing in:\n%s", part, text)
		}
	}
}

// inCluster is the client configuration of a pod, and its namespace.
func inCluster() (*rest.Config, string, error) {
	config, err := rest.InClusterConfig()
	if err != nil {
		return nil, "", err
	}
	namespace, err := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	return config, string(namespace), err
}
