package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// shell starts a pod that counts on its standard output and stays.
func shell(t *testing.T, namespace string) {
	t.Helper()
	apply(t, namespace, `
apiVersion: v1
kind: Pod
metadata: {name: shell}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: shell
    image: `+shellImage+`
    stdin: true
    command: [sh, -c, "n=0; while true; do n=$((n+1)); echo line $n; sleep 1; done"]
`)
	kubectl(t, namespace, "wait", "--for=condition=Ready", "pod/shell", "--timeout=60s")
}

func TestLogsFollow(t *testing.T) {
	ns := newNamespace(t)
	shell(t, ns)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := cluster.Command(ctx, host, "kubectl", "-n", ns, "logs", "-f", "shell")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for n := 1; n <= 4; n++ {
		if !lines.Scan() {
			t.Fatalf("the log ended before line %d: %v", n, lines.Err())
		}
		if want := fmt.Sprintf("line %d", n); lines.Text() != want {
			t.Fatalf("line %d is %q", n, lines.Text())
		}
	}
	cancel()
	if err := c.Wait(); err == nil {
		t.Error("logs -f ended by itself")
	}
	wants(t, kubectl(t, ns, "logs", "shell", "--tail=1", "--timestamps"), "Z line ")
}

func TestExecWithAndWithoutTerminal(t *testing.T) {
	ns := newNamespace(t)
	shell(t, ns)
	wants(t, kubectl(t, ns, "exec", "shell", "--", "sh", "-c", "echo out; hostname"), "out", "shell")
	out, err := tryKubectl(t, ns, "sent through\n", "exec", "-i", "shell", "--", "cat")
	if err != nil || out != "sent through\n" {
		t.Errorf("cat returned %q, %v", out, err)
	}
	if out, err := tryKubectl(t, ns, "", "exec", "shell", "--", "sh", "-c", "exit 7"); err == nil || !strings.Contains(out, "exit code 7") {
		t.Errorf("exit 7 returned %q, %v", out, err)
	}
	// script gives kubectl a terminal, as a person has.
	c := exec.CommandContext(t.Context(), "script", "-qec", fmt.Sprintf("%s kubectl --kubeconfig %s -n %s exec -it shell -- sh -c 'test -t 0 && echo a terminal'", cluster.Podvine, kubeconfig, ns), "/dev/null")
	terminal, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("exec -it: %v", err)
	}
	wants(t, string(terminal), "a terminal")
}

func TestPortForward(t *testing.T) {
	ns := newNamespace(t)
	kubectl(t, ns, "run", "web", "--image", appImage, "--port=8080")
	kubectl(t, ns, "wait", "--for=condition=Ready", "pod/web", "--timeout=60s")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c := cluster.Command(ctx, host, "kubectl", "-n", ns, "port-forward", "pod/web", ":8080")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	first, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var port int
	if _, err := fmt.Sscanf(first, "Forwarding from 127.0.0.1:%d", &port); err != nil {
		t.Fatalf("kubectl says %q: %v", first, err)
	}
	for range 3 {
		wants(t, get(t, fmt.Sprintf("http://127.0.0.1:%d/through", port)), "hello from web", "/through")
	}
	cancel()
	if err := c.Wait(); err == nil {
		t.Error("port-forward ended by itself")
	}
}

func TestCopyInAndOut(t *testing.T) {
	ns := newNamespace(t)
	shell(t, ns)
	folder := t.TempDir()
	content := strings.Repeat("0123456789abcdef\n", 64<<10)
	there, back := filepath.Join(folder, "there"), filepath.Join(folder, "back")
	if err := os.WriteFile(there, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	kubectl(t, ns, "cp", there, "shell:/tmp/file")
	kubectl(t, ns, "cp", "shell:/tmp/file", back)
	returned, err := os.ReadFile(back)
	if err != nil {
		t.Fatal(err)
	}
	if string(returned) != content {
		t.Errorf("%d bytes went there, %d other bytes came back", len(content), len(returned))
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	// A connection of its own, so that each request is balanced anew.
	response, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}
