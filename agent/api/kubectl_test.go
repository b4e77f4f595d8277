package api_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/api/apitest/kubectl"
)

// has fails the test for each word that is missing.
func has(t *testing.T, text string, words ...string) {
	t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			t.Errorf("want %q in:\n%s", word, text)
		}
	}
}

// namespace makes a namespace for one story and returns kubectl's argument for it.
func namespace(t *testing.T, k *kubectl.Kubectl, name string) string {
	t.Helper()
	k.Run(t, "", "create", "namespace", name)
	return "--namespace=" + name
}

func testHealthAndVersion(t *testing.T, _ *apitest.Cluster, k *kubectl.Kubectl) {
	has(t, k.Run(t, "", "get", "--raw", "/readyz?verbose"), "[+]ping ok", "[+]informer-sync ok", "[+]autoregister-completion ok", "readyz check passed")
	has(t, k.Run(t, "", "get", "--raw", "/livez"), "ok")
	has(t, k.Run(t, "", "get", "--raw", "/metrics"), "apiserver_request_total")
	var version struct{ Major, Minor, GitVersion string }
	if err := json.Unmarshal([]byte(k.Run(t, "", "get", "--raw", "/version")), &version); err != nil {
		t.Fatal(err)
	}
	if version.Major != "1" || version.Minor != "37" || version.GitVersion != "v1.37.2" {
		t.Errorf("version %+v", version)
	}
}

func testSystemNamespaces(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl) {
	has(t, k.Run(t, "", "get", "namespaces"), "NAME", "STATUS", "AGE", "default", "kube-system", "kube-public", "kube-node-lease", "Active")
	has(t, k.Run(t, "", "get", "priorityclasses"), "system-cluster-critical", "2000000000", "system-node-critical")
	k.Fail(t, "", []string{"delete", "priorityclass", "system-node-critical"}, "cannot be deleted")

	// A system namespace that is deleted and finalized comes back.
	client := c.Client(t)
	old, err := client.CoreV1().Namespaces().Get(t.Context(), "kube-node-lease", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	k.Run(t, "", "delete", "namespace", "kube-node-lease", "--wait=false")
	k.Run(t, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"kube-node-lease"},"spec":{"finalizers":[]}}`,
		"replace", "--raw", "/api/v1/namespaces/kube-node-lease/finalize", "-f", "-")
	apitest.Eventually(t, "kube-node-lease is made again", func() error {
		now, err := client.CoreV1().Namespaces().Get(t.Context(), "kube-node-lease", metav1.GetOptions{})
		if err == nil && now.UID == old.UID {
			return fmt.Errorf("it is still the old one")
		}
		return err
	})
}

func testConfigMapByKubectl(t *testing.T, _ *apitest.Cluster, k *kubectl.Kubectl) {
	ns := namespace(t, k, "configmaps")
	has(t, k.Run(t, "", "create", ns, "configmap", "c", "--from-literal=k=v"), "configmap/c created")
	has(t, k.Run(t, "", "get", ns, "cm"), "NAME", "DATA", "AGE", "c ", "1 ")
	has(t, k.Run(t, "", "get", ns, "configmap/c", "-o", "yaml"), "k: v", "resourceVersion:", "kind: ConfigMap")
	k.Fail(t, "", []string{"create", ns, "configmap", "c"}, `configmaps "c" already exists`)

	manifest := k.File(t, "c.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\ndata: {a: '1'}\n")
	has(t, k.Run(t, "", "apply", ns, "-f", manifest), "configmap/d created")
	has(t, k.Run(t, "", "apply", ns, "-f", manifest), "configmap/d unchanged")
	changed := k.File(t, "c2.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\ndata: {b: '2'}\n")
	has(t, k.Run(t, "", "apply", ns, "-f", changed, "--dry-run=server"), "configured (server dry run)")
	has(t, k.Run(t, "", "apply", ns, "-f", changed), "configmap/d configured")
	if data := k.Run(t, "", "get", ns, "cm/d", "-o", "jsonpath={.data}"); data != `{"b":"2"}` {
		t.Errorf("after apply the data is %s", data)
	}

	for kind, patch := range map[string]string{
		"merge": `{"data":{"merge":"1"}}`, "strategic": `{"data":{"strategic":"1"}}`,
		"json": `[{"op":"add","path":"/data/json","value":"1"}]`,
	} {
		has(t, k.Run(t, "", "patch", ns, "cm/d", "--type="+kind, "-p", patch), "patched")
	}
	has(t, k.Run(t, "", "get", ns, "cm/d", "-o", "jsonpath={.data}"), `"merge":"1"`, `"strategic":"1"`, `"json":"1"`)
	has(t, k.Run(t, "", "label", ns, "cm/d", "tier=x"), "labeled")
	has(t, k.Run(t, "", "get", ns, "cm", "-l", "tier=x", "-o", "name"), "configmap/d")
	has(t, k.Run(t, "", "get", ns, "cm", "--field-selector=metadata.name=c", "-o", "name"), "configmap/c")
	k.Fail(t, "", []string{"get", ns, "cm", "--field-selector=data=c"}, `"data" is not a known field selector`)
	has(t, k.Run(t, "", "delete", ns, "cm/d", "cm/c"), `configmap "d" deleted`)
	k.Fail(t, "", []string{"get", ns, "cm/d"}, `configmaps "d" not found`)
}

func testServerSideApply(t *testing.T, _ *apitest.Cluster, k *kubectl.Kubectl) {
	ns := namespace(t, k, "ssa")
	manifest := func(value string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {k: '" + value + "'}\n"
	}
	apply := func(manager, value string, more ...string) []string {
		file := k.File(t, "ssa-"+manager+value+".yaml", manifest(value))
		return append([]string{"apply", ns, "--server-side", "--field-manager=" + manager, "-f", file}, more...)
	}
	has(t, k.Run(t, "", apply("one", "1")...), "serverside-applied")
	k.Fail(t, "", apply("two", "2"), "Apply failed with 1 conflict", `conflict with "one"`, ".data.k")
	k.Run(t, "", apply("two", "2", "--force-conflicts")...)
	has(t, k.Run(t, "", "get", ns, "cm/c", "-o", "yaml", "--show-managed-fields"), "manager: two", "f:k: {}", "k: \"2\"")
}

func testWatch(t *testing.T, _ *apitest.Cluster, k *kubectl.Kubectl) {
	ns := namespace(t, k, "watch")
	k.Run(t, "", "create", ns, "configmap", "before")
	lines := k.Lines(t, "get", ns, "cm", "-w", "--output-watch-events")
	kubectl.Next(t, lines, "ADDED", "before")
	k.Run(t, "", "create", ns, "configmap", "after", "--from-literal=k=v")
	kubectl.Next(t, lines, "ADDED", "after")
	k.Run(t, "", "label", ns, "cm/after", "a=b")
	kubectl.Next(t, lines, "MODIFIED", "after")
	k.Run(t, "", "delete", ns, "cm/after")
	kubectl.Next(t, lines, "DELETED", "after")
	k.Run(t, "", "wait", ns, "--for=delete", "cm/after", "--timeout=30s")
}

func testNamespaceDeletion(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl) {
	ns := namespace(t, k, "ending")
	k.Run(t, "", "create", ns, "configmap", "c")
	k.Run(t, "", "delete", "namespace", "ending", "--wait=false")
	has(t, k.Run(t, "", "get", "namespace", "ending"), "Terminating")
	k.Fail(t, "", []string{"create", ns, "configmap", "d"}, "because it is being terminated")

	client := c.Client(t).CoreV1().Namespaces()
	ending, err := client.Get(t.Context(), "ending", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(ending.Spec.Finalizers) != 1 {
		t.Fatalf("finalizers %v", ending.Spec.Finalizers)
	}
	// A plain update cannot take the finalizer away, the sub-resource can, and that ends it.
	ending.Spec.Finalizers = nil
	if ending, err = client.Update(t.Context(), ending, metav1.UpdateOptions{}); err != nil || len(ending.Spec.Finalizers) != 1 {
		t.Fatalf("update: %v, finalizers %v", err, ending.Spec.Finalizers)
	}
	ending.Spec.Finalizers = nil
	if _, err = client.Finalize(t.Context(), ending, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err = client.Get(t.Context(), "ending", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("after finalizing: %v", err)
	}
	k.Fail(t, "", []string{"delete", "namespace", "default"}, "this namespace may not be deleted")
}

func testDiscovery(t *testing.T, _ *apitest.Cluster, k *kubectl.Kubectl) {
	has(t, k.Run(t, "", "api-resources"), "configmaps", "customresourcedefinitions", "apiservices", "deployments", "events.k8s.io/v1")
	has(t, k.Run(t, "", "api-versions"), "apps/v1", "rbac.authorization.k8s.io/v1")
	has(t, k.Run(t, "", "explain", "deployment.spec.replicas"), "FIELD: replicas <integer>")
	has(t, k.Run(t, "", "get", "apiservices", "v1.apps"), "Local", "True")
	has(t, k.Run(t, "", "get", "--raw", "/openapi/v2"), `"swagger":"2.0"`, "io.k8s.api.core.v1.Pod")
	k.Fail(t, "", []string{"get", "podsecuritypolicies"}, "the server doesn't have a resource type")
	if all := k.Run(t, "", "api-versions"); strings.Contains(all, "policy/v1beta1") {
		t.Errorf("policy/v1beta1 is served although no setting asks for it: %s", all)
	}
	k.Fail(t, "", []string{"get", "--raw", "/nothing/here"}, "could not find the requested resource")
	has(t, k.Run(t, "", "auth", "can-i", "create", "pods"), "yes")
}
