package mesh

import (
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/podvine/podvine/cli/lab"
)

// ownImage is an archive of the sample application under another name, with a layer that no host has.
func ownImage(t *testing.T, name string) []byte {
	t.Helper()
	program, err := os.ReadFile(filepath.Join(os.Getenv("PODVINE_PROGRAMS"), "podvine-sample"))
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := lab.WriteImage(&archive, name, append(program, name...)); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

// holders are the hosts that hold the image.
func holders(t *testing.T, image string) []string {
	t.Helper()
	var list []struct {
		Name  string
		Nodes []string
	}
	out, err := cluster.Command(t.Context(), "h1", "image", "ls", "-o", "json").Output() // what it says of nodes that cannot be asked is no JSON
	if err == nil {
		err = json.Unmarshal(out, &list)
	}
	if err != nil {
		t.Fatalf("image ls: %v: %s", err, out)
	}
	var on []string
	for _, held := range list {
		if held.Name == image {
			on = append(on, held.Nodes...)
		}
	}
	return slices.Sorted(slices.Values(on))
}

// runOn starts a pod of the image on the host and waits until it is ready.
func runOn(t *testing.T, host, name, image string) {
	t.Helper()
	run(t, "h1", "kubectl", "run", name, "--image="+image, "--restart=Never", "--overrides", `{"spec":{"nodeName":"`+host+`"}}`)
	t.Cleanup(func() { run(t, "h1", "kubectl", "delete", "pod", name, "--now") })
	run(t, "h1", "kubectl", "wait", "--for=condition=Ready", "pod/"+name, "--timeout=30s")
}

// An image that one host has starts on any, without a registry; to be had everywhere at once is what import does by itself.
func TestImagesComeFromOtherHosts(t *testing.T) {
	const image, pushed = "podvine.io/from-peers:v1", "podvine.io/pushed:v1"
	if out, err := try(t, "h2", string(ownImage(t, image)), "image", "import", "-", "--to", "h1"); err != nil {
		t.Fatalf("import: %v: %s", err, out)
	}
	if on := holders(t, image); !slices.Equal(on, []string{"h1"}) {
		t.Fatalf("imported to h1, %v hold it", on)
	}
	runOn(t, "h4", "from-peers", image)
	if on := holders(t, image); !slices.Equal(on, []string{"h1", "h4"}) {
		t.Errorf("after a pod of h4, %v hold it", on)
	}
	for format, part := range map[string]string{"yaml": "- h4", "wide": "h1,h4"} {
		if out := run(t, "h3", "image", "ls", "-o", format); !strings.Contains(out, part) {
			t.Errorf("image ls -o %s:\n%s", format, out)
		}
	}

	push(t, pushed)
	if on := holders(t, pushed); !slices.Equal(on, hosts) {
		t.Errorf("pushed to all, %v hold it", on)
	}
	run(t, "h2", "image", "rm", pushed)
	if on := holders(t, pushed); len(on) > 0 {
		t.Errorf("removed, %v hold it", on)
	}
}

// push has an engine on a socket give the image.
func push(t *testing.T, image string) {
	t.Helper()
	archive := ownImage(t, image)
	socket := filepath.Join(t.TempDir(), "engine.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	engine := &httptest.Server{Listener: listener, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/images/get" || r.URL.Query().Get("names") != image {
			http.Error(w, `{"message":"no such image"}`, http.StatusNotFound)
			return
		}
		_, _ = io.Copy(w, bytes.NewReader(archive)) // the client may hang up
	})}}
	engine.Start()
	defer engine.Close()
	for name, want := range map[string]string{"absent": "no such image", image: "h4: " + image} {
		c := cluster.Command(t.Context(), "h3", "image", "push", name)
		c.Env = append(c.Env, "DOCKER_HOST=unix://"+socket)
		if out, err := c.CombinedOutput(); !strings.Contains(string(out), want) || (err == nil) != (name == image) {
			t.Errorf("push %s: %v: %s", name, err, out)
		}
	}
}
