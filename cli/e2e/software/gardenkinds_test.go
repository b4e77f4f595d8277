package software

import (
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	generated "k8s.io/kube-aggregator/pkg/generated/openapi"
	openapi "k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/validation/spec"
)

var gardenVersion = schema.GroupVersion{Group: "garden.example.com", Version: "v1"}

// gardenTypes registers the one version of Plant, which is the internal one too.
func gardenTypes(scheme *runtime.Scheme) error {
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	metav1.AddToGroupVersion(scheme, gardenVersion)
	for _, gv := range []schema.GroupVersion{gardenVersion, {Group: gardenVersion.Group, Version: runtime.APIVersionInternal}} {
		scheme.AddKnownTypes(gv, &Plant{}, &PlantList{})
	}
	return scheme.AddConversionFunc(&Plant{}, &Plant{}, func(from, to any, _ conversion.Scope) error {
		*to.(*Plant) = *from.(*Plant).DeepCopyObject().(*Plant)
		return nil
	})
}

// Plant is the kind that the aggregated server has.
type Plant struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              PlantSpec `json:"spec,omitempty"`
}

type PlantSpec struct {
	Species string `json:"species,omitempty"`
	Water   int32  `json:"water,omitempty"`
}

func (p *Plant) DeepCopyObject() runtime.Object {
	out := *p
	out.ObjectMeta = *p.ObjectMeta.DeepCopy()
	return &out
}

type PlantList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Plant `json:"items"`
}

func (l *PlantList) DeepCopyObject() runtime.Object {
	out := &PlantList{TypeMeta: l.TypeMeta, ListMeta: *l.ListMeta.DeepCopy()}
	for i := range l.Items {
		out.Items = append(out.Items, *l.Items[i].DeepCopyObject().(*Plant))
	}
	return out
}

// OpenAPIModelName implements util.OpenAPIModelNamer.
func (Plant) OpenAPIModelName() string { return "com.example.garden.v1.Plant" }

// OpenAPIModelName implements util.OpenAPIModelNamer.
func (PlantList) OpenAPIModelName() string { return "com.example.garden.v1.PlantList" }

// gardenDefinitions describes the kinds, with what the library has of the types that all kinds share.
func gardenDefinitions(ref openapi.ReferenceCallback) map[string]openapi.OpenAPIDefinition {
	text := func(kind, format, description string) spec.Schema {
		return spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{kind}, Format: format, Description: description}}
	}
	to := func(name string) spec.Schema {
		return spec.Schema{SchemaProps: spec.SchemaProps{Default: map[string]any{}, Ref: ref(name)}}
	}
	object := func(description string, properties map[string]spec.Schema, dependencies ...string) openapi.OpenAPIDefinition {
		return openapi.OpenAPIDefinition{Dependencies: dependencies, Schema: spec.Schema{SchemaProps: spec.SchemaProps{
			Type: []string{"object"}, Description: description, Properties: properties}}}
	}
	kind := func(description, meta string, more map[string]spec.Schema, dependencies ...string) openapi.OpenAPIDefinition {
		properties := map[string]spec.Schema{"apiVersion": text("string", "", "The version of the schema."), "kind": text("string", "", "The kind."), "metadata": to(meta)}
		maps.Copy(properties, more)
		return object(description, properties, append(dependencies, meta)...)
	}
	plant, plants, specName := Plant{}.OpenAPIModelName(), PlantList{}.OpenAPIModelName(), "com.example.garden.v1.PlantSpec"
	items := spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"array"}, Items: &spec.SchemaOrArray{Schema: new(to(plant))}}}
	definitions := generated.GetOpenAPIDefinitions(ref)
	definitions[specName] = object("PlantSpec is how a plant should be.", map[string]spec.Schema{
		"species": text("string", "", "What it is."), "water": text("integer", "int32", "How much water it gets, in litres.")})
	definitions[plant] = kind("Plant is something that grows.", metav1.ObjectMeta{}.OpenAPIModelName(), map[string]spec.Schema{"spec": to(specName)}, specName)
	definitions[plants] = kind("PlantList is a list of plants.", metav1.ListMeta{}.OpenAPIModelName(), map[string]spec.Schema{"items": items}, plant)
	return definitions
}
