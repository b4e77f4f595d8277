package kindtest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"

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

// An answered kind's rows see what the answer says, and refusals by what a client sees of them.
func TestAnswers(t *testing.T) {
	answer := func(_ context.Context, question runtime.Object) (runtime.Object, error) {
		switch c := question.(*corev1.ConfigMap); {
		case c.Data["k"] == "empty":
			return nil, apierrors.NewBadRequest("k is needed")
		case c.Data["k"] == "bad":
			return nil, apierrors.NewInvalid(schema.GroupKind{Kind: "ConfigMap"}, "c", field.ErrorList{field.Invalid(field.NewPath("data[k]"), "bad", "no")})
		case c.Data["k"] == "broken":
			return nil, errors.New("broken")
		default:
			c.Data["answer"] = "yes"
			return c, nil
		}
	}
	r, err := newRunner(Table{Resource: configmap.Resource(), Base: `{metadata: {name: c, namespace: ns}, data: {k: v}}`, Answer: answer})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []Row{
		{Field: "data", Class: Valid, Want: `{data: {answer: "yes"}}`},
		{Field: "data", Class: Invalid, Patch: `{data: {k: empty}}`, Error: "BadRequest"},
		{Field: "data", Class: Invalid, Patch: `{data: {k: bad}}`, Error: "Invalid data[k]"},
	} {
		if err := r.run(row); err != nil {
			t.Errorf("%s: %v", row.Patch, err)
		}
	}
	for want, row := range map[string]Row{
		"broken":        {Field: "data", Class: Invalid, Patch: `{data: {k: broken}}`, Error: "BadRequest"},
		"never updated": {Field: "data", Class: Mutable},
		"errors are":    {Field: "data", Class: Invalid, Patch: `{data: {k: v}}`, Error: "BadRequest"},
	} {
		if err := r.run(row); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
