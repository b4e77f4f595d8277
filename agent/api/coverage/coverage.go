// Package coverage knows which fields the API accepts although nothing acts on them yet. Whoever sets one is warned, and
// docs/coverage.md lists them, from the one table in gaps.go.
//
// Role: [For] picks the gaps of a type once, [Checker.Warnings] looks for them in an object; [Page] writes the document.
// Nothing here has state; a Checker may be used by any number of goroutines.
package coverage

//go:generate go run ./generate -out ../../../docs/coverage.md

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
)

// Phrase is in every warning, so that tools can tell them from Kubernetes' own.
const Phrase = "not supported by Podvine yet"

// maxNesting is how many lists within each other a path leads through without an allocation.
const maxNesting = 4

// Gap is a field that is accepted and not, or not wholly, acted upon yet. When that changes, its line is deleted.
type Gap struct {
	// Kind and Field are by their names in JSON: "Pod", "spec.volumes[].csi". "[]" stands for each item of a list,
	// "{KEY}" for one of a map.
	Kind, Field string
	// Subresource is the one through which the field is set; "" is the object itself.
	Subresource string
	// Values are those that are not acted upon; none means every value that is not empty.
	Values []string
	// Quiet gaps have no warning, because the field alone does not tell whether it matters.
	Quiet bool
	// Effect says what happens instead.
	Effect string
}

// Checker looks for the gaps of one type.
type Checker struct{ fields []compiled }

type compiled struct {
	gap   Gap
	steps []step
}

// step leads from a structure to one of its fields, and on to each item of a list or to one of a map.
type step struct {
	name  string
	index []int
	items bool
	key   string
}

// For returns the checker of an object's type and, where not "", of one of its sub-resources. A gap whose field the type
// lacks is a fault of the table, which a test finds; it is left out here.
func For(obj runtime.Object, subresource string) *Checker {
	t := reflect.TypeOf(obj).Elem()
	checker := &Checker{}
	for _, gap := range Gaps() {
		if gap.Quiet || gap.Kind != t.Name() || gap.Subresource != subresource {
			continue
		}
		if steps, err := compile(t, gap.Field); err == nil {
			checker.fields = append(checker.fields, compiled{gap, steps})
		}
	}
	return checker
}

// Warnings names the fields of the object that are set and not acted upon.
func (c *Checker) Warnings(obj runtime.Object) []string {
	var warnings []string
	var lists [maxNesting]int
	root := reflect.ValueOf(obj).Elem()
	for _, f := range c.fields {
		visit(root, f.steps, lists[:0], func(at []int, value reflect.Value) {
			if f.gap.concerns(value) {
				warnings = append(warnings, place(f.steps, at)+": "+Phrase+": "+f.gap.Effect)
			}
		})
	}
	return warnings
}

// concerns says that a field's value is one that is not acted upon.
func (g Gap) concerns(value reflect.Value) bool {
	if !value.IsValid() || value.IsZero() || (value.Kind() == reflect.Slice || value.Kind() == reflect.Map) && value.Len() == 0 {
		return false
	}
	if len(g.Values) == 0 {
		return true
	}
	for value.Kind() == reflect.Pointer {
		value = value.Elem()
	}
	return slices.Contains(g.Values, fmt.Sprint(value.Interface()))
}

// compile resolves a path in a type.
func compile(t reflect.Type, path string) ([]step, error) {
	var steps []step
	for part := range strings.SplitSeq(protect(path), ".") {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		s, key, found := step{name: restore(part)}, "", false
		if s.name, key, found = strings.Cut(s.name, "{"); found {
			s.key = strings.TrimSuffix(key, "}")
		}
		if s.name, found = strings.CutSuffix(s.name, "[]"); found {
			s.items = true
		}
		field, ok := fieldOf(t, s.name)
		if !ok {
			return nil, fmt.Errorf("find %s in %s: it has no %s", path, t.Name(), s.name)
		}
		s.index, t = field.Index, field.Type
		if s.items && t.Kind() != reflect.Slice || s.key != "" && t.Kind() != reflect.Map {
			return nil, fmt.Errorf("find %s: %s is a %s", path, s.name, t.Kind())
		}
		if s.items || s.key != "" {
			t = t.Elem()
		}
		steps = append(steps, s)
	}
	return steps, nil
}

// protect hides the dots of map keys from splitting; restore shows them again.
func protect(path string) string {
	before, rest, ok := strings.Cut(path, "{")
	if !ok {
		return path
	}
	key, after, _ := strings.Cut(rest, "}")
	return before + "{" + strings.ReplaceAll(key, ".", "\x00") + "}" + after
}

func restore(part string) string { return strings.ReplaceAll(part, "\x00", ".") }

// fieldOf finds a field by its name in JSON, also in embedded structures.
func fieldOf(t reflect.Type, name string) (reflect.StructField, bool) {
	if t.Kind() != reflect.Struct {
		return reflect.StructField{}, false
	}
	for _, field := range reflect.VisibleFields(t) {
		if own, _, _ := strings.Cut(field.Tag.Get("json"), ","); own == name {
			return field, true
		}
	}
	return reflect.StructField{}, false
}

// visit calls found with each value that the steps lead to. It runs in every write, so it makes no text: at is the place
// in each list that was passed, which [place] writes out.
func visit(value reflect.Value, steps []step, at []int, found func(at []int, value reflect.Value)) {
	for i, s := range steps {
		for value.Kind() == reflect.Pointer {
			if value.IsNil() {
				return
			}
			value = value.Elem()
		}
		value = value.FieldByIndex(s.index)
		if s.key != "" {
			if value = value.MapIndex(reflect.ValueOf(s.key)); !value.IsValid() {
				return
			}
		}
		if s.items {
			for item := range value.Len() {
				visit(value.Index(item), steps[i+1:], append(at, item), found)
			}
			return
		}
	}
	found(at, value)
}

// place writes the path of a value: "spec.volumes[1].csi".
func place(steps []step, at []int) string {
	var path strings.Builder
	for _, s := range steps {
		if path.Len() > 0 {
			path.WriteByte('.')
		}
		path.WriteString(s.name)
		if s.key != "" {
			path.WriteString("[" + s.key + "]")
		}
		if s.items {
			path.WriteString("[" + strconv.Itoa(at[0]) + "]")
			at = at[1:]
		}
	}
	return path.String()
}
