package kindtest

import (
	"encoding/json"
	"reflect"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
)

// Field is a field of a type.
type Field struct {
	// Path is the field by its JSON names.
	Path string
	// Leaf fields have no fields of their own: scalars, lists and maps of scalars, and types with a form of their own
	// (quantities, times).
	Leaf bool
}

// Fields lists the fields of an object's type, depth first. A type inside of itself is listed once.
func Fields(obj runtime.Object) []Field {
	var w walker
	w.structure(reflect.TypeOf(obj).Elem(), "")
	return w.fields
}

type walker struct {
	fields []Field
	inside []reflect.Type
}

func (w *walker) structure(t reflect.Type, prefix string) {
	for _, outer := range w.inside {
		if outer == t {
			return
		}
	}
	w.inside = append(w.inside, t)
	defer func() { w.inside = w.inside[:len(w.inside)-1] }()
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case !f.IsExported() || name == "-":
		case name == "" && (f.Anonymous || strings.Contains(options, "inline")):
			w.structure(f.Type, prefix)
		default:
			if prefix != "" {
				name = prefix + "." + name
			}
			w.field(f.Type, name)
		}
	}
}

// field adds the field and, where its type has fields, those.
func (w *walker) field(t reflect.Type, path string) {
	suffix := ""
	for {
		switch {
		case opaque(t):
			w.fields = append(w.fields, Field{Path: path, Leaf: true})
			return
		case t.Kind() == reflect.Pointer:
			t = t.Elem()
		case t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8:
			t, suffix = t.Elem(), suffix+"[]"
		case t.Kind() == reflect.Map:
			t, suffix = t.Elem(), suffix+"{}"
		case t.Kind() == reflect.Struct:
			w.fields = append(w.fields, Field{Path: path})
			w.structure(t, path+suffix)
			return
		default:
			w.fields = append(w.fields, Field{Path: path, Leaf: true})
			return
		}
	}
}

// opaque types write themselves as JSON: their Go fields are not those of the API.
func opaque(t reflect.Type) bool {
	marshaler := reflect.TypeFor[json.Marshaler]()
	return t.Implements(marshaler) || reflect.PointerTo(t).Implements(marshaler)
}
