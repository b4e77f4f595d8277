package software

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/util/cert"
)

// applyServed feeds the manifest to kubectl apply, with NAMESPACE and CA_BUNDLE replaced, after it has made a Secret with the
// key pair of the service in the namespace. When the test ends, what the manifest says is deleted.
func applyServed(t testing.TB, namespace, service, file string) {
	t.Helper()
	certificate, key, err := cert.GenerateSelfSignedCertKey(service+"."+namespace+".svc", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	paths := map[string][]byte{"tls.crt": certificate, "tls.key": key}
	for name, content := range paths {
		if err := os.WriteFile(filepath.Join(cluster.Folder, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	kubectl(t, "h1", "-n", namespace, "create", "secret", "tls", service, "--cert", filepath.Join(cluster.Folder, "tls.crt"), "--key", filepath.Join(cluster.Folder, "tls.key"))
	text, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	manifest := strings.NewReplacer("NAMESPACE", namespace, "CA_BUNDLE", base64.StdEncoding.EncodeToString(certificate)).Replace(string(text))
	t.Cleanup(func() {
		if out, err := try(t, "h1", manifest, "kubectl", "delete", "-f", "-", "--ignore-not-found", "--timeout=60s"); err != nil {
			t.Errorf("delete what %s says: %v: %s", file, err, out)
		}
	})
	apply(t, "", manifest)
}

// TestOperator runs two replicas of a manager of controller-runtime that serve one kind in two versions: the webhooks convert,
// default and validate, the reconciler of the leader makes Deployments. Each step asks another member, each of which calls the
// webhooks itself.
func TestOperator(t *testing.T) {
	t.Parallel()
	const namespace = "sites"
	newNamespace(t, namespace)
	applyServed(t, namespace, "operator", "sites.yaml")
	t.Cleanup(func() { // before the operator goes, which has to let them go
		if out, err := try(t, "h1", "", "kubectl", "-n", namespace, "delete", "sites", "--all", "--timeout=60s"); err != nil {
			t.Errorf("delete all sites: %v: %s", err, out)
		}
	})
	kubectl(t, "h1", "-n", namespace, "rollout", "status", "deployment/operator", "--timeout=90s")
	kubectl(t, "h1", "wait", "--for=condition=Established", "crd/sites.web.example.com", "--timeout=30s")
	get := func(host, object, path string) string {
		t.Helper()
		return kubectl(t, host, "-n", namespace, "get", object, "-o", "jsonpath="+path)
	}

	for _, host := range hosts {
		name := "by-" + host
		out, err := try(t, host, "{apiVersion: web.example.com/v1, kind: Site, metadata: {name: "+name+"}, spec: {}}", "kubectl", "-n", namespace, "create", "-f", "-")
		if err != nil {
			t.Fatalf("at %s: %v: %s", host, err, out)
		}
		if got := get(host, "site/"+name, "{.spec.replicas} {.spec.owner}"); !strings.HasPrefix(got, "1 ") || len(got) < 3 {
			t.Errorf("at %s the defaults are %q", host, got)
		}
	}
	kubectl(t, "h2", "-n", namespace, "wait", "--for=condition=Ready", "sites", "--all", "--timeout=60s")
	wants(t, get("h3", "deployment/by-h1", "{.metadata.ownerReferences[0].kind} {.metadata.ownerReferences[0].name} {.metadata.ownerReferences[0].controller} {.metadata.ownerReferences[0].blockOwnerDeletion}"), "Site by-h1 true true")
	wants(t, kubectl(t, "h1", "-n", namespace, "get", "sites"), "READY", "OWNER", "by-h3", "True")
	wants(t, kubectl(t, "h2", "-n", namespace, "get", "events", "--field-selector", "reason=Deployed,involvedObject.name=by-h2"), "made deployment by-h2")

	t.Run("versions", func(t *testing.T) { testVersions(t, namespace, get) })
	t.Run("refusals", func(t *testing.T) { testRefusals(t, namespace) })
	t.Run("changes", func(t *testing.T) { testSiteChanges(t, namespace, get) })
	t.Run("leader", func(t *testing.T) { testOperatorFails(t, namespace, get) })
}

type getter func(host, object, path string) string

// testVersions writes and reads in the old version what is stored in the new one.
func testVersions(t *testing.T, namespace string, get getter) {
	old := "{apiVersion: web.example.com/v1beta1, kind: Site, metadata: {name: old, annotations: {web.example.com/owner: jane}}, spec: {instances: 2}}"
	for i, host := range hosts {
		out, err := try(t, host, old, "kubectl", "-n", namespace, "apply", "--server-side", "--field-manager=test", "-f", "-")
		if err != nil {
			t.Fatalf("at %s: %v: %s", host, err, out)
		}
		other := hosts[(i+1)%len(hosts)]
		if got := get(other, "sites.v1.web.example.com/old", "{.spec.replicas} {.spec.owner}"); got != "2 jane" {
			t.Errorf("at %s version v1 has %q", other, got)
		}
		if got := get(host, "sites.v1beta1.web.example.com/old", "{.apiVersion} {.spec.instances} {.metadata.annotations.web\\.example\\.com/owner}"); !strings.HasSuffix(got, "web.example.com/v1beta1 2 jane") { // a warning comes first
			t.Errorf("at %s version v1beta1 has %q", host, got)
		}
	}
	out, err := try(t, "h1", old, "kubectl", "-n", namespace, "apply", "--server-side", "--field-manager=test", "-f", "-")
	if err != nil {
		t.Fatal(err)
	}
	wants(t, out, "web.example.com/v1beta1 Site is deprecated")
	wants(t, kubectl(t, "h3", "-n", namespace, "get", "sites.v1beta1.web.example.com", "-o", "jsonpath={.items[*].spec.instances}"), "1 1 1 2")
	wants(t, kubectl(t, "h3", "explain", "site.spec.owner"), "VERSION:    v1")
}

// testRefusals asks each member for what the validating webhook refuses, in either version.
func testRefusals(t *testing.T, namespace string) {
	for _, host := range hosts {
		for manifest, message := range map[string]string{
			"{apiVersion: web.example.com/v1, kind: Site, metadata: {name: large}, spec: {replicas: 6}}":                                                "a site has at most 5 replicas",
			"{apiVersion: web.example.com/v1beta1, kind: Site, metadata: {name: large}, spec: {instances: 6}}":                                          "a site has at most 5 replicas",
			"{apiVersion: web.example.com/v1beta1, kind: Site, metadata: {name: old, annotations: {web.example.com/owner: eve}}, spec: {instances: 2}}": "the owner of a site never changes: it is jane",
			"{apiVersion: web.example.com/v1, kind: Site, metadata: {name: large}, spec: {replicas: many}}":                                             "cannot unmarshal string",
		} {
			out, err := try(t, host, manifest, "kubectl", "-n", namespace, "apply", "-f", "-")
			if err == nil {
				t.Errorf("%s accepted %s", host, manifest)
			}
			wants(t, out, message)
		}
	}
	out, err := try(t, "h2", "{apiVersion: web.example.com/v1, kind: Site, metadata: {name: none, labels: {keep: 'yes'}}, spec: {replicas: 0}}", "kubectl", "-n", namespace, "apply", "-f", "-")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	wants(t, out, "Warning: a site without replicas answers nobody")
	if out, err = try(t, "h3", "", "kubectl", "-n", namespace, "delete", "site", "none"); err == nil {
		t.Errorf("deleted against the webhook's will: %s", out)
	}
	wants(t, out, "none is kept")
	kubectl(t, "h1", "-n", namespace, "label", "site", "none", "keep-")
}

// testSiteChanges scales a Site by its sub-resource, has the reconciler mend a Deployment that somebody changed, and deletes a Site:
// its finalizer runs, and the garbage collector removes the Deployment.
func testSiteChanges(t *testing.T, namespace string, get getter) {
	kubectl(t, "h2", "-n", namespace, "scale", "site/by-h1", "--replicas=2")
	kubectl(t, "h3", "-n", namespace, "wait", "--for=jsonpath={.status.readyReplicas}=2", "site/by-h1", "--timeout=60s")
	kubectl(t, "h3", "-n", namespace, "scale", "deployment/by-h1", "--replicas=0")
	eventually(t, "the reconciler to mend the deployment", func() (string, bool) {
		got := get("h1", "deployment/by-h1", "{.spec.replicas}")
		return got, got == "2"
	})
	kubectl(t, "h2", "-n", namespace, "delete", "site", "by-h1", "--timeout=60s")
	wants(t, get("h3", "configmap/by-h1-was-here", "{.data.owner}"), "admin")
	eventually(t, "the Deployment to go with its owner", func() (string, bool) {
		out := kubectl(t, "h1", "-n", namespace, "get", "deployments,replicasets,pods", "-l", "site=by-h1", "-o", "name")
		return out, strings.TrimSpace(out) == ""
	})
}

// testOperatorFails kills the leading replica: the other one answers the webhooks, and reconciles once it leads.
func testOperatorFails(t *testing.T, namespace string, get getter) {
	holder := get("h1", "lease/sites", "{.spec.holderIdentity}")
	leader, _, ok := strings.Cut(holder, "_")
	if !ok || !strings.HasPrefix(leader, "operator-") {
		t.Fatalf("the leader is %q", holder)
	}
	kubectl(t, "h2", "-n", namespace, "delete", "pod", leader, "--force", "--grace-period=0")
	eventually(t, "the other replica to answer webhooks at every member", func() (string, bool) {
		for _, host := range hosts {
			manifest := "{apiVersion: web.example.com/v1beta1, kind: Site, metadata: {name: after-" + host + "}, spec: {}}"
			if out, err := try(t, host, manifest, "kubectl", "-n", namespace, "apply", "-f", "-"); err != nil {
				return out, false
			}
		}
		return "", true
	})
	kubectl(t, "h3", "-n", namespace, "wait", "--for=condition=Ready", "sites/after-h1", "sites/after-h2", "sites/after-h3", "--timeout=90s")
	if now := get("h2", "lease/sites", "{.spec.holderIdentity}"); now == holder || now == "" {
		t.Errorf("the leader is %q, and was %q", now, holder)
	}
}
