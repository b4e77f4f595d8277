// Package podtest is what the tests of agent/pods stand on: the programs built
// once, an image made of a small Go program, a network that is only loopback,
// and a node in temporary folders that leaves nothing behind.
package podtest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/podvine/podvine/agent/pods/images/archive"
)

// Image is the name under which tests import their image.
const Image = "podvine.test/box:1"

const (
	runcModule  = "github.com/opencontainers/runc"
	runcVersion = "v1.5.2"
	// waitLimit is how long Wait waits; it only passes when something is wrong.
	waitLimit = 30 * time.Second
	waitPause = 5 * time.Millisecond
)

// Programs are the binaries that tests run.
type Programs struct{ Shim, Runc, Box, Health string }

// Build builds the programs into the module's .build folder, or finds them
// there. Go's build cache makes a second build cheap.
func Build() (Programs, error) {
	root, err := output("", "go", "list", "-m", "-f", "{{.Dir}}")
	if err != nil {
		return Programs{}, err
	}
	dir := filepath.Join(root, ".build", "pods")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Programs{}, err
	}
	p := Programs{Shim: filepath.Join(dir, "podvine-shim"), Runc: filepath.Join(dir, "runc-"+runcVersion), Box: filepath.Join(dir, "testbox"), Health: filepath.Join(dir, "testhealth")}
	const mod = "github.com/podvine/podvine/agent/pods/"
	for out, pkg := range map[string]string{p.Shim: mod + "shim/podvine-shim", p.Box: mod + "internal/testbox", p.Health: mod + "internal/testhealth"} {
		if err := build(root, []string{"CGO_ENABLED=0"}, out, "-ldflags=-s -w", pkg); err != nil {
			return p, err
		}
	}
	if _, err := os.Stat(p.Runc); err == nil {
		return p, nil
	}
	src, err := output(root, "go", "mod", "download", "-json", runcModule+"@"+runcVersion)
	if err != nil {
		return p, err
	}
	_, rest, _ := strings.Cut(src, `"Dir": "`)
	src, _, _ = strings.Cut(rest, `"`)
	return p, build(src, []string{"CGO_ENABLED=1"}, p.Runc, "-tags=seccomp netgo osusergo", "-ldflags=-s -w -linkmode external -extldflags -static", ".")
}

// build writes beside out first, so that tests of other packages that run at
// the same time see a whole program.
func build(dir string, env []string, out string, args ...string) error {
	tmp := fmt.Sprintf("%s.%d", out, os.Getpid())
	cmd := exec.Command("go", append([]string{"build", "-buildvcs=false", "-trimpath", "-o", tmp}, args...)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if msg, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", filepath.Base(out), err, msg)
	}
	return os.Rename(tmp, out)
}

func output(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %v: %w: %s", name, args, err, errs.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// Archive makes a docker archive of an image whose root holds the test program
// and an /etc/passwd with a user "app".
func Archive(box, image string, change func(*v1.Config)) (io.Reader, error) {
	files, err := rootOf(box)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	err = archive.Write(&out, image, files, configure(change))
	return &out, err
}

// NewImage makes the image that Archive packs.
func NewImage(box string, change func(*v1.Config)) (v1.Image, error) {
	files, err := rootOf(box)
	if err != nil {
		return nil, err
	}
	return archive.Build(files, configure(change))
}

func rootOf(box string) ([]archive.File, error) {
	program, err := os.ReadFile(box)
	if err != nil {
		return nil, err
	}
	var files []archive.File
	for _, folder := range []string{"bin", "etc", "tmp", "proc", "sys", "dev"} {
		files = append(files, archive.File{Path: folder, Mode: fs.ModeDir | 0o777})
	}
	return append(files,
		archive.File{Path: "bin/box", Mode: 0o755, Content: program},
		archive.File{Path: "etc/passwd", Mode: 0o644, Content: []byte("root:x:0:0::/:/bin/box\napp:x:1000:1001::/tmp:/bin/box\n")},
		archive.File{Path: "etc/group", Mode: 0o644, Content: []byte("root:x:0:\napp:x:1001:\nextra:x:2000:app\n")}), nil
}

func configure(change func(*v1.Config)) func(*v1.Config) {
	return func(c *v1.Config) {
		c.Entrypoint, c.Env = []string{"/bin/box"}, []string{"PATH=/bin", "FROM_IMAGE=yes"}
		if change != nil {
			change(c)
		}
	}
}

// Wait polls until ok, and fails the test with what when it never is.
func Wait(t testing.TB, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(waitLimit)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("waited %s for: %s", waitLimit, what)
		}
		time.Sleep(waitPause)
	}
}

// Dirs are one node's folders, with paths short enough for sockets.
type Dirs struct{ Root, Cgroup string }

// NewDirs makes folders, and removes at the end of the test whatever is left:
// containers, shims, mounts, cgroups.
func NewDirs(t testing.TB) Dirs {
	t.Helper()
	root, err := os.MkdirTemp("/tmp", "pvt")
	if err != nil {
		t.Fatal(err)
	}
	d := Dirs{Root: root, Cgroup: "podvine-test-" + filepath.Base(root)}
	t.Cleanup(func() {
		if err := d.sweep(); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
	return d
}

// Loopback is a network in which a pod has nothing but itself.
type Loopback struct {
	mu    sync.Mutex
	Calls []string // guarded by mu
}

// Note records a call for tests that look.
func (l *Loopback) Note(call string) net.IP {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Calls = append(l.Calls, call)
	return net.IPv4(127, 0, 0, 1)
}

// Context ends with the test.
func Context(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}
