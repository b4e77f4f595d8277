package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/podvine/podvine/agent/pods/images/archive"
	"github.com/podvine/podvine/cli/lab/labtest"
)

const (
	labName    = "e2e"
	host       = "h1"
	shellImage = "podvine.io/shell:v1"
	appImage   = "podvine.io/sample:v1"
)

var (
	cluster = &labtest.Lab{Name: labName, Hosts: []string{host}, Publish: "30080,30081"}

	// its API, by its first kubeconfig
	kubeconfig string
	client     kubernetes.Interface
	restConfig *rest.Config
)

func TestMain(m *testing.M) { os.Exit(labtest.Run(m, cluster, prepare)) }

func prepare() (err error) {
	kubeconfig = cluster.Kubeconfig(host)
	if restConfig, err = clientcmd.BuildConfigFromFlags("", kubeconfig); err != nil {
		return err
	}
	restConfig.QPS = -1
	if client, err = kubernetes.NewForConfig(restConfig); err != nil {
		return err
	}
	return importShell()
}

// importShell brings a shell with the usual tools, from the machine's static busybox.
func importShell() error {
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return fmt.Errorf("%w (install busybox-static)", err)
	}
	var files []archive.File
	for _, folder := range []string{"bin", "etc", "tmp", "root"} {
		files = append(files, archive.File{Path: folder, Mode: fs.ModeDir | 0o755})
	}
	files = append(files,
		archive.File{Path: "bin/busybox", Mode: 0o755, Content: busybox},
		archive.File{Path: "etc/passwd", Mode: 0o644, Content: []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n")})
	for _, tool := range strings.Fields("sh cat ls tar echo sleep env id hostname stat head tail true false test kill seq nc mkdir touch rm date") {
		files = append(files, archive.File{Path: "bin/" + tool, Link: "busybox"})
	}
	var content bytes.Buffer
	err = archive.Write(&content, shellImage, files, func(c *v1.Config) { c.Env, c.Cmd = []string{"PATH=/bin"}, []string{"sh"} })
	if err != nil {
		return err
	}
	return cluster.Import(content.Bytes())
}

// command is podvine with the arguments, for a caller that wants more than its output.
func command(args ...string) *exec.Cmd {
	return cluster.Command(context.Background(), host, args...)
}

// kubectl runs the real kubectl in the namespace and returns what it printed; a failure ends the test.
func kubectl(t *testing.T, namespace string, args ...string) string {
	t.Helper()
	return cluster.Run(t, host, append([]string{"kubectl", "--namespace", namespace}, args...)...)
}

// apply feeds the manifest to kubectl apply.
func apply(t *testing.T, namespace, manifest string) string {
	t.Helper()
	out, err := tryKubectl(t, namespace, manifest, "apply", "-f", "-")
	if err != nil {
		t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
	return out
}

func tryKubectl(t *testing.T, namespace, stdin string, args ...string) (string, error) {
	t.Helper()
	return cluster.Try(t, host, stdin, append([]string{"kubectl", "--namespace", namespace}, args...)...)
}

// newNamespace makes a namespace for the test and deletes it, with what is in it, when the test ends.
func newNamespace(t *testing.T) string {
	t.Helper()
	namespace := strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	namespace = strings.TrimPrefix(namespace, "test")
	kubectl(t, "default", "create", "namespace", namespace)
	t.Cleanup(func() {
		c := command("kubectl", "delete", "namespace", namespace, "--wait=false")
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("delete namespace %s: %v: %s", namespace, err, out)
		}
	})
	return namespace
}

func eventually(t *testing.T, limit time.Duration, what string, condition func() (string, bool)) {
	t.Helper()
	labtest.Eventually(t, limit, what, condition)
}

func wants(t *testing.T, text string, parts ...string) {
	t.Helper()
	labtest.Wants(t, text, parts...)
}
