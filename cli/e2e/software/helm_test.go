package software

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// say is a role: it prints its arguments.
func say() error {
	_, err := fmt.Println(strings.Join(os.Args[2:], " "))
	return err
}

// helm runs the real helm at the host's API; a failure ends the test.
func helm(t testing.TB, host string, args ...string) string {
	t.Helper()
	out, err := tryHelm(t, host, args...)
	if err != nil {
		t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

func tryHelm(t testing.TB, host string, args ...string) (string, error) {
	t.Helper()
	return tryProgram(t, host, "", filepath.Join(programs, "helm"), args...)
}

// release is a line of `helm list -o json`, or of `helm history`, which says the rest.
type release struct {
	Name, Status, Chart, Description string
	Revision                         json.RawMessage // a string in lists, a number in histories
}

func releases(t testing.TB, out string) (list []release) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return list
}

// wantsHistory compares the statuses of all revisions.
func wantsHistory(t testing.TB, host, namespace string, statuses ...string) {
	t.Helper()
	out := helm(t, host, "history", "shop", "-n", namespace, "-o", "json")
	list := releases(t, out)
	if len(list) != len(statuses) {
		t.Fatalf("%d revisions, not %v:\n%s", len(list), statuses, out)
	}
	for i, r := range list {
		if r.Status != statuses[i] || string(r.Revision) != fmt.Sprint(i+1) {
			t.Errorf("revision %s is %s (%s), not %s", r.Revision, r.Status, r.Description, statuses[i])
		}
	}
}

// TestHelm takes a chart with a kind of its own, an object of it, hooks and a test through the life of a release. Each command asks
// another member.
func TestHelm(t *testing.T) {
	t.Parallel()
	const namespace = "helm"
	newNamespace(t, namespace)
	t.Cleanup(func() { // Helm leaves the kinds of a chart, which may hold data
		if out, err := try(t, "h1", "", "kubectl", "delete", "crd", "orders.shop.example.com", "--ignore-not-found"); err != nil {
			t.Errorf("delete the chart's kind: %v: %s", err, out)
		}
	})
	chart := filepath.Join("testdata", "shop")
	shop := func(host string, args ...string) string {
		t.Helper()
		return helm(t, host, append(args, "-n", namespace)...)
	}
	out := shop("h1", "install", "shop", chart, "--wait", "--timeout", "90s")
	wants(t, out, "STATUS: deployed", "REVISION: 1", "shop says hello on Kubernetes v1.37.", "It takes orders.")
	wantsShop(t, "h2", namespace, "1 1", "hello 1", "hello/1")
	wantsHooksAround(t, "h3", namespace)
	out = shop("h3", "test", "shop", "--logs")
	wants(t, out, "Phase:          Succeeded", "hello from shop-", "for /from-the-test")

	out = shop("h2", "upgrade", "shop", chart, "--set", "replicas=2,greeting=welcome", "--wait", "--timeout", "90s")
	wants(t, out, "REVISION: 2", "shop says welcome")
	wantsShop(t, "h3", namespace, "2 2", "welcome 2", "welcome/1")
	wants(t, kubectl(t, "h3", "-n", namespace, "logs", "job/shop-after"), "after revision 2")
	wantsHistory(t, "h1", namespace, "superseded", "deployed")
	t.Run("conflict", func(t *testing.T) { testHelmConflict(t, namespace, chart) })
	t.Run("failure", func(t *testing.T) { testHelmFailure(t, namespace, chart) })

	shop("h2", "rollback", "shop", "1", "--wait", "--timeout", "90s", "--force-conflicts")
	wantsShop(t, "h1", namespace, "1 1", "hello 1", "hello/1")
	list := releases(t, shop("h3", "list", "-o", "json"))
	if len(list) != 1 || list[0].Name != "shop" || list[0].Status != "deployed" || list[0].Chart != "shop-1.0.0" {
		t.Errorf("the list of releases: %+v", list)
	}
	wants(t, shop("h3", "get", "all", "shop"), "kind: Order", "helm.sh/hook: pre-install,pre-upgrade", "revision: \"1\"")

	wants(t, shop("h3", "uninstall", "shop", "--wait"), `release "shop" uninstalled`)
	left := kubectl(t, "h1", "-n", namespace, "get", "deployments,services,orders,poddisruptionbudgets,secrets,pods", "-l", "app.kubernetes.io/instance=shop", "-o", "name")
	if strings.TrimSpace(left) != "" {
		t.Errorf("left of the release:\n%s", left)
	}
	wants(t, kubectl(t, "h2", "-n", namespace, "get", "configmap", "shop-gone", "-o", "jsonpath={.data.was}"), "hello")
	if list := releases(t, shop("h1", "list", "-o", "json")); len(list) != 0 {
		t.Errorf("releases after the end: %+v", list)
	}
	wants(t, kubectl(t, "h2", "get", "crd", "-o", "name"), "orders.shop.example.com")
}

// wantsShop compares what the release has made: replicas and ready ones, the ConfigMap, and the order with its default.
func wantsShop(t testing.TB, host, namespace, replicas, config, order string) {
	t.Helper()
	for _, c := range []struct{ want, object, path string }{
		{replicas, "deployment/shop", "{.spec.replicas} {.status.readyReplicas}"},
		{config, "configmap/shop", "{.data.greeting} {.data.revision}"},
		{order, "order/shop", "{.spec.item}/{.spec.count}"},
	} {
		if got := kubectl(t, host, "-n", namespace, "get", c.object, "-o", "jsonpath="+c.path); got != c.want {
			t.Errorf("%s has %q, not %q", c.object, got, c.want)
		}
	}
}

// wantsHooksAround sees that the hooks ran, one before the release's objects were made and one after that.
func wantsHooksAround(t testing.TB, host, namespace string) {
	t.Helper()
	at := func(object, path string) string {
		return kubectl(t, host, "-n", namespace, "get", object, "-o", "jsonpath={"+path+"}")
	}
	before, deployed, after := at("job/shop-before", ".status.completionTime"), at("deployment/shop", ".metadata.creationTimestamp"), at("job/shop-after", ".metadata.creationTimestamp")
	if before == "" || before > deployed || deployed > after { // times of equal form are in the order of their text
		t.Errorf("the first hook ended at %q, the Deployment was made at %q, the last hook at %q", before, deployed, after)
	}
	wants(t, kubectl(t, host, "-n", namespace, "logs", "job/shop-before"), "before revision 1")
}

// testHelmConflict scales the Deployment behind Helm's back. Helm applies on the server, which tells it who owns the field.
func testHelmConflict(t *testing.T, namespace, chart string) {
	kubectl(t, "h2", "-n", namespace, "scale", "deployment/shop", "--replicas=1")
	upgrade := []string{"upgrade", "shop", chart, "-n", namespace, "--set", "replicas=3,greeting=welcome", "--wait", "--timeout", "90s"}
	out, err := tryHelm(t, "h3", upgrade...)
	if err == nil {
		t.Fatalf("helm took the field of another owner:\n%s", out)
	}
	wants(t, out, "conflict", ".spec.replicas")
	helm(t, "h1", append(upgrade, "--force-conflicts")...)
	wantsShop(t, "h2", namespace, "3 3", "welcome 4", "welcome/1")
	wantsHistory(t, "h2", namespace, "superseded", "superseded", "failed", "deployed")
}

// testHelmFailure upgrades to what the API refuses, and to what does not come up. Either time the release is what it was.
func testHelmFailure(t *testing.T, namespace, chart string) {
	upgrade := []string{"upgrade", "shop", chart, "-n", namespace, "--wait", "--timeout", "8s", "--rollback-on-failure", "--set"}
	out, err := tryHelm(t, "h1", append(upgrade, "image=,greeting=welcome,replicas=3")...)
	if err == nil {
		t.Fatalf("an upgrade without an image succeeded:\n%s", out)
	}
	wants(t, out, "spec.template.spec.containers[0].image: Required value")
	out, err = tryHelm(t, "h2", append(upgrade, "image=podvine.io/absent:v1,greeting=welcome,replicas=3")...)
	if err == nil {
		t.Fatalf("an upgrade to an absent image succeeded:\n%s", out)
	}
	wantsHistory(t, "h3", namespace, "superseded", "superseded", "failed", "superseded", "failed", "superseded", "failed", "deployed")
	wantsShop(t, "h1", namespace, "3 3", "welcome 4", "welcome/1")
}
