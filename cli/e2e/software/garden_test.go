package software

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
)

const gardenService = "v1.garden.example.com"

// TestAggregatedServer serves a kind by an API server in a pod, built on the published library with nothing taken away, and uses it
// through each member as if it were the cluster's own. Then its pod goes, and comes back.
func TestAggregatedServer(t *testing.T) {
	const namespace = "garden"
	newNamespace(t, namespace)
	applyServed(t, namespace, "garden", "garden.yaml")
	kubectl(t, "h2", "wait", "--for=condition=Available", "apiservice/"+gardenService, "--timeout=90s")
	wants(t, kubectl(t, "h1", "get", "apiservice", gardenService), namespace+"/garden", "True")
	for _, host := range hosts {
		eventually(t, host+" to serve the group", func() (string, bool) {
			out, err := try(t, host, "", "kubectl", "-n", namespace, "get", "plants")
			return out, err == nil
		})
	}
	watched := watchPlants(t, namespace)
	for _, host := range hosts {
		wants(t, kubectl(t, host, "api-resources", "--api-group=garden.example.com"), "plants", "garden.example.com/v1", "true", "Plant")
		plant := "{apiVersion: garden.example.com/v1, kind: Plant, metadata: {name: by-" + host + ", labels: {at: " + host + "}}, spec: {species: fern, water: 2}}"
		if out, err := try(t, host, plant, "kubectl", "-n", namespace, "apply", "--server-side", "-f", "-"); err != nil {
			t.Fatalf("at %s: %v: %s", host, err, out)
		}
		watched("ADDED by-" + host)
		kubectl(t, host, "-n", namespace, "patch", "plant", "by-"+host, "--type=merge", "-p", `{"spec":{"water":3}}`)
		watched("MODIFIED by-" + host)
	}
	wants(t, kubectl(t, "h3", "-n", namespace, "get", "plants", "-l", "at=h1", "-o", "jsonpath={.items[*].spec.water}"), "3")
	wants(t, kubectl(t, "h2", "-n", namespace, "get", "plants", "by-h1"), "NAME", "CREATED AT", "by-h1")
	for _, host := range hosts {
		eventually(t, host+" to explain the kind", func() (string, bool) {
			out, err := try(t, host, "", "kubectl", "explain", "plant.spec.water")
			return out, err == nil && strings.Contains(out, "How much water it gets, in litres.")
		})
	}
	t.Run("access", func(t *testing.T) { testGardenAccess(t, namespace) })
	t.Run("informer", func(t *testing.T) { testGardenInformer(t, namespace) })
	t.Run("away", func(t *testing.T) { testGardenAway(t, namespace) })
	t.Run("namespace", func(t *testing.T) { testGardenNamespace(t) })
}

// watchPlants runs `kubectl get --watch` at the third member, and returns a function that waits for an event of it.
func watchPlants(t *testing.T, namespace string) func(event string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c := cluster.Command(ctx, "h3", "kubectl", "-n", namespace, "get", "plants", "--watch", "--output-watch-events", "-o", "json")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	seen := make(chan string)
	go func() {
		defer close(seen)
		for decoder := json.NewDecoder(bufio.NewReader(out)); ; {
			var event struct {
				Type   string
				Object struct{ Metadata metav1.ObjectMeta }
			}
			if decoder.Decode(&event) != nil {
				return // the command has ended
			}
			select {
			case seen <- event.Type + " " + event.Object.Metadata.Name:
			case <-ctx.Done():
				return
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		_ = c.Wait() // it was killed
	})
	return func(wanted string) {
		t.Helper()
		timeout := time.After(settled)
		for {
			select {
			case event, ok := <-seen:
				if event == wanted {
					return
				}
				if !ok {
					t.Fatalf("the watch ended before it showed %q", wanted)
				}
			case <-timeout:
				t.Fatalf("the watch did not show %q", wanted)
			}
		}
	}
}

// testGardenAccess asks as users of little power: the server knows who they are by the headers of the front proxy, asks the cluster what
// they may do, and applies the cluster's policies.
func testGardenAccess(t *testing.T, namespace string) {
	config, err := try(t, "h1", "", "kubeconfig", "--user", "jane", "--group", "gardeners", "--ttl", "1h")
	if err != nil {
		t.Fatal(err)
	}
	jane := filepath.Join(cluster.Folder, "jane")
	if err := os.WriteFile(jane, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	ask := func(stdin string, args ...string) (string, error) {
		return try(t, "h1", stdin, append([]string{"kubectl", "--kubeconfig", jane, "-n", namespace}, args...)...)
	}
	out, err := ask("", "get", "plants")
	if err == nil {
		t.Errorf("jane may list plants: %s", out)
	}
	wants(t, out, `plants.garden.example.com is forbidden: User "jane" cannot list resource "plants" in API group "garden.example.com" in the namespace "garden"`)
	kubectl(t, "h2", "-n", namespace, "create", "rolebinding", "viewers", "--clusterrole=view", "--group=gardeners")
	eventually(t, "jane to see plants", func() (string, bool) { // answers of the cluster are cached for some seconds
		out, err := ask("", "get", "plants")
		return out, err == nil && strings.Contains(out, "by-h2")
	})
	if out, err = ask("", "delete", "plant", "by-h2"); err == nil {
		t.Errorf("jane may delete plants: %s", out)
	}
	wants(t, out, `User "jane" cannot delete resource "plants"`)
	out, err = try(t, "h2", "{apiVersion: garden.example.com/v1, kind: Plant, metadata: {name: drowned}, spec: {water: 10}}", "kubectl", "-n", namespace, "create", "-f", "-")
	if err == nil {
		t.Errorf("the policy was not applied: %s", out)
	}
	wants(t, out, "too much water")
	out, err = try(t, "h3", "", "kubectl", "-n", namespace, "exec", "deployment/garden", "--", "/app", "ask", "https://garden/apis/garden.example.com/v1/plants")
	wants(t, out, "403")
	if err != nil {
		t.Errorf("ask the server past the cluster's API: %v: %s", err, out)
	}
}

// testGardenInformer runs an informer of client-go's on the aggregated kind.
func testGardenInformer(t *testing.T, namespace string) {
	_, config := clientOf(t, "h2")
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	factory := dynamicinformer.NewDynamicSharedInformerFactory(client, 0)
	informer := factory.ForResource(gardenVersion.WithResource("plants"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	factory.Start(ctx.Done())
	defer factory.Shutdown()
	defer cancel()
	factory.WaitForCacheSync(ctx.Done())
	has := func(name string) bool {
		_, err := informer.Lister().ByNamespace(namespace).Get(name)
		return err == nil
	}
	if !has("by-h1") {
		t.Error("the informer has synced without what was there")
	}
	kubectl(t, "h3", "-n", namespace, "delete", "plant", "by-h1")
	eventually(t, "the informer to see it go", func() (string, bool) { return "by-h1", !has("by-h1") })
}

// testGardenAway takes the server's pod away and brings it back. Meanwhile the APIService says so, discovery and namespaces of others work,
// and requests for the group fail with 503.
func testGardenAway(t *testing.T, namespace string) {
	kubectl(t, "h1", "-n", namespace, "scale", "deployment/garden", "--replicas=0")
	kubectl(t, "h2", "wait", "--for=condition=Available=False", "apiservice/"+gardenService, "--timeout=60s")
	wants(t, kubectl(t, "h3", "get", "apiservice", gardenService, "-o", "jsonpath={.status.conditions[0].reason}"), "MissingEndpoints")
	for _, host := range hosts {
		out, err := try(t, host, "", "kubectl", "-n", namespace, "get", "--raw", "/apis/garden.example.com/v1/namespaces/"+namespace+"/plants")
		if err == nil {
			t.Errorf("%s served plants without their server: %s", host, out)
		}
		wants(t, out, "the server is currently unable to handle the request")
		wants(t, kubectl(t, host, "get", "--raw", "/readyz"), "ok")
	}
	wants(t, kubectl(t, "h1", "api-resources"), "deployments", "customresourcedefinitions")
	kubectl(t, "h1", "create", "namespace", "waits")
	kubectl(t, "h1", "delete", "namespace", "waits", "--wait=false")
	eventually(t, "the namespace to say what it waits for", func() (string, bool) {
		out := kubectl(t, "h2", "get", "namespace", "waits", "-o", "jsonpath={.status.conditions}")
		return out, strings.Contains(out, "NamespaceDeletionDiscoveryFailure") && strings.Contains(out, "garden.example.com/v1")
	})
	kubectl(t, "h3", "-n", namespace, "scale", "deployment/garden", "--replicas=1")
	kubectl(t, "h2", "wait", "--for=condition=Available", "apiservice/"+gardenService, "--timeout=90s")
	for _, host := range hosts {
		eventually(t, host+" to serve the group again", func() (string, bool) {
			out, err := try(t, host, "", "kubectl", "-n", namespace, "get", "plants")
			return out, err == nil
		})
	}
	kubectl(t, "h2", "wait", "--for=delete", "namespace/waits", "--timeout=90s")
}

// testGardenNamespace deletes a namespace with a plant in it, and an owner of a plant: what is elsewhere goes with them.
func testGardenNamespace(t *testing.T) {
	kubectl(t, "h1", "create", "namespace", "meadow")
	kubectl(t, "h2", "-n", "meadow", "create", "configmap", "owner")
	uid := kubectl(t, "h2", "-n", "meadow", "get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}")
	for name, owners := range map[string]string{"owned": "[{apiVersion: v1, kind: ConfigMap, name: owner, uid: " + uid + "}]", "free": "[]"} {
		plant := "{apiVersion: garden.example.com/v1, kind: Plant, metadata: {name: " + name + ", ownerReferences: " + owners + "}}"
		if out, err := try(t, "h3", plant, "kubectl", "-n", "meadow", "create", "-f", "-"); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	kubectl(t, "h1", "-n", "meadow", "delete", "configmap", "owner")
	eventually(t, "the owned plant to go with its owner", func() (string, bool) {
		out := kubectl(t, "h1", "-n", "meadow", "get", "plants", "-o", "name")
		return out, out == "plant.garden.example.com/free\n"
	})
	kubectl(t, "h1", "delete", "namespace", "meadow", "--timeout=60s")
	out := kubectl(t, "h2", "get", "plants", "-A", "--field-selector=metadata.name=free", "-o", "name")
	if out != "" {
		t.Errorf("left of the namespace: %s", out)
	}
}
