package docs

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestReadmeTellsTheTruth runs what the README tells a newcomer to type, but for the two commands of make: `make test` runs
// this test, and what `make run` does beyond building is run here, twice, because it must be idempotent.
func TestReadmeTellsTheTruth(t *testing.T) {
	podvine := os.Getenv("PODVINE_BIN")
	if podvine == "" {
		t.Fatal("PODVINE_BIN names no binary: run the tests with `make test`")
	}
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	const demo = "bin/podvine lab demo"
	if !strings.Contains(string(makefile), "@"+demo+"\n") {
		t.Errorf("`make run` is not %q any more", demo)
	}
	t.Cleanup(func() {
		if out, err := exec.Command(podvine, "lab", "down").CombinedOutput(); err != nil {
			t.Errorf("lab down: %v: %s", err, out)
		}
	})
	var kubeconfig string
	for _, c := range commands(string(readme)) {
		switch name, rest, _ := strings.Cut(c.text, " "); name {
		case "make":
			if rest != "run" {
				continue
			}
			for range 2 {
				out := podvineOutput(t, podvine, kubeconfig, "lab", "demo")
				if !strings.Contains(out, "The sample application answers at http://127.0.0.1:") {
					t.Fatalf("the demonstration printed:\n%s", out)
				}
			}
		case "export":
			kubeconfig = rest
		case "bin/podvine":
			podvineOutput(t, podvine, kubeconfig, strings.Fields(rest)...)
		default:
			t.Errorf("README.md:%d: nothing runs %q", c.line, c.text)
		}
	}
}

func podvineOutput(t *testing.T, podvine, environment string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), podvine, args...)
	command.Env = append(os.Environ(), environment)
	out, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("podvine %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
