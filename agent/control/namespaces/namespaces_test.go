package namespaces_test

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	fakediscovery "k8s.io/client-go/discovery/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/loop/looptest"
	"github.com/podvine/podvine/agent/control/namespaces"
)

var resources = []*metav1.APIResourceList{
	{GroupVersion: "v1", APIResources: []metav1.APIResource{
		{Name: "pods", Namespaced: true, Kind: "Pod", Verbs: []string{"delete", "list"}},
		{Name: "secrets", Namespaced: true, Kind: "Secret", Verbs: []string{"delete", "deletecollection", "list"}},
		{Name: "bindings", Namespaced: true, Kind: "Binding", Verbs: []string{"create"}},
	}},
	{GroupVersion: "example.com/v1", APIResources: []metav1.APIResource{
		{Name: "widgets", Namespaced: true, Kind: "Widget", Verbs: []string{"delete", "list"}}}},
}

func object(version, kind, name string, finalizers ...string) *metav1.PartialObjectMetadata {
	return &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: version, Kind: kind},
		ObjectMeta: metav1.ObjectMeta{Namespace: "gone", Name: name, Finalizers: finalizers}}
}

// fixture is a terminating namespace "gone" with content.
type fixture struct {
	*testing.T
	*looptest.Cluster
	content *metadatafake.FakeMetadataClient
	loop    *namespaces.Loop
	deleted []string
}

func run(t *testing.T, test func(f *fixture), objects ...runtime.Object) {
	synctest.Test(t, func(t *testing.T) {
		now := metav1.Now()
		c := looptest.New(t, &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "gone", UID: "u", DeletionTimestamp: &now},
			Spec: v1.NamespaceSpec{Finalizers: []v1.FinalizerName{v1.FinalizerKubernetes}}})
		defer c.Stop()
		c.Client.Discovery().(*fakediscovery.FakeDiscovery).Resources = resources
		scheme := metadatafake.NewTestScheme()
		c.Must(metav1.AddMetaToScheme(scheme))
		f := &fixture{T: t, Cluster: c, content: metadatafake.NewSimpleMetadataClient(scheme, objects...)}
		f.content.PrependReactor("delete", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
			return f.remove(action.GetResource(), action.(clienttesting.DeleteAction).GetName())
		})
		f.content.PrependReactor("delete-collection", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
			if _, err := f.content.Tracker().Get(action.GetResource(), "gone", unencodable); err == nil {
				return true, nil, apierrors.NewGenericServerResponse(http.StatusNotAcceptable, "delete", action.GetResource().GroupResource(), "", "no protobuf", 0, false)
			}
			return f.remove(action.GetResource(), "secret")
		})
		l, err := namespaces.New(loop.Wiring{Client: c.Client, Informers: c.Informers, Logger: c.Logger()}, f.content)
		c.Must(err)
		f.loop = l
		c.Start(l)
		test(f)
	})
}

// remove notes the order of deletions; objects with finalizers stay.
func (f *fixture) remove(resource schema.GroupVersionResource, name string) (bool, runtime.Object, error) {
	stored, err := f.content.Tracker().Get(resource, "gone", name)
	if err != nil {
		return true, nil, nil //nolint:nilerr // gone, as wanted
	}
	f.deleted = append(f.deleted, resource.Resource)
	if len(stored.(*metav1.PartialObjectMetadata).Finalizers) > 0 {
		return true, nil, nil
	}
	return true, nil, f.content.Tracker().Delete(resource, "gone", name)
}

func (f *fixture) namespace() *v1.Namespace {
	f.Helper()
	n, err := f.Client.CoreV1().Namespaces().Get(f.Context(), "gone", metav1.GetOptions{})
	f.Must(err)
	return n
}

func (f *fixture) condition(kind v1.NamespaceConditionType) string {
	for _, c := range f.namespace().Status.Conditions {
		if c.Type == kind {
			return string(c.Status) + " " + c.Reason + ": " + c.Message
		}
	}
	return ""
}

// TestEmptiesAndEnds: pods first, then the rest, custom resources included, then the finalizer.
func TestEmptiesAndEnds(t *testing.T) {
	run(t, func(f *fixture) {
		if got := f.deleted; len(got) != 3 || got[0] != "pods" || !slices.Contains(got, "secrets") || !slices.Contains(got, "widgets") {
			f.Errorf("deleted %q, want pods first and all of it", got)
		}
		if got := f.namespace(); len(got.Spec.Finalizers) != 0 || got.Status.Phase != v1.NamespaceTerminating {
			f.Errorf("finalizers %v, phase %s", got.Spec.Finalizers, got.Status.Phase)
		}
	}, object("v1", "Pod", "p"), object("v1", "Secret", "secret"), object("example.com/v1", "Widget", "w"))
}

// unencodable is the name of an object that its server cannot show in the form that was asked for.
const unencodable = "unencodable"

// TestServerWithoutProtobuf: a server that cannot answer to the deletion of all objects has them deleted one by one.
func TestServerWithoutProtobuf(t *testing.T) {
	run(t, func(f *fixture) {
		if got := f.namespace(); len(got.Spec.Finalizers) != 0 || len(f.deleted) != 1 {
			f.Errorf("deleted %q, conditions %+v", f.deleted, got.Status.Conditions)
		}
	}, object("v1", "Secret", unencodable))
}

// TestWaitsForFinalizers: a pod with a finalizer keeps the namespace and all else, and the conditions say so.
func TestWaitsForFinalizers(t *testing.T) {
	run(t, func(f *fixture) {
		if got := strings.Join(f.deleted, " "); strings.Contains(got, "secrets") {
			f.Errorf("deleted %q while a pod remained", got)
		}
		if got := f.condition(v1.NamespaceContentRemaining); got != "True SomeResourcesRemain: Some resources are remaining: pods. has 1 resource instances" {
			f.Errorf("content: %s", got)
		}
		if got := f.condition(v1.NamespaceFinalizersRemaining); got != "True SomeFinalizersRemain: Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances" {
			f.Errorf("finalizers: %s", got)
		}
		f.Must(f.content.Tracker().Delete(schema.GroupVersionResource{Version: "v1", Resource: "pods"}, "gone", "p"))
		f.Settle()
		if got := f.namespace(); len(got.Spec.Finalizers) != 0 {
			f.Errorf("not ended after the pod went: %+v", got.Status.Conditions)
		}
	}, object("v1", "Pod", "p", "example.com/hold"), object("v1", "Secret", "secret"))
}

// TestKindsChanged has a namespace looked at at once, not when its turn comes.
func TestKindsChanged(t *testing.T) {
	run(t, func(f *fixture) {
		f.Pass(time.Second) // away from the rounds
		f.Must(f.content.Tracker().Delete(schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "widgets"}, "gone", "w"))
		f.Pass(time.Second)
		if len(f.namespace().Spec.Finalizers) == 0 {
			f.Fatal("the namespace ended before its turn: the test tells nothing")
		}
		f.loop.KindsChanged()
		f.Pass(100 * time.Millisecond)
		if got := f.namespace(); len(got.Spec.Finalizers) != 0 {
			f.Errorf("not looked at: %+v", got.Status.Conditions)
		}
	}, object("example.com/v1", "Widget", "w", "example.com/hold"))
}

// TestDiscoveryFailure: a group that does not answer is told, keeps the namespace, and does not keep the rest.
func TestDiscoveryFailure(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	namespace := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &metav1.Time{Time: now.Add(-time.Minute)}}}
	plan := namespaces.Decide(namespace, namespaces.Census{Discovery: []error{errors.New("metrics.k8s.io/v1beta1: no answer")}}, now)
	if plan.Finalize || plan.Again == 0 {
		t.Error("ended a namespace of which not all is known")
	}
	if c := plan.Conditions[0]; c.Reason != "DiscoveryFailed" || c.Message != "Discovery failed for some groups, 1 failing: metrics.k8s.io/v1beta1: no answer" {
		t.Errorf("condition %+v", c)
	}
	namespace.DeletionTimestamp = &metav1.Time{Time: now}
	if plan = namespaces.Decide(namespace, namespaces.Census{}, now); plan.Finalize || plan.Again != time.Second {
		t.Errorf("ended at once (%+v), while creations admitted just before may be under way", plan)
	}
}
