// Package kubectl runs kubectl, from its own published module, against a server of a test: the test binary starts itself
// again as kubectl, so that nothing needs to be installed. A package whose tests use it needs
//
//	func TestMain(m *testing.M) { kubectl.Main(m) }
package kubectl

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
	cmdutil "k8s.io/kubectl/pkg/cmd/util"
)

const (
	// asKubectl in the environment makes a test binary be kubectl.
	asKubectl = "PODVINE_TEST_AS_KUBECTL"
	// timeout bounds one call, on a machine that does much else.
	timeout = 60 * time.Second
)

// Main runs the tests of a package, or kubectl when this process was started as one. It does not return.
func Main(m *testing.M) {
	if os.Getenv(asKubectl) == "" {
		os.Exit(m.Run())
	}
	if err := cli.RunNoErrOutput(cmd.NewDefaultKubectlCommand()); err != nil {
		cmdutil.CheckErr(err) // ends the process
	}
	os.Exit(0)
}

// Kubectl calls kubectl with a kubeconfig.
type Kubectl struct {
	kubeconfig, home string
}

// New returns a caller with a home directory of its own, so that caches of other servers don't answer.
func New(t testing.TB, kubeconfig string) *Kubectl {
	t.Helper()
	return &Kubectl{kubeconfig: kubeconfig, home: t.TempDir()}
}

func (k *Kubectl) command(ctx context.Context, args []string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, self, args...)
	c.Env = append(os.Environ(), asKubectl+"=1", "KUBECONFIG="+k.kubeconfig, "HOME="+k.home)
	c.Dir = k.home
	return c, nil
}

// Try runs kubectl and returns what it printed, and its error with what it printed there.
func (k *Kubectl) Try(t testing.TB, stdin string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	c, err := k.command(ctx, args)
	if err != nil {
		return "", err
	}
	var out, errOut bytes.Buffer
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &out, &errOut
	if err := c.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, errOut.String())
	}
	return out.String(), nil
}

// Run runs kubectl, which must succeed, and returns what it printed.
func (k *Kubectl) Run(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	out, err := k.Try(t, stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Fail runs kubectl, which must fail with all of the words in what it says.
func (k *Kubectl) Fail(t testing.TB, stdin string, args []string, words ...string) {
	t.Helper()
	out, err := k.Try(t, stdin, args...)
	if err == nil {
		t.Fatalf("kubectl %s succeeded: %s", strings.Join(args, " "), out)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("want %q in: %v", word, err)
		}
	}
}

// Lines starts kubectl and returns its lines as they come. It ends with the test.
func (k *Kubectl) Lines(t testing.TB, args ...string) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c, err := k.command(ctx, args)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	c.Stderr = io.Discard
	if err := c.Start(); err != nil {
		cancel()
		t.Fatalf("start kubectl: %v", err)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			select {
			case lines <- scanner.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		for range lines { // until the reader has ended
		}
		if err := c.Wait(); err == nil {
			return
		} // killed, as it should be
	})
	return lines
}

// Next returns the next line that has all of the words.
func Next(t testing.TB, lines <-chan string, words ...string) string {
	t.Helper()
	deadline := time.After(timeout)
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				t.Fatalf("kubectl ended before a line with %q", words)
			}
			if containsAll(line, words) {
				return line
			}
		case <-deadline:
			t.Fatalf("no line with %q", words)
		}
	}
}

func containsAll(line string, words []string) bool {
	for _, word := range words {
		if !strings.Contains(line, word) {
			return false
		}
	}
	return true
}

// File writes content into a file in kubectl's directory and returns its path.
func (k *Kubectl) File(t testing.TB, name, content string) string {
	t.Helper()
	path := filepath.Join(k.home, name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
