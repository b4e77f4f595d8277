package api_test

import (
	_ "embed"
	"encoding/json"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/openapi/cached"
	explain "k8s.io/kubectl/pkg/explain/v2"

	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/api/apitest/kubectl"
)

//go:embed testdata/columns.txt
var wantedColumns string

// testEveryKind walks over discovery: each resource is explained to its last field, and each that is listed is shown, with
// Kubernetes' columns.
func testEveryKind(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl) {
	client := c.Client(t).Discovery()
	_, lists, err := client.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	r := newRawClient(t, c)
	openAPI := cached.NewClient(client.OpenAPIV3())
	var listed, columns []string
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, resource := range list.APIResources {
			if strings.Contains(resource.Name, "/") {
				continue
			}
			var told strings.Builder
			if err := explain.PrintModelDescription(nil, &told, openAPI, gv.WithResource(resource.Name), true, 0, "plaintext"); err != nil {
				t.Errorf("explain %s of %s: %v", resource.Name, gv, err)
			}
			has(t, told.String(), "KIND:       "+resource.Kind, "VERSION:    "+gv.Version, "  apiVersion\t<string>", "  metadata\t<ObjectMeta>", "    annotations\t<map[string]string>")
			if !slices.Contains(resource.Verbs, "list") {
				continue
			}
			name := resource.Name + "." + gv.Version + "." + gv.Group
			listed = append(listed, name)
			columns = append(columns, name+": "+strings.Join(shownColumns(t, r, gv, resource.Name), ", "))
		}
	}
	slices.Sort(columns)
	_, want, _ := strings.Cut(wantedColumns, "\n")
	if got := strings.Join(columns, "\n") + "\n"; got != want {
		t.Errorf("columns\n%s\nKubernetes' are\n%s", got, want)
	}
	// The programs that are installed here, and the one of this release.
	get := []string{"get", "--all-namespaces", "--output", "wide", strings.Join(listed, ",")}
	has(t, k.Run(t, "", get...), "clusterrole.rbac.authorization.k8s.io/cluster-admin", "apiservice.apiregistration.k8s.io/v1.apps")
	if stock, err := exec.LookPath("kubectl"); err == nil {
		out, err := exec.CommandContext(t.Context(), stock, append([]string{"--kubeconfig", c.Kubeconfig}, get...)...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", stock, err, out)
		}
	}
	has(t, k.Run(t, "", "explain", "--recursive", "pods.spec.containers.lifecycle"), "postStart\t<LifecycleHandler>", "      command\t<[]string>")
}

// shownColumns are the columns that the server's table of a resource has.
func shownColumns(t *testing.T, r *rawClient, gv schema.GroupVersion, resource string) []string {
	t.Helper()
	path := "/apis/" + gv.String() + "/" + resource
	if gv.Group == "" {
		path = "/api/v1/" + resource
	}
	a := r.send(t, http.MethodGet, path, io.Reader(nil), "Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
	var table metav1.Table
	if err := json.Unmarshal(a.body, &table); err != nil || a.code != http.StatusOK {
		t.Fatalf("%s: %d %v %s", path, a.code, err, a.body)
	}
	var names []string
	for _, column := range table.ColumnDefinitions {
		name := column.Name
		if column.Priority > 0 {
			name = "(" + name + ")"
		}
		names = append(names, name)
	}
	for _, row := range table.Rows {
		if len(row.Cells) != len(names) {
			t.Errorf("%s: a row of %d cells under %q", path, len(row.Cells), names)
		}
	}
	return names
}
