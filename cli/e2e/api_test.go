package e2e

import (
	"strings"
	"testing"
	"time"
)

const widgets = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.e2e.podvine.io}
spec:
  group: e2e.podvine.io
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.size, statusReplicasPath: .status.size}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [size]
            properties:
              size: {type: integer, minimum: 1, maximum: 9, description: How large it is.}
              colour: {type: string, default: green}
            x-kubernetes-validations: [{rule: "self.size < 9 || self.colour != 'red'", message: no large red ones}]
          status: {type: object, properties: {size: {type: integer}}}
`

func TestCustomResources(t *testing.T) {
	ns := newNamespace(t)
	apply(t, ns, widgets)
	t.Cleanup(func() {
		if out, err := command("kubectl", "delete", "crd", "widgets.e2e.podvine.io").CombinedOutput(); err != nil {
			t.Errorf("delete the definition: %v: %s", err, out)
		}
	})
	kubectl(t, ns, "wait", "--for=condition=Established", "crd/widgets.e2e.podvine.io", "--timeout=30s")
	eventually(t, 10*time.Second, "the new kind to be served", func() (string, bool) {
		out, err := tryKubectl(t, ns, "", "get", "widgets")
		return out, err == nil
	})
	wants(t, kubectl(t, ns, "get", "apiservices"), "v1.e2e.podvine.io", "v1.apps", "Local", "True")
	apply(t, ns, "{apiVersion: e2e.podvine.io/v1, kind: Widget, metadata: {name: w}, spec: {size: 3}}")
	out := kubectl(t, ns, "get", "wd", "w", "-o", "yaml")
	wants(t, out, "colour: green")
	wants(t, kubectl(t, ns, "get", "wd"), "SIZE", "3")
	kubectl(t, ns, "scale", "widget/w", "--replicas=5")
	wants(t, kubectl(t, ns, "get", "wd", "w", "-o", "jsonpath={.spec.size}"), "5")
	eventually(t, 10*time.Second, "the kind to be explained", func() (string, bool) {
		out, err := tryKubectl(t, ns, "", "explain", "widget.spec.size")
		return out, err == nil && strings.Contains(out, "How large it is.")
	})
	for manifest, message := range map[string]string{
		"{apiVersion: e2e.podvine.io/v1, kind: Widget, metadata: {name: x}, spec: {size: 10}}":             "spec.size in body should be less than or equal to 9",
		"{apiVersion: e2e.podvine.io/v1, kind: Widget, metadata: {name: x}, spec: {size: 9, colour: red}}": "no large red ones",
		"{apiVersion: e2e.podvine.io/v1, kind: Widget, metadata: {name: x}, spec: {size: 1, weight: 2}}":   `unknown field "spec.weight"`,
	} {
		out, err := tryKubectl(t, ns, manifest, "create", "-f", "-")
		if err == nil {
			t.Errorf("accepted: %s", manifest)
		}
		wants(t, out, message)
	}
}

func TestApplyDiffExplainWaitWatch(t *testing.T) {
	ns := newNamespace(t)
	manifest := "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {a: '1'}}"
	if out, err := tryKubectl(t, ns, manifest, "apply", "--server-side", "-f", "-"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, err := tryKubectl(t, ns, strings.Replace(manifest, "'1'", "'2'", 1), "diff", "--server-side", "-f", "-")
	if err == nil {
		t.Error("diff saw no difference")
	}
	wants(t, out, `-  a: "1"`, `+  a: "2"`)
	out, err = tryKubectl(t, ns, strings.Replace(manifest, "'1'", "'2'", 1), "apply", "--server-side", "--field-manager=other", "-f", "-")
	if err == nil {
		t.Error("another manager took a field without a conflict")
	}
	wants(t, out, `conflict with "kubectl": .data.a`)
	wants(t, kubectl(t, ns, "explain", "deployment.spec"), "GROUP:      apps", "strategy", "progressDeadlineSeconds")
	wants(t, kubectl(t, ns, "auth", "can-i", "--list"), "*.*")
	wants(t, kubectl(t, ns, "auth", "whoami"), "system:masters")
	wants(t, kubectl(t, ns, "get", "--raw", "/readyz?verbose"), "[+]ping ok", "readyz check passed")
	wants(t, kubectl(t, ns, "version"), "Server Version: v1.37")
	wants(t, kubectl(t, ns, "api-resources"), "deployments", "deploy", "apps/v1", "customresourcedefinitions")
	wants(t, kubectl(t, ns, "get", "nodes", "-o", "wide"), "h1", "Ready", "containerd://")
}

func TestBadInputGetsKubernetesAnswers(t *testing.T) {
	ns := newNamespace(t)
	create := []string{"create", "-f", "-"}
	noToken := []string{"get", "pods", "--kubeconfig=/dev/null", "--server=" + restConfig.Host, "--insecure-skip-tls-verify", "--token=not-a-token"}
	for name, c := range map[string]struct {
		manifest string
		args     []string
		answer   []string
	}{
		"invalid":       {"{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: UPPER, image: i}]}}", create, []string{`The Pod "p" is invalid`, "spec.containers[0].name"}},
		"unknown field": {"{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, dada: {}}", create, []string{`unknown field "dada"`}},
		"wrong version": {"{apiVersion: apps/v9, kind: Deployment, metadata: {name: d}}", create, []string{`no matches for kind "Deployment" in version "apps/v9"`}},
		"bad token":     {"", noToken, []string{"You must be logged in to the server"}},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := tryKubectl(t, ns, c.manifest, c.args...)
			if err == nil {
				t.Errorf("accepted: %s", out)
			}
			wants(t, out, c.answer...)
		})
	}
	kubectl(t, ns, "create", "configmap", "c", "--from-literal=a=b")
	out, err := tryKubectl(t, ns, "{apiVersion: v1, kind: ConfigMap, metadata: {name: c, resourceVersion: '1'}}", "replace", "-f", "-")
	if err == nil {
		t.Error("a stale resource version was accepted")
	}
	wants(t, out, "the object has been modified; please apply your changes to the latest version")
}
