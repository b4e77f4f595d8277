package service_test

import (
	"context"
	"math/rand"
	"reflect"
	"testing"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"sigs.k8s.io/randfill"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/endpoints"
	"github.com/podvine/podvine/agent/api/kinds/endpointslice"
	"github.com/podvine/podvine/agent/api/kinds/ipaddress"
	"github.com/podvine/podvine/agent/api/kinds/node"
	"github.com/podvine/podvine/agent/api/kinds/service"
	"github.com/podvine/podvine/agent/api/kinds/servicecidr"
)

const randomObjects = 300

// Whatever an object of the network kinds looks like, defaults settle at once, and checking it, its change and its
// table row ends with an answer.
func TestRandomObjects(t *testing.T) {
	resources := []kinds.Resource{service.Resource(), node.Resource(), endpoints.Resource(), endpointslice.Resource(), ipaddress.Resource(), servicecidr.Resource()}
	scheme, err := kinds.NewScheme(resources)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range resources {
		t.Run(r.GVK().Kind, func(t *testing.T) {
			fill := randfill.NewWithSeed(1).NilChance(0.3).NumElements(0, 3).MaxDepth(12).Funcs(
				func(m *metav1.FieldsV1, _ randfill.Continue) { *m = metav1.FieldsV1{} })
			random := func() runtime.Object {
				obj := r.NewObject()
				fill.Fill(obj)
				return obj
			}
			strategies := r.Strategies(scheme)
			ctx := apirequest.WithNamespace(context.Background(), "ns")
			old := random()
			for range randomObjects {
				obj := random()
				scheme.Default(obj)
				once := obj.DeepCopyObject()
				scheme.Default(obj)
				if !equality.Semantic.DeepEqual(once, obj) {
					t.Fatalf("defaults do not settle:\n%+v\n%+v", once, obj)
				}
				strategies.Create.PrepareForCreate(ctx, obj)
				rest.ValidateCreate(ctx, obj, strategies.Create)
				strategies.Create.WarningsOnCreate(ctx, obj)
				strategies.Update.PrepareForUpdate(ctx, obj, old)
				rest.ValidateUpdate(ctx, obj, old, strategies.Update)
				strategies.Update.WarningsOnUpdate(ctx, obj, old)
				if s := strategies.Status; s != nil && !reflect.ValueOf(s).IsZero() {
					s.PrepareForUpdate(ctx, obj, old)
					rest.ValidateUpdate(ctx, obj, old, s)
				}
				if rand.Intn(2) == 0 {
					old = obj
				}
			}
		})
	}
}
