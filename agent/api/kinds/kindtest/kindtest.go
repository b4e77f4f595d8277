// Package kindtest tests a kind by a table with a row for every field of its type: a valid value, an invalid one, a
// default, or what an update may not change. It needs no server: rows run through the strategies that the generic
// registry uses, on objects that are decoded, strictly and with defaults, as from a request.
//
//	func TestFields(t *testing.T) {
//		kindtest.Run(t, kindtest.Table{
//			Resource: lease.Resource(),
//			Base:     `{"metadata":{"name":"l","namespace":"ns"},"spec":{}}`,
//			Rows: []kindtest.Row{
//				{Field: "spec.holderIdentity", Class: kindtest.Valid, Patch: `{"spec":{"holderIdentity":"h"}}`},
//				{Field: "spec.leaseDurationSeconds", Class: kindtest.Invalid, Patch: `{"spec":{"leaseDurationSeconds":0}}`,
//					Error: "Invalid spec.leaseDurationSeconds"},
//			},
//		})
//	}
//
// A field of the type without a row fails the test; see [Table.Elsewhere] for types that are tested once for many kinds.
package kindtest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/podvine/podvine/agent/api/kinds"
)

// Class says what a row shows of its field.
type Class string

// The classes of rows. Rows of the first four create an object, the others update the base.
const (
	// Valid objects are accepted, and keep what the patch says.
	Valid Class = "valid"
	// Invalid objects are refused with the row's errors.
	Invalid Class = "invalid"
	// Defaulted objects get what the row wants.
	Defaulted Class = "defaulted"
	// Dropped fields are accepted and not stored.
	Dropped Class = "dropped"
	// Mutable fields may be changed by an update.
	Mutable Class = "mutable"
	// Immutable fields refuse an update with the row's errors.
	Immutable Class = "immutable"
	// Kept fields ignore what an update says.
	Kept Class = "kept"
)

// Row shows one thing about one field.
type Row struct {
	// Field is the field by its JSON names: "spec.ports[].name", "data". A map is a field as a whole; the fields of a
	// map's values stand behind "{}".
	Field string
	Class Class
	// Base replaces the table's base object, as YAML or JSON.
	Base string
	// Patch is a JSON merge patch on the base.
	Patch string
	// Mutate changes the decoded object further, before defaults and checks.
	Mutate func(runtime.Object)
	// Error lists all errors, each "TYPE PATH" ("Invalid spec.ports[0].port"), separated by "; ". Types are the names of
	// the constructors in field: Required, Invalid, Forbidden, Duplicate, NotSupported, TooLong, TooMany, TypeInvalid, NotFound.
	// "BadRequest" alone is the refusal of an answered kind that names no field.
	Error string
	// Want is a JSON document of which the result must have every value.
	Want string
	// Status makes the update one of the /status sub-resource.
	Status bool
}

// Table is the test of a kind.
type Table struct {
	Resource kinds.Resource
	// Scheme is what objects are decoded with; nil is that of Resource alone.
	Scheme *runtime.Scheme
	// Answer makes the test one of a kind that is answered and never stored: it returns what a POST of the object does. No
	// row can update then.
	Answer func(ctx context.Context, question runtime.Object) (runtime.Object, error)
	// Base is a valid object, as YAML or JSON. It needs no apiVersion and kind.
	Base string
	Rows []Row
	// Elsewhere says of subtrees where they are tested.
	Elsewhere map[string]string
	// Metadata asks for rows for the fields of metadata too. Without it they count as tested: the same code of the
	// framework validates them for all kinds, and ConfigMap's table shows them.
	Metadata bool
}

// Run runs every row, and fails for fields without one.
func Run(t *testing.T, table Table) {
	t.Helper()
	runner, err := newRunner(table)
	if err != nil {
		t.Fatalf("prepare table: %v", err)
	}
	for i, row := range table.Rows {
		t.Run(fmt.Sprintf("%s/%s/%d", row.Field, row.Class, i), func(t *testing.T) {
			if err := runner.run(row); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("every field has a row", func(t *testing.T) {
		missing, unknown := coverage(table)
		for _, field := range missing {
			t.Errorf("no row for %s", field)
		}
		for _, field := range unknown {
			t.Errorf("row for %s, which is no field of the type", field)
		}
	})
}

// coverage compares the rows with the fields of the type.
func coverage(table Table) (missing, unknown []string) {
	all := Fields(table.Resource.NewObject())
	named := map[string]bool{}
	for _, row := range table.Rows {
		named[row.Field] = true
	}
	elsewhere := []string{"apiVersion", "kind"}
	for prefix := range table.Elsewhere {
		elsewhere = append(elsewhere, prefix)
	}
	if !table.Metadata {
		elsewhere = append(elsewhere, "metadata")
	}
	for _, f := range all {
		tested := named[f.Path] || slices.ContainsFunc(elsewhere, func(prefix string) bool { return under(f.Path, prefix) })
		// What only holds other fields is tested by them.
		if !f.Leaf {
			tested = tested || slices.ContainsFunc(table.Rows, func(r Row) bool { return under(r.Field, f.Path) }) ||
				slices.ContainsFunc(elsewhere, func(prefix string) bool { return under(prefix, f.Path) })
		}
		if !tested {
			missing = append(missing, f.Path)
		}
	}
	for field := range named {
		if !slices.ContainsFunc(all, func(f Field) bool { return f.Path == field }) {
			unknown = append(unknown, field)
		}
	}
	slices.Sort(unknown)
	return missing, unknown
}

// under says that a path is prefix or below it.
func under(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[' || rest[0] == '{')
}
