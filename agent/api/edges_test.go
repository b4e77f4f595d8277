package api_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"

	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/api/apitest/kubectl"
)

// testPaths: a path that leads out of where it is, or hides a slash, leads nowhere.
func testPaths(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl) {
	r := newRawClient(t, c)
	k.Run(t, "", "create", "configmap", "there", "--namespace", "kube-public")
	const maps = "/api/v1/namespaces/kube-public/configmaps/there"
	if a := r.send(t, http.MethodGet, maps, nil); a.code != http.StatusOK {
		t.Fatalf("%s: %d", maps, a.code)
	}
	for _, path := range []string{
		"/api/v1/namespaces/default/../kube-public/configmaps/there", "/api/v1/namespaces/default/configmaps/../../kube-public/configmaps/there",
		"/healthz/../api/v1/namespaces/kube-public/configmaps/there", "/api/v1/namespaces/default/%2e%2e/kube-public/configmaps/there",
		"/api/v1/namespaces/default/configmaps/..%2f..%2fkube-public%2fconfigmaps%2fthere",
		"/api/v1/namespaces/kube-public/configmaps/there%2f..", "/api/v1/namespaces/kube-public/configmaps/there%00", "/api//v1/namespaces/kube-public/configmaps/%2e",
		"/api/v1/namespaces/kube-public/configmaps/..", "/api/v1/namespaces/%2e%2e/configmaps/there", "/apis/../api/v1/namespaces", "/openapi/v3/../../metrics",
	} {
		for _, method := range []string{http.MethodGet, http.MethodDelete} {
			a := r.send(t, method, path, nil)
			location := a.header.Get("Location")
			led := a.code >= 300 && a.code < 400 && location != "" && !strings.Contains(location, "..")         // to where the path would lead, for the client to ask
			dots := a.code == http.StatusInternalServerError && strings.Contains(string(a.body), "invalid key") // as Kubernetes says of such a namespace
			if !led && !dots && (a.code < 400 || a.code >= 500) {
				t.Errorf("%s %s: %d %s", method, path, a.code, a.body)
			}
		}
	}
	if a := r.send(t, http.MethodGet, maps, nil); a.code != http.StatusOK {
		t.Errorf("what a path hid was deleted: %d", a.code)
	}
	// An encoded slash is a slash, to whoever decides who may ask too.
	k.Run(t, "", "create", "role", "named", "--namespace", "default", "--verb", "get", "--resource", "configmaps")
	k.Run(t, "", "create", "rolebinding", "named", "--namespace", "default", "--role", "named", "--user", "jane")
	hidden := "/api/v1/namespaces/kube-public%2fconfigmaps%2fthere"
	if a := r.send(t, http.MethodGet, hidden, nil, "Impersonate-User", "jane"); a.code != http.StatusForbidden || !strings.Contains(string(a.body), `in the namespace \"kube-public\"`) {
		t.Errorf("%s as jane: %d %s", hidden, a.code, a.body)
	}
	k.Run(t, "", "delete", "role,rolebinding", "named", "--namespace", "default")
	k.Run(t, "", "delete", "configmap", "there", "--namespace", "kube-public")
}

// drip gives a little of a body at a time, for as long as it is read.
type drip struct {
	first string
	ctx   context.Context
}

// Read implements io.Reader.
func (d *drip) Read(p []byte) (int, error) {
	if d.first != "" {
		n := copy(p, d.first)
		d.first = d.first[n:]
		return n, nil
	}
	select {
	case <-time.After(50 * time.Millisecond):
		return copy(p, " "), nil
	case <-d.ctx.Done():
		return 0, io.EOF
	}
}

// testBodies: bodies that are chunked are read; those that are too deep, too slow or no objects are refused, and soon.
func testBodies(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl) {
	namespace(t, k, "bodies")
	r := newRawClient(t, c)
	const maps = "/api/v1/namespaces/bodies/configmaps"
	post := func(body io.Reader, contentType string) answer {
		return r.send(t, http.MethodPost, maps, body, "Content-Type", contentType)
	}
	// A reader whose size nobody knows is sent in chunks.
	if a := post(io.MultiReader(strings.NewReader(`{"apiVersion": "v1", "kind": "ConfigMap",`), strings.NewReader(` "metadata": {"name": "chunked"}}`)), "application/json"); a.code != http.StatusCreated {
		t.Errorf("in chunks: %d %s", a.code, a.body)
	}
	nested := func(open, shut string, depth int) string {
		return strings.Repeat(open, depth) + strings.Repeat(shut, depth)
	}
	const depth = 100_000
	head := `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": `
	for name, body := range map[string]struct{ content, contentType string }{
		"deep lists":     {head + nested("[", "]", depth) + "}", "application/json"},
		"deep objects":   {head + strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth) + "}", "application/json"},
		"deep YAML":      {"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata: " + nested("[", "]", depth), "application/yaml"},
		"YAML's laughs":  {laughs(), "application/yaml"},
		"deep protobuf":  {"k8s\x00" + strings.Repeat("\x0b", depth), "application/vnd.kubernetes.protobuf"},
		"half an object": {head, "application/json"},
		"nothing":        {"", "application/json"},
		"a list":         {"[]", "application/json"},
		"two kinds":      {`{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}`, "application/json"},
		"bad UTF-8":      {head + "{\"k\": \"\xff\xfe\"}}x", "application/json"},
	} {
		began := time.Now()
		if a := post(strings.NewReader(body.content), body.contentType); a.code < 400 || a.code >= 500 {
			t.Errorf("%s: %d %.300s", name, a.code, a.body)
		}
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%s: refused after %s", name, took)
		}
	}
	for _, patch := range []string{"application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"} {
		for _, body := range []string{nested("[", "]", depth), strings.Repeat(`{"data":`, depth) + "1" + strings.Repeat("}", depth), "", "1"} {
			a := r.send(t, http.MethodPatch, maps+"/chunked?fieldManager=x", strings.NewReader(body), "Content-Type", patch)
			if a.code < 400 || a.code >= 500 {
				t.Errorf("%s with %.20s: %d %.300s", patch, body, a.code, a.body)
			}
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := time.Now()
	a := r.send(t, http.MethodPost, maps+"?timeout=1s", &drip{head, ctx}, "Content-Type", "application/json")
	if took := time.Since(began); a.code != http.StatusGatewayTimeout && a.code < 400 || took > 20*time.Second {
		t.Errorf("a body that never ends: %d after %s: %s", a.code, took, a.body)
	}
}

// laughs is YAML whose aliases would make a billion words of a few.
func laughs() string {
	var text strings.Builder
	text.WriteString("a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n")
	for i := 1; i < 10; i++ {
		fmt.Fprintf(&text, "a%d: &a%d [*a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d, *a%d]\n", i, i, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1, i-1)
	}
	return text.String() + "apiVersion: v1\nkind: ConfigMap\n"
}

const gadgets = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: gadgets.edges.example.com}
spec:
  group: edges.example.com
  scope: Namespaced
  names: {plural: gadgets, singular: gadget, kind: Gadget}
  versions:
  - &v {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {size: {type: integer}}}}}
  - {<<: *v, name: v1beta1, storage: false}
`

// testVersionedApply: who owns a field owns it in every version.
func testVersionedApply(t *testing.T, _ *apitest.Cluster, k *kubectl.Kubectl) {
	ns := namespace(t, k, "gadgets")
	k.Run(t, gadgets, "apply", "-f", "-")
	gadget := func(version, size string) string {
		return "apiVersion: edges.example.com/" + version + "\nkind: Gadget\nmetadata: {name: g}\nsize: " + size + "\n"
	}
	apply := func(manager string, more ...string) []string {
		return append([]string{"apply", ns, "--server-side", "--field-manager", manager, "-f", "-"}, more...)
	}
	apitest.Eventually(t, "a gadget is made", func() error {
		_, err := k.Try(t, gadget("v1beta1", "1"), apply("old")...)
		return err
	})
	k.Fail(t, gadget("v1", "2"), apply("new"), `conflict with "old": .size`)
	k.Run(t, gadget("v1", "1"), apply("new")...) // both own it
	k.Run(t, gadget("v1", "3"), apply("new", "--force-conflicts")...)
	k.Fail(t, gadget("v1beta1", "1"), apply("old"), `conflict with "new": .size`)
	if got := k.Run(t, "", "get", ns, "gadgets.v1beta1.edges.example.com", "g", "-o", "jsonpath={.apiVersion} {.size}"); got != "edges.example.com/v1beta1 3" {
		t.Errorf("the other version shows %s", got)
	}
	k.Run(t, "", "delete", "crd", "gadgets.edges.example.com")
}

// testExplodingSchemas: a definition whose rules or schema would cost without end is refused, and soon.
func testExplodingSchemas(t *testing.T, c *apitest.Cluster, _ *kubectl.Kubectl) {
	r := newRawClient(t, c)
	define := func(schema string) answer {
		body := `{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "bombs.edges.example.com"}, "spec": {
			"group": "edges.example.com", "scope": "Cluster", "names": {"plural": "bombs", "singular": "bomb", "kind": "Bomb"},
			"versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": ` + schema + `}}]}}`
		return r.send(t, http.MethodPost, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?timeout=30s", strings.NewReader(body), "Content-Type", "application/json")
	}
	list := func(of string) string { return `{"type": "array", "items": ` + of + `}` }
	loops := `{"type": "object", "properties": {"a": ` + list(list(list(`{"type": "string"}`))) + `},
		"x-kubernetes-validations": [{"rule": "self.a.all(x, x.all(y, y.all(z, self.a.all(u, u.all(v, v.all(w, w.matches(z)))))))"}]}`
	deep := strings.Repeat(`{"type": "object", "properties": {"a": `, 5_100) + `{"type": "string"}` + strings.Repeat("}}", 5_100)
	choices := `{"type": "object"}`
	for range 7 {
		choices = `{"type": "object", "properties": {"a": ` + choices + `}, "oneOf": [` + strings.TrimSuffix(strings.Repeat(`{"required": ["a"]},`, 8), ",") + `], "not": ` + choices + `}`
	}
	for name, c := range map[string]struct{ schema, want string }{
		"rules in loops":  {loops, "estimated rule cost exceeds budget"},
		"a deep schema":   {deep, ""},
		"nested choices":  {choices, ""},
		"a reference":     {`{"type": "object", "properties": {"a": {"$ref": "#/a"}}}`, "$ref"},
		"an endless rule": {`{"type": "object", "x-kubernetes-validations": [{"rule": "` + strings.Repeat("(", 5_000) + "true" + strings.Repeat(")", 5_000) + `"}]}`, ""},
	} {
		began := time.Now()
		a := define(c.schema)
		if a.code < 400 || a.code >= 500 || !bytes.Contains(a.body, []byte(c.want)) {
			t.Errorf("%s: %d %.500s", name, a.code, a.body)
		}
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("%s: refused after %s", name, took)
		}
	}
}

// testIdleWatches: two thousand watches that see nothing cost no request its turn, and each sees the one change that comes.
func testIdleWatches(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl) {
	const count = 2000
	namespace(t, k, "watched")
	client, err := kubernetes.NewForConfig(c.Server.ClientConfig(&user.DefaultInfo{Name: "watcher", Groups: []string{user.SystemPrivilegedGroup}}))
	if err != nil {
		t.Fatal(err)
	}
	maps := client.CoreV1().ConfigMaps("watched")
	now, err := maps.List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var watching, saw sync.WaitGroup
	var missed sync.Map
	for i := range count {
		watching.Add(1)
		saw.Go(func() {
			w, err := maps.Watch(ctx, metav1.ListOptions{ResourceVersion: now.ResourceVersion})
			watching.Done()
			if err != nil {
				missed.Store(i, err)
				return
			}
			defer w.Stop()
			for e := range w.ResultChan() {
				if made, ok := e.Object.(*corev1.ConfigMap); ok && made.Name == "news" {
					return
				}
			}
			missed.Store(i, ctx.Err())
		})
	}
	watching.Wait()
	other, err := c.Client(t).CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
	if err != nil || len(other.Items) == 0 {
		t.Errorf("while all watch: %v", err)
	}
	if _, err := maps.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "news"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	end := time.AfterFunc(60*time.Second, cancel)
	defer end.Stop()
	saw.Wait()
	missed.Range(func(i, err any) bool {
		t.Errorf("watch %d saw nothing: %v", i, err)
		return false // one tells enough
	})
}
