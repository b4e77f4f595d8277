package software

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/podvine/podvine/cli/lab"
	"github.com/podvine/podvine/cli/lab/labtest"
)

const (
	labName     = "software"
	sampleImage = "podvine.io/sample:v1"
	// rolesImage holds this test's binary.
	rolesImage = "podvine.io/roles:v1"
	// settled is how long the cluster may take to do what it was told; it does not, but the machine may be busy.
	settled = 90 * time.Second
)

var (
	hosts    = []string{"h1", "h2", "h3"}
	cluster  = &labtest.Lab{Name: labName, Hosts: hosts}
	programs string // the folder of helm, kwok and metrics-server
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
	os.Exit(labtest.Run(m, cluster, prepare))
}

// prepare brings this binary.
func prepare() error {
	if programs = os.Getenv("PODVINE_PROGRAMS"); programs == "" {
		return errors.New("PODVINE_PROGRAMS names no folder: run the tests with `make test`")
	}
	programs = filepath.Join(programs, "software")
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
	return cluster.Import(archive.Bytes())
}

// tryProgram runs a program against the host's API and returns what it printed.
func tryProgram(t testing.TB, host, stdin, program string, args ...string) (string, error) {
	t.Helper()
	return cluster.TryProgram(t, host, stdin, program, args...)
}

// try runs podvine against the host's API and returns what it printed.
func try(t testing.TB, host, stdin string, args ...string) (string, error) {
	t.Helper()
	return cluster.Try(t, host, stdin, args...)
}

// kubectl runs the real kubectl at the host's API; a failure ends the test.
func kubectl(t testing.TB, host string, args ...string) string {
	t.Helper()
	return cluster.Run(t, host, append([]string{"kubectl"}, args...)...)
}

// apply feeds the manifest to kubectl apply; what names no namespace goes to the given one, which may be empty where all do.
func apply(t testing.TB, namespace, manifest string) {
	t.Helper()
	args := []string{"kubectl", "apply", "-f", "-"}
	if namespace != "" {
		args = append(args, "--namespace", namespace)
	}
	if out, err := try(t, "h1", manifest, args...); err != nil {
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
		if out, err := try(t, "h1", "", "kubectl", "delete", "namespace", namespace, "--timeout=90s"); err != nil {
			t.Errorf("delete namespace %s: %v: %s", namespace, err, out)
		}
	})
}

// describe shows the pods of a namespace, what they said last and what happened, for the reader of a failed test.
func describe(t testing.TB, namespace string) string {
	var all strings.Builder
	for _, args := range []string{"get all,leases -o wide", "get events --sort-by=.lastTimestamp"} {
		out, err := try(t, "h1", "", append([]string{"kubectl", "--namespace", namespace}, strings.Fields(args)...)...)
		fmt.Fprintf(&all, "--- kubectl %s (%v)\n%s", args, err, out)
	}
	pods, err := try(t, "h1", "", "kubectl", "--namespace", namespace, "get", "pods", "-o", "name")
	if err != nil {
		return all.String()
	}
	for _, pod := range strings.Fields(pods) {
		out, err := try(t, "h1", "", "kubectl", "--namespace", namespace, "logs", "--tail=40", pod)
		fmt.Fprintf(&all, "--- logs of %s (%v)\n%s", pod, err, out)
	}
	return all.String()
}

// clientOf reaches the API at the host.
func clientOf(t testing.TB, host string) (kubernetes.Interface, *rest.Config) {
	t.Helper()
	return cluster.Client(t, host)
}

func eventually(t testing.TB, what string, condition func() (string, bool)) time.Duration {
	t.Helper()
	return labtest.Eventually(t, settled, what, condition)
}

func wants(t testing.TB, text string, parts ...string) {
	t.Helper()
	labtest.Wants(t, text, parts...)
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
