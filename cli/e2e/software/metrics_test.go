package software

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// moduleFolder is where the published files of a module are.
func moduleFolder(t testing.TB, module string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		t.Fatalf("find module %s: %v", module, err)
	}
	return strings.TrimSpace(string(out))
}

// moduleVersion is the version of a module that go.mod asks for.
func moduleVersion(t testing.TB, module string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Version}}", module).Output()
	if err != nil {
		t.Fatalf("find module %s: %v", module, err)
	}
	return strings.TrimSpace(string(out))
}

// TestMetricsServer installs metrics-server by its own chart: it asks every node's port for metrics, with its certificate checked, and
// `kubectl top` shows what it found.
func TestMetricsServer(t *testing.T) {
	t.Parallel() // it waits for most of the time
	const module, image = "sigs.k8s.io/metrics-server", "registry.k8s.io/metrics-server/metrics-server"
	version := moduleVersion(t, module)
	if err := importProgram(image+":"+version, filepath.Join(programs, "metrics-server")); err != nil {
		t.Fatal(err)
	}
	newNamespace(t, "metrics")
	helm(t, "h1", "install", "metrics-server", filepath.Join(moduleFolder(t, module), "charts", "metrics-server"), "-n", "metrics", "--set", "image.tag="+version, "--wait", "--timeout", "2m")
	t.Cleanup(func() {
		if out, err := tryHelm(t, "h1", "uninstall", "metrics-server", "-n", "metrics"); err != nil {
			t.Errorf("uninstall metrics-server: %v: %s", err, out)
		}
	})
	kubectl(t, "h2", "wait", "--for=condition=Available", "apiservice/v1beta1.metrics.k8s.io", "--timeout=60s")
	for _, host := range hosts {
		eventually(t, "the use of every node, asked at "+host, func() (string, bool) {
			out, err := try(t, host, "", "kubectl", "top", "nodes", "--no-headers")
			return out, err == nil && len(strings.Split(strings.TrimSpace(out), "\n")) == len(hosts) && !strings.Contains(out, "<unknown>")
		})
	}
	eventually(t, "the use of its own pod", func() (string, bool) {
		out, err := try(t, "h3", "", "kubectl", "-n", "metrics", "top", "pods", "--containers", "--no-headers")
		fields := strings.Fields(out)
		return out, err == nil && len(fields) == 4 && fields[1] == "metrics-server" && strings.HasSuffix(fields[2], "m") && strings.HasSuffix(fields[3], "Mi") && fields[3] != "0Mi"
	})
}
