package kindtest

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/podvine/podvine/agent/api/kinds/configmap"
)

func TestFieldsOfNestedTypes(t *testing.T) {
	all := Fields(&corev1.Service{})
	for path, leaf := range map[string]bool{
		"apiVersion": true, "metadata": false, "metadata.labels": true, "metadata.ownerReferences[].uid": true,
		"metadata.managedFields[].fieldsV1": true, "spec": false, "spec.ports": false, "spec.ports[].targetPort": true,
		"spec.selector": true, "status.loadBalancer.ingress[].ports[].port": true, "status.conditions[].lastTransitionTime": true,
	} {
		if !slices.Contains(all, Field{Path: path, Leaf: leaf}) {
			t.Errorf("no field %s with leaf %v", path, leaf)
		}
	}
}

func TestCoverageNamesWhatIsMissing(t *testing.T) {
	missing, unknown := coverage(Table{Resource: configmap.Resource(), Rows: []Row{{Field: "data"}, {Field: "dataa"}}})
	if want := []string{"immutable", "binaryData"}; !slices.Equal(missing, want) {
		t.Errorf("missing %q, want %q", missing, want)
	}
	if !slices.Equal(unknown, []string{"dataa"}) {
		t.Errorf("unknown %q", unknown)
	}
}

// Rows that say something untrue must fail; otherwise tables prove nothing.
func TestRowsThatLie(t *testing.T) {
	r, err := newRunner(Table{Resource: configmap.Resource(), Base: `{metadata: {name: c, namespace: ns}, data: {k: v}}`})
	if err != nil {
		t.Fatal(err)
	}
	bad := `{data: {"bad key!": v}}`
	for name, c := range map[string]struct {
		row  Row
		want string
	}{
		"valid that is not":       {Row{Field: "data", Class: Valid, Patch: bad}, "errors are"},
		"invalid that is valid":   {Row{Field: "data", Class: Invalid, Patch: `{data: {a: b}}`, Error: "Invalid data[a]"}, "errors are"},
		"another error":           {Row{Field: "data", Class: Invalid, Patch: bad, Error: "Required data"}, "errors are"},
		"no error named":          {Row{Field: "data", Class: Invalid, Patch: bad}, "names no error"},
		"default that is not set": {Row{Field: "immutable", Class: Defaulted, Want: `{immutable: true}`}, "immutable is"},
		"dropped that is stored":  {Row{Field: "data", Class: Dropped, Patch: `{data: {a: b}}`}, "is stored"},
		"kept that changes":       {Row{Field: "data", Class: Kept, Patch: `{data: {k: w}}`, Want: `{data: {k: v}}`}, "data.k is"},
		"immutable that changes":  {Row{Field: "data", Class: Immutable, Patch: `{data: {k: w}}`, Error: "Forbidden data"}, "errors are"},
		"unknown field":           {Row{Field: "data", Class: Valid, Patch: `{bogus: 1}`}, "unknown field"},
		"unknown class":           {Row{Field: "data", Class: "odd"}, "unknown class"},
		"no status":               {Row{Field: "data", Class: Mutable, Status: true}, "no status"},
	} {
		err := r.run(c.row)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
}
