// Package labtest gives the tests of a package a lab: hosts of their own, started before the first test and ended after the
// last, whatever happened. Tests run podvine and kubectl at its hosts as a user would. When a test failed, the log of every
// host is kept in one folder.
//
// Concurrency: after Run has called the tests, a Lab may be used by several goroutines.
package labtest

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
	// commandLimit bounds one command.
	commandLimit = 2 * time.Minute
	// pause is that between two looks at a condition.
	pause = 100 * time.Millisecond
	// shownLog is how much of each log of a failed run is printed, in bytes.
	shownLog = 10 << 10
)

// Lab is a lab of the package's own.
type Lab struct {
	Name    string   // as `podvine lab --name` takes it
	Hosts   []string // h1 and so on
	Publish string   // ports of the first host, as `podvine lab up --publish` takes them

	// Podvine is the binary, which PODVINE_BIN names.
	Podvine string
	// Folder is a temporary one, which ends with the lab.
	Folder string
}

// Run starts the lab, imports the sample application, prepares what else the package needs, runs the tests and ends the
// lab. It returns what the process shall exit with.
func Run(m *testing.M, l *Lab, prepare func() error) int {
	code, err := l.run(m, prepare)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", l.Name, err)
		return 1
	}
	return code
}

func (l *Lab) run(m *testing.M, prepare func() error) (code int, err error) {
	if l.Podvine = os.Getenv("PODVINE_BIN"); l.Podvine == "" {
		return 1, errors.New("PODVINE_BIN names no binary: run the tests with `make test`")
	}
	if l.Folder, err = os.MkdirTemp("", "podvine-"+l.Name+"-"); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(l.Folder)) }()
	defer func() {
		if code != 0 || err != nil {
			err = errors.Join(err, l.keepLogs())
		}
		if out, downErr := exec.Command(l.Podvine, "lab", "down", "--name", l.Name).CombinedOutput(); downErr != nil {
			err = errors.Join(err, fmt.Errorf("end the lab: %w: %s", downErr, out))
		}
	}()
	if err := l.up(); err != nil {
		return 1, err
	}
	if err := prepare(); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

func (l *Lab) up() error {
	begun := time.Now()
	args := []string{"lab", "up", "--name", l.Name, "--hosts", fmt.Sprint(len(l.Hosts))}
	if l.Publish != "" {
		args = append(args, "--publish", l.Publish)
	}
	if out, err := exec.Command(l.Podvine, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("start the lab: %w: %s", err, out)
	}
	fmt.Fprintf(os.Stderr, "the %d hosts of lab %s were Ready after %v\n", len(l.Hosts), l.Name, time.Since(begun).Round(time.Millisecond))
	for _, host := range l.Hosts {
		if err := l.RefreshKubeconfig(host); err != nil {
			return err
		}
	}
	sample, err := exec.Command(l.Podvine, "lab", "image").Output()
	if err != nil {
		return fmt.Errorf("build the sample's image: %w", err)
	}
	return l.Import(sample)
}

// keepLogs copies every host's log into one folder for the reader of a failed run, in place of those of the last one, and
// prints their ends.
func (l *Lab) keepLogs() error {
	folder := filepath.Join(os.TempDir(), "podvine-logs-"+l.Name)
	if err := errors.Join(os.RemoveAll(folder), os.Mkdir(folder, 0o700)); err != nil {
		return fmt.Errorf("keep the logs: %w", err)
	}
	var failed error
	for _, host := range l.Hosts {
		content, err := os.ReadFile(l.logPath(host))
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("keep the log of %s: %w", host, err))
			continue
		}
		failed = errors.Join(failed, os.WriteFile(filepath.Join(folder, host+".log"), content, 0o600))
		fmt.Fprintf(os.Stderr, "--- the end of the log of %s\n%s\n---\n", host, content[max(0, len(content)-shownLog):])
	}
	fmt.Fprintln(os.Stderr, "the hosts' logs are in", folder)
	return failed
}

func (l *Lab) logPath(host string) string {
	return filepath.Join(lab.Root, l.Name, "hosts", host, "agent.log")
}

// Log is what the host's agents have logged.
func (l *Lab) Log(t testing.TB, host string) string {
	t.Helper()
	content, err := os.ReadFile(l.logPath(host))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// Kubeconfig is the file of the administrator's kubeconfig that leads to the host's API.
func (l *Lab) Kubeconfig(host string) string { return filepath.Join(l.Folder, host+".kubeconfig") }

// RefreshKubeconfig takes the host's own kubeconfig of now; who reads the file meanwhile reads a whole one.
func (l *Lab) RefreshKubeconfig(host string) error {
	content, err := exec.Command(l.Podvine, "lab", "kubeconfig", "--name", l.Name, "--host", host).Output()
	if err != nil {
		return fmt.Errorf("get the kubeconfig of %s: %w", host, err)
	}
	fresh := l.Kubeconfig(host) + ".new"
	if err := os.WriteFile(fresh, content, 0o600); err != nil {
		return err
	}
	return os.Rename(fresh, l.Kubeconfig(host))
}

// Import brings the images of a docker archive to the lab.
func (l *Lab) Import(archive []byte) error {
	c := exec.Command(l.Podvine, "image", "import", "-")
	c.Env, c.Stdin = l.environment(l.Hosts[0]), bytes.NewReader(archive)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("import an image: %w: %s", err, out)
	}
	return nil
}

// environment leads a program to the host's API, and its own files to the lab's folder.
func (l *Lab) environment(host string) []string {
	return append(os.Environ(), "KUBECONFIG="+l.Kubeconfig(host), "HOME="+l.Folder)
}

// Command is podvine with the arguments at the host's API.
func (l *Lab) Command(ctx context.Context, host string, args ...string) *exec.Cmd {
	return l.Program(ctx, host, l.Podvine, args...)
}

// Program is any program with the arguments at the host's API.
func (l *Lab) Program(ctx context.Context, host, program string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, program, args...)
	c.Env = l.environment(host)
	return c
}

// Try runs podvine at the host's API and returns what it printed, on both streams.
func (l *Lab) Try(t testing.TB, host, stdin string, args ...string) (string, error) {
	t.Helper()
	return l.TryProgram(t, host, stdin, l.Podvine, args...)
}

// TryProgram runs any program at the host's API and returns what it printed, on both streams.
func (l *Lab) TryProgram(t testing.TB, host, stdin, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), commandLimit) // a clean-up runs commands too
	defer cancel()
	c := l.Program(ctx, host, program, args...)
	c.Stdin = strings.NewReader(stdin)
	out, err := c.CombinedOutput()
	return string(out), err
}

// Run runs podvine at the host's API and returns what it printed; a failure ends the test.
func (l *Lab) Run(t testing.TB, host string, args ...string) string {
	t.Helper()
	out, err := l.Try(t, host, "", args...)
	if err != nil {
		t.Fatalf("podvine %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// Client reaches the API at the host, as the administrator and without a limit of requests.
func (l *Lab) Client(t testing.TB, host string) (kubernetes.Interface, *rest.Config) {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", l.Kubeconfig(host))
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

// Eventually asks until the condition holds and returns how long that took; it fails the test with what was last seen when
// it does not in time.
func Eventually(t testing.TB, limit time.Duration, what string, condition func() (seen string, ok bool)) time.Duration {
	t.Helper()
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

// Wants fails the test unless text contains every one of the parts.
func Wants(t testing.TB, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is missing in:\n%s", part, text)
		}
	}
}
