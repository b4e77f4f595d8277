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
			shown := shownAfter(t, string(readme), "prints its address:")
			first, again := podvineOutput(t, podvine, kubeconfig, "lab", "demo"), podvineOutput(t, podvine, kubeconfig, "lab", "demo")
			if err := mismatch(shown, first); err != nil {
				t.Fatalf("README.md:%d: $ %s\n%v", c.line, c.text, err)
			}
			// The second run finds hosts and objects; what it says of the application is the same.
			if err := mismatch(append([]string{"..."}, shown[len(shown)-5:]...), again); err != nil {
				t.Fatalf("the second time: %v", err)
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

// shownAfter returns the lines that the page shows, indented, after the first line that ends with the words.
func shownAfter(t *testing.T, page, words string) []string {
	t.Helper()
	_, rest, found := strings.Cut(page, words+"\n\n")
	if !found {
		t.Fatalf("the page shows nothing after %q", words)
	}
	var shown []string
	for line := range strings.Lines(rest) {
		text, indented := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "    ")
		if !indented && text != "" {
			break
		}
		shown = append(shown, strings.ReplaceAll(text, "…", "..."))
	}
	return shown[:len(shown)-1] // a blank line ends the block
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
