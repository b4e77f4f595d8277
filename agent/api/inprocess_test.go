package api_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apiextensionsclient "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"

	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/api/apitest/kubectl"
)

// next returns the next event of a watch that is no bookmark.
func next(t *testing.T, w watch.Interface) watch.Event {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		select {
		case e, ok := <-w.ResultChan():
			if !ok {
				t.Fatal("the watch ended")
			}
			if e.Type != watch.Bookmark {
				return e
			}
		case <-deadline:
			t.Fatal("no event")
		}
	}
}

func testClientInProcess(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl) {
	namespace(t, k, "inprocess")
	loop := &user.DefaultInfo{Name: "system:serviceaccount:inprocess:loop", Groups: []string{user.AllAuthenticated}}
	client, err := kubernetes.NewForConfig(c.Server.ClientConfig(loop))
	if err != nil {
		t.Fatal(err)
	}
	configMaps := client.CoreV1().ConfigMaps("inprocess")
	made := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "c"}}
	if _, err := configMaps.Create(t.Context(), made, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Fatalf("a user without rights: %v", err)
	}
	k.Run(t, "", "create", "clusterrole", "inprocess-loop", "--verb=*", "--resource=configmaps")
	k.Run(t, "", "create", "clusterrolebinding", "inprocess-loop", "--clusterrole=inprocess-loop", "--serviceaccount=inprocess:loop")
	apitest.Eventually(t, "the grant counts", func() error {
		_, err := configMaps.Create(t.Context(), made, metav1.CreateOptions{})
		return err
	})

	w, err := configMaps.Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if e := next(t, w); e.Type != watch.Added || e.Object.(*corev1.ConfigMap).Name != "c" {
		t.Errorf("first event %+v", e)
	}
	if err := configMaps.Delete(t.Context(), "c", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if e := next(t, w); e.Type != watch.Deleted {
		t.Errorf("second event %+v", e)
	}
	w.Stop()
	apitest.Eventually(t, "the watch ends when it is stopped", func() error {
		select {
		case _, ok := <-w.ResultChan():
			if !ok {
				return nil
			}
		default:
		}
		return errors.New("it is still open")
	})

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := configMaps.Get(ctx, "c", metav1.GetOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("a canceled call: %v", err)
	}
}

func testInformers(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl) {
	namespace(t, k, "informers")
	factory := c.Server.Informers()
	configMaps := factory.Core().V1().ConfigMaps()
	lister := configMaps.Lister()
	factory.StartWithContext(t.Context())
	if err := factory.WaitForCacheSyncWithContext(t.Context()).AsError(); err != nil {
		t.Fatal(err)
	}
	k.Run(t, "", "create", "--namespace=informers", "configmap", "c", "--from-literal=k=v")
	apitest.Eventually(t, "the lister knows", func() error {
		_, err := lister.ConfigMaps("informers").Get("c")
		return err
	})
	generic, err := factory.ForResource(corev1.SchemeGroupVersion.WithResource("configmaps"))
	if err != nil {
		t.Fatal(err)
	}
	if generic.Informer().GetIndexer() != configMaps.Informer().GetIndexer() {
		t.Error("the generic informer has another store than the typed")
	}
	k.Run(t, "", "delete", "--namespace=informers", "cm/c")
	apitest.Eventually(t, "the lister forgets", func() error {
		left, err := lister.ConfigMaps("informers").List(labels.Everything())
		if err != nil || len(left) > 0 {
			return fmt.Errorf("%d left: %w", len(left), err)
		}
		return nil
	})
}

func testEvents(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl) {
	ns := namespace(t, k, "events")
	client := c.Client(t)
	now := metav1.NowMicro()
	made, err := client.EventsV1().Events("events").Create(t.Context(), &eventsv1.Event{
		ObjectMeta: metav1.ObjectMeta{Name: "e"}, EventTime: now, ReportingController: "example.com/c", ReportingInstance: "i",
		Action: "Act", Reason: "Because", Type: corev1.EventTypeNormal, Note: "what happened",
		Regarding: corev1.ObjectReference{Kind: "Pod", Namespace: "events", Name: "p"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	old, err := client.CoreV1().Events("events").Get(t.Context(), "e", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if old.UID != made.UID || old.Message != "what happened" || old.InvolvedObject.Name != "p" || old.ReportingController != "example.com/c" {
		t.Errorf("in the other group: %+v", old)
	}
	has(t, k.Run(t, "", "get", ns, "events"), "LAST SEEN", "Because", "pod/p", "what happened")
	has(t, k.Run(t, "", "get", ns, "events", "--field-selector=involvedObject.name=p", "-o", "name"), "event/e")
	has(t, k.Run(t, "", "get", ns, "events.events.k8s.io", "--field-selector=regarding.name=p", "-o", "name"), "event.events.k8s.io/e")
	k.Fail(t, "", []string{"get", ns, "events.events.k8s.io", "--field-selector=involvedObject.name=p"}, "field label not supported")
}

const definition = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, singular: widget, kind: Widget, shortNames: [wd]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    additionalPrinterColumns: [{name: Size, type: integer, jsonPath: .spec.size}]
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, required: [size], properties: {size: {type: integer, minimum: 1}, color: {type: string, default: red}}}
          status: {type: object, x-kubernetes-preserve-unknown-fields: true}
`

func testCustomResources(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl) {
	ns := namespace(t, k, "custom")
	shown := make(chan bool, 64) // whether discovery shows the kind, each time when it has changed
	c.Server.OnKindsChanged(func() {
		groups, err := c.Client(t).Discovery().ServerGroups()
		if err != nil {
			t.Errorf("discover: %v", err)
			return
		}
		select {
		case shown <- slices.ContainsFunc(groups.Groups, func(g metav1.APIGroup) bool { return g.Name == "example.com" }):
		default:
		}
	})
	told := func(want bool) {
		t.Helper()
		for end := time.After(30 * time.Second); ; {
			select {
			case got := <-shown:
				if got == want {
					return
				}
			case <-end:
				t.Fatalf("nobody was told that the kind is there: %t", want)
			}
		}
	}
	k.Run(t, "", "apply", "-f", k.File(t, "crd.yaml", definition))
	k.Run(t, "", "wait", "--for=condition=Established", "crd/widgets.example.com", "--timeout=30s")
	told(true)
	apitest.Eventually(t, "the group is available", func() error {
		out, err := k.Try(t, "", "get", "apiservice", "v1.example.com", "-o", `jsonpath={.status.conditions[?(@.type=="Available")].status}`)
		if err == nil && out != "True" {
			return fmt.Errorf("available is %q", out)
		}
		return err
	})
	widget := func(size string) string {
		return k.File(t, "w"+size+".yaml", "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {size: "+size+"}\n")
	}
	apitest.Eventually(t, "a widget is made", func() error {
		_, err := k.Try(t, "", "apply", ns, "-f", widget("3"))
		return err
	})
	has(t, k.Run(t, "", "get", ns, "wd"), "NAME", "SIZE", "w ", "3")
	has(t, k.Run(t, "", "get", ns, "widget/w", "-o", "yaml"), "color: red", "kind: Widget")
	k.Fail(t, "", []string{"apply", ns, "-f", widget("0")}, "spec.size", "should be greater than or equal to 1")
	has(t, k.Run(t, "", "apply", ns, "--server-side", "--force-conflicts", "-f", widget("5")), "serverside-applied")
	apitest.Eventually(t, "explain knows it", func() error {
		_, err := k.Try(t, "", "explain", "widget.spec.size")
		return err
	})

	client, err := apiextensionsclient.NewForConfig(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	k.Run(t, "", "delete", "crd", "widgets.example.com")
	told(false)
	apitest.Eventually(t, "the definition, its group and its objects are gone", func() error {
		if _, err := client.ApiextensionsV1().CustomResourceDefinitions().Get(t.Context(), "widgets.example.com", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("definition: got %w, want not found", err)
		}
		if out, err := k.Try(t, "", "get", "apiservice", "v1.example.com"); err == nil {
			return fmt.Errorf("API service is still there: %s", out)
		}
		return nil
	})
	k.Fail(t, "", []string{"get", ns, "widgets"}, "the server")
}
