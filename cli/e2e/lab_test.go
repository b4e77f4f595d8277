package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	labName    = "e2e"
	shellImage = "podvine.io/shell:v1"
	appImage   = "podvine.io/sample:v1"
	// commandLimit bounds one command.
	commandLimit = 90 * time.Second
)

// the lab, made by TestMain
var (
	podvine    string
	kubeconfig string
	client     kubernetes.Interface
	restConfig *rest.Config
)

func TestMain(m *testing.M) {
	code, err := runInLab(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func runInLab(m *testing.M) (code int, err error) {
	if podvine = os.Getenv("PODVINE_BIN"); podvine == "" {
		return 1, fmt.Errorf("PODVINE_BIN names no binary: run the tests with `make test`")
	}
	folder, err := os.MkdirTemp("", "podvine-e2e-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	kubeconfig = filepath.Join(folder, "kubeconfig")
	defer func() {
		if code != 0 || err != nil {
			printLog()
		}
		if out, downErr := command("lab", "down", "--name", labName).CombinedOutput(); downErr != nil {
			err = fmt.Errorf("end the lab: %w: %s", downErr, out)
		}
	}()
	if out, err := command("lab", "up", "--name", labName, "--publish", "30080,30081").CombinedOutput(); err != nil {
		return 1, fmt.Errorf("start the lab: %w: %s", err, out)
	}
	content, err := command("lab", "kubeconfig", "--name", labName).Output()
	if err != nil {
		return 1, err
	}
	if err := os.WriteFile(kubeconfig, content, 0o600); err != nil {
		return 1, err
	}
	if restConfig, err = clientcmd.RESTConfigFromKubeConfig(content); err != nil {
		return 1, err
	}
	restConfig.QPS = -1
	if client, err = kubernetes.NewForConfig(restConfig); err != nil {
		return 1, err
	}
	if err := importImages(); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// printLog shows the end of the agent's log, for the reader of a failed run.
func printLog() {
	const lastBytes = 20 << 10
	content, err := os.ReadFile("/var/lib/podvine/labs/" + labName + "/hosts/h1/agent.log")
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e: read the agent's log:", err)
		return
	}
	fmt.Fprintf(os.Stderr, "--- the end of the agent's log\n%s\n---\n", content[max(0, len(content)-lastBytes):])
}

func command(args ...string) *exec.Cmd {
	c := exec.Command(podvine, args...)
	c.Env = append(os.Environ(), "KUBECONFIG="+kubeconfig)
	return c
}

// importImages brings the sample application and a shell with the usual tools, from the machine's static busybox.
func importImages() error {
	sample, err := command("lab", "image").Output()
	if err != nil {
		return fmt.Errorf("build the sample's image: %w", err)
	}
	shell, err := shellArchive()
	if err != nil {
		return fmt.Errorf("build the shell's image: %w", err)
	}
	for _, archive := range [][]byte{sample, shell} {
		c := command("image", "import", "-")
		c.Stdin = bytes.NewReader(archive)
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("import an image: %w: %s", err, out)
		}
	}
	return nil
}

func shellArchive() ([]byte, error) {
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return nil, fmt.Errorf("%w (install busybox-static)", err)
	}
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	for _, folder := range []string{"bin", "etc", "tmp", "root"} {
		if err := w.WriteHeader(&tar.Header{Name: folder + "/", Mode: 0o755, Typeflag: tar.TypeDir}); err != nil {
			return nil, err
		}
	}
	if err := w.WriteHeader(&tar.Header{Name: "bin/busybox", Mode: 0o755, Size: int64(len(busybox)), Typeflag: tar.TypeReg}); err != nil {
		return nil, err
	}
	if _, err := w.Write(busybox); err != nil {
		return nil, err
	}
	for _, tool := range strings.Fields("sh cat ls tar echo sleep env id hostname stat head tail true false test kill seq nc mkdir touch rm date") {
		if err := w.WriteHeader(&tar.Header{Name: "bin/" + tool, Linkname: "busybox", Typeflag: tar.TypeSymlink}); err != nil {
			return nil, err
		}
	}
	if err := w.WriteHeader(&tar.Header{Name: "etc/passwd", Mode: 0o644, Size: int64(len(passwd)), Typeflag: tar.TypeReg}); err != nil {
		return nil, err
	}
	if _, err := io.WriteString(w, passwd); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files.Bytes())), nil })
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config.OS, config.Architecture = "linux", "amd64"
	config.Config.Env, config.Config.Cmd = []string{"PATH=/bin"}, []string{"sh"}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return nil, err
	}
	tag, err := name.NewTag(shellImage)
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	err = tarball.Write(tag, image, &archive)
	return archive.Bytes(), err
}

const passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/tmp:/bin/sh\n"

// kubectl runs the real kubectl in the namespace and returns what it printed; a failure ends the test.
func kubectl(t *testing.T, namespace string, args ...string) string {
	t.Helper()
	out, err := tryKubectl(t, namespace, "", args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
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
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	defer cancel()
	c := exec.CommandContext(ctx, podvine, append([]string{"kubectl", "--kubeconfig", kubeconfig, "--namespace", namespace}, args...)...)
	c.Stdin = strings.NewReader(stdin)
	out, err := c.CombinedOutput()
	return string(out), err
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

// eventually asks until the condition holds; it fails the test with the last answer when it does not in time.
func eventually(t *testing.T, limit time.Duration, what string, condition func() (string, bool)) {
	t.Helper()
	const pause = 100 * time.Millisecond
	deadline := time.Now().Add(limit)
	for {
		seen, ok := condition()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s; last seen:\n%s", limit, what, seen)
		}
		select {
		case <-t.Context().Done():
			t.Fatalf("the test ended while it waited for %s", what)
		case <-time.After(pause):
		}
	}
}

// wants fails the test unless text contains every one of the parts.
func wants(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is missing in:\n%s", part, text)
		}
	}
}
