package gc

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	fakediscovery "k8s.io/client-go/discovery/fake"
	metadatafake "k8s.io/client-go/metadata/fake"
	clienttesting "k8s.io/client-go/testing"
	"pgregory.net/rapid"

	"github.com/podvine/podvine/agent/control/loop/looptest"
)

var (
	verbs     = []string{"delete", "list", "watch"}
	resources = []*metav1.APIResourceList{
		{GroupVersion: "v1", APIResources: []metav1.APIResource{
			{Name: "configmaps", Namespaced: true, Kind: "ConfigMap", Verbs: verbs},
			{Name: "pods", Namespaced: true, Kind: "Pod", Verbs: verbs},
			{Name: "pods/status", Namespaced: true, Kind: "Pod", Verbs: []string{"get"}},
			{Name: "nodes", Kind: "Node", Verbs: verbs},
		}},
		{GroupVersion: "example.com/v1", APIResources: []metav1.APIResource{
			{Name: "widgets", Namespaced: true, Kind: "Widget", Verbs: verbs}}},
	}
	plural = map[string]schema.GroupVersionResource{
		"ConfigMap": {Version: "v1", Resource: "configmaps"}, "Pod": {Version: "v1", Resource: "pods"},
		"Node": {Version: "v1", Resource: "nodes"}, "Widget": {Group: "example.com", Version: "v1", Resource: "widgets"},
	}
)

// object is written "Kind/name"; its owners likewise, with "!" behind those that it blocks.
func object(text string, owners ...string) *metav1.PartialObjectMetadata {
	kind, name, _ := strings.Cut(text, "/")
	gvk := plural[kind].GroupVersion().WithKind(kind)
	o := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(text), Namespace: "default"}}
	o.SetGroupVersionKind(gvk)
	if kind == "Node" {
		o.Namespace = ""
	}
	for _, owner := range owners {
		text, block := strings.CutSuffix(owner, "!")
		kind, name, _ := strings.Cut(text, "/")
		ref := metav1.OwnerReference{Kind: kind, Name: name, UID: types.UID(text)}
		if ref.APIVersion, _ = plural[kind].GroupVersion().WithKind(kind).ToAPIVersionAndKind(); block {
			ref.BlockOwnerDeletion = &block
		}
		o.OwnerReferences = append(o.OwnerReferences, ref)
	}
	return o
}

// store plays the API: deletion by policy, and the end of objects whose last finalizer went.
type store struct {
	*testing.T
	*looptest.Cluster
	*metadatafake.FakeMetadataClient
	loop *Loop
}

func run(t *testing.T, test func(s *store), objects ...runtime.Object) {
	synctest.Test(t, func(t *testing.T) {
		c := looptest.New(t)
		defer c.Stop()
		c.Client.Discovery().(*fakediscovery.FakeDiscovery).Resources = resources
		scheme := metadatafake.NewTestScheme()
		c.Must(metav1.AddMetaToScheme(scheme))
		s := &store{T: t, Cluster: c, FakeMetadataClient: metadatafake.NewSimpleMetadataClient(scheme, objects...)}
		s.PrependReactor("delete", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
			d := action.(clienttesting.DeleteActionImpl)
			return true, nil, s.delete(d.GetResource(), d.GetNamespace(), d.GetName(), d.DeleteOptions)
		})
		s.PrependReactor("patch", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
			p := action.(clienttesting.PatchAction)
			return s.patch(p.GetResource(), p.GetNamespace(), p.GetName(), p.GetPatch())
		})
		l, err := New(Config{Client: c.Client, Metadata: s.FakeMetadataClient, Logger: c.Logger()})
		c.Must(err)
		s.loop = l
		c.Start(l)
		test(s)
	})
}

func (s *store) delete(resource schema.GroupVersionResource, namespace, name string, options metav1.DeleteOptions) error {
	found, err := s.Tracker().Get(resource, namespace, name)
	if err != nil {
		return err
	}
	o := found.(*metav1.PartialObjectMetadata).DeepCopy()
	if p := options.Preconditions; p != nil && p.UID != nil && *p.UID != o.UID {
		return apierrors.NewConflict(resource.GroupResource(), name, fmt.Errorf("uid is %s", o.UID))
	}
	if options.PropagationPolicy != nil && o.DeletionTimestamp == nil {
		switch *options.PropagationPolicy {
		case metav1.DeletePropagationForeground:
			o.Finalizers = append(o.Finalizers, metav1.FinalizerDeleteDependents)
		case metav1.DeletePropagationOrphan:
			o.Finalizers = append(o.Finalizers, metav1.FinalizerOrphanDependents)
		}
	}
	now := metav1.Now()
	o.DeletionTimestamp = &now
	return s.put(resource, o)
}

func (s *store) put(resource schema.GroupVersionResource, o *metav1.PartialObjectMetadata) error {
	if o.DeletionTimestamp != nil && len(o.Finalizers) == 0 {
		return s.Tracker().Delete(resource, o.Namespace, o.Name)
	}
	return s.Tracker().Update(resource, o, o.Namespace)
}

func (s *store) patch(resource schema.GroupVersionResource, namespace, name string, body []byte) (bool, runtime.Object, error) {
	found, err := s.Tracker().Get(resource, namespace, name)
	if err != nil {
		return true, nil, err
	}
	o := found.(*metav1.PartialObjectMetadata).DeepCopy()
	var patch struct {
		Metadata map[string]json.RawMessage `json:"metadata"`
	}
	if err := json.Unmarshal(body, &patch); err != nil {
		return true, nil, err
	}
	if raw, ok := patch.Metadata["finalizers"]; ok {
		o.Finalizers = nil
		s.Must(json.Unmarshal(raw, &o.Finalizers))
	}
	if raw, ok := patch.Metadata["ownerReferences"]; ok {
		o.OwnerReferences = nil
		s.Must(json.Unmarshal(raw, &o.OwnerReferences))
	}
	return true, o, s.put(resource, o)
}

// left lists all objects with their owners.
func (s *store) left() string {
	var out []string
	for kind, resource := range plural {
		list, err := s.Resource(resource).List(s.Context(), metav1.ListOptions{})
		s.Must(err)
		for _, o := range list.Items {
			text := kind + "/" + o.Name
			for _, ref := range o.OwnerReferences {
				text += "<" + string(ref.UID)
			}
			out = append(out, text)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// remove deletes as a user does.
func (s *store) remove(text string, policy metav1.DeletionPropagation) {
	s.Helper()
	kind, name, _ := strings.Cut(text, "/")
	s.Must(s.delete(plural[kind], "default", name, metav1.DeleteOptions{PropagationPolicy: &policy}))
	s.Settle()
}

func (s *store) want(when, want string) {
	s.Helper()
	if got := s.left(); got != want {
		s.Errorf("%s: %q, want %q", when, got, want)
	}
}

// family is an owner with children and grandchildren, a custom resource among them, and a bystander.
func family() []runtime.Object {
	return []runtime.Object{object("Widget/root"), object("ConfigMap/child", "Widget/root!"), object("Pod/other", "Widget/root"),
		object("Pod/grandchild", "ConfigMap/child!"), object("Pod/bystander")}
}

func TestBackground(t *testing.T) {
	run(t, func(s *store) {
		s.want("before", "ConfigMap/child<Widget/root Pod/bystander Pod/grandchild<ConfigMap/child Pod/other<Widget/root Widget/root")
		s.remove("Widget/root", metav1.DeletePropagationBackground)
		s.want("after", "Pod/bystander")
	}, family()...)
}

func TestForeground(t *testing.T) {
	holding := family()
	holding[3].(*metav1.PartialObjectMetadata).Finalizers = []string{"example.com/hold"}
	run(t, func(s *store) {
		s.remove("Widget/root", metav1.DeletePropagationForeground)
		s.want("while the grandchild is held", "ConfigMap/child<Widget/root Pod/bystander Pod/grandchild<ConfigMap/child Widget/root")
		_, _, err := s.patch(plural["Pod"], "default", "grandchild", []byte(`{"metadata":{"finalizers":null}}`))
		s.Must(err)
		s.Settle()
		s.want("after", "Pod/bystander")
	}, holding...)
}

func TestOrphan(t *testing.T) {
	run(t, func(s *store) {
		s.remove("Widget/root", metav1.DeletePropagationOrphan)
		s.want("after", "ConfigMap/child Pod/bystander Pod/grandchild<ConfigMap/child Pod/other")
	}, family()...)
}

// TestSeveralOwners: one owner that stays keeps the object; the reference to the other goes.
func TestSeveralOwners(t *testing.T) {
	run(t, func(s *store) {
		s.remove("Widget/a", metav1.DeletePropagationBackground)
		s.want("after one", "Pod/p<Widget/b Widget/b")
		s.remove("Widget/b", metav1.DeletePropagationBackground)
		s.want("after both", "")
	}, object("Widget/a"), object("Widget/b"), object("Pod/p", "Widget/a", "Widget/b"))
}

// TestBornOrphaned: objects whose owner was gone before they were seen, or never was, go too; those of a kind
// that nobody knows, and cluster-wide ones that name a namespaced owner, stay.
func TestBornOrphaned(t *testing.T) {
	stranger := object("Pod/stranger")
	stranger.OwnerReferences = []metav1.OwnerReference{{APIVersion: "gone.example.com/v1", Kind: "Gone", Name: "x", UID: "x"}}
	reborn := object("Pod/reborn", "Widget/root")
	reborn.OwnerReferences[0].UID = "an earlier life"
	run(t, func(s *store) {
		s.want("after", "Node/n<Widget/none Pod/stranger<x Widget/root")
		s.Must(s.Tracker().Create(plural["Pod"], object("Pod/late", "Widget/none"), "default"))
		s.Settle()
		s.want("after a late one", "Node/n<Widget/none Pod/stranger<x Widget/root")
	}, stranger, reborn, object("Widget/root"), object("Pod/child", "Widget/none"), object("Node/n", "Widget/none"))
}

// TestCycle: two objects that own and block each other go when a third owner, deleted in the foreground, does.
func TestCycle(t *testing.T) {
	run(t, func(s *store) {
		s.remove("Pod/a", metav1.DeletePropagationForeground)
		s.want("after", "")
	}, object("Pod/a", "Pod/b!"), object("Pod/b", "Pod/a!"))
}

// TestKindsComeAndGo: a new kind's objects are collected, and the loop starts anew after it ended.
func TestKindsComeAndGo(t *testing.T) {
	run(t, func(s *store) {
		s.Client.Discovery().(*fakediscovery.FakeDiscovery).Resources = resources[:1]
		s.loop.Rediscover()
		s.Settle()
		s.remove("Widget/root", metav1.DeletePropagationBackground)
		s.want("while widgets are unknown", "Pod/p<Widget/root")
		s.Client.Discovery().(*fakediscovery.FakeDiscovery).Resources = resources
		s.loop.Rediscover()
		s.Pass(4 * looptest.SettleTime)
		s.want("when they are back", "")
	}, object("Widget/root"), object("Pod/p", "Widget/root"))
}

// TestOwnersOfNewKinds: what a new kind owns goes with its owner at once, although nobody told that the kind came.
func TestOwnersOfNewKinds(t *testing.T) {
	run(t, func(s *store) {
		serve := func(list []*metav1.APIResourceList) {
			s.Client.Discovery().(*fakediscovery.FakeDiscovery).Resources = list
		}
		serve(resources[:1])
		s.loop.Rediscover()
		s.Settle()
		s.Must(s.Tracker().Create(plural["Pod"], object("Pod/orphan", "Widget/none"), "default"))
		s.Must(s.Tracker().Create(plural["Pod"], object("Pod/p", "Widget/root"), "default"))
		s.Pass(rediscoverFirstSeconds * time.Second / 2)
		s.want("while widgets are unknown", "Pod/orphan<Widget/none Pod/p<Widget/root Widget/root")
		serve(resources)
		s.Pass(rediscoverFirstSeconds * time.Second)
		s.want("when widgets are known", "Pod/p<Widget/root Widget/root")
		s.Must(s.delete(plural["Widget"], "default", "root", metav1.DeleteOptions{PropagationPolicy: new(metav1.DeletePropagationBackground)}))
		s.Pass(time.Second)
		s.want("when their owner is gone", "")
	}, object("Widget/root"))
}

// TestGraph: after any events, dependents are exactly those whose newest references say so, and whoever lost
// an owner was looked at.
func TestGraph(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := []string{"Pod/a", "Pod/b", "Pod/c", "Pod/d"}
		g, truth := NewGraph(), map[string][]string{}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			name := rapid.SampledFrom(names).Draw(t, "object")
			if rapid.IntRange(0, 3).Draw(t, "forget") == 0 {
				look := g.Forget(types.UID(name))
				delete(truth, name)
				for child, owners := range truth {
					if slices.Contains(owners, name) && !slices.Contains(look, types.UID(child)) {
						t.Fatalf("%s lost %s and is not looked at", child, name)
					}
				}
				continue
			}
			owners := rapid.SliceOfNDistinct(rapid.SampledFrom(names), 0, 2, rapid.ID).Draw(t, "owners")
			look := g.Observe(plural["Pod"], object(name, owners...))
			truth[name] = owners
			for _, owner := range owners {
				if _, ok := truth[owner]; !ok && !slices.Contains(look, types.UID(name)) {
					t.Fatalf("%s has the unknown owner %s and is not looked at", name, owner)
				}
			}
		}
		if g.Len() != len(truth) {
			t.Fatalf("%d objects known, want %d", g.Len(), len(truth))
		}
		for name := range truth {
			_, dependents, _, _ := g.Find(types.UID(name))
			var got, want []string
			for _, d := range dependents {
				got = append(got, string(d.UID))
			}
			for child, owners := range truth {
				if slices.Contains(owners, name) {
					want = append(want, child)
				}
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Fatalf("dependents of %s: %v, want %v", name, got, want)
			}
		}
	})
}
