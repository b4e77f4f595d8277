package kindtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"sigs.k8s.io/yaml"

	"github.com/podvine/podvine/agent/api/kinds"
)

// runner runs the rows of one table.
type runner struct {
	resource   kinds.Resource
	scheme     *runtime.Scheme
	codecs     serializer.CodecFactory
	strategies kinds.Strategies
	answer     func(context.Context, runtime.Object) (runtime.Object, error)
	base       []byte
}

func newRunner(table Table) (*runner, error) {
	r := &runner{resource: table.Resource, scheme: table.Scheme, answer: table.Answer}
	var err error
	if r.scheme == nil {
		if r.scheme, err = kinds.NewScheme([]kinds.Resource{table.Resource}); err != nil {
			return nil, err
		}
	}
	r.codecs = serializer.NewCodecFactory(r.scheme, serializer.EnableStrict)
	r.strategies = table.Resource.Strategies(r.scheme)
	if r.base, err = yaml.YAMLToJSON([]byte(table.Base)); err != nil {
		return nil, fmt.Errorf("read base: %w", err)
	}
	if _, errs, err := r.create(r.base, nil); err != nil {
		return nil, fmt.Errorf("read base: %w", err)
	} else if len(errs) > 0 {
		return nil, fmt.Errorf("base is invalid: %w", errs.ToAggregate())
	}
	return r, nil
}

func (r *runner) run(row Row) error {
	base := r.base
	if row.Base != "" {
		var err error
		if base, err = yaml.YAMLToJSON([]byte(row.Base)); err != nil {
			return fmt.Errorf("read base: %w", err)
		}
	}
	patched := base
	if row.Patch != "" {
		patch, err := yaml.YAMLToJSON([]byte(row.Patch))
		if err != nil {
			return fmt.Errorf("read patch: %w", err)
		}
		if patched, err = jsonpatch.MergePatch(base, patch); err != nil {
			return fmt.Errorf("apply patch: %w", err)
		}
	}
	switch row.Class {
	case Valid, Invalid, Defaulted, Dropped:
		obj, errs, err := r.create(patched, row.Mutate)
		if err != nil {
			return err
		}
		return r.judge(row, obj, errs)
	case Mutable, Immutable, Kept:
		if r.answer != nil {
			return errors.New("the kind is answered and never updated")
		}
		obj, errs, err := r.update(base, patched, row)
		if err != nil {
			return err
		}
		return r.judge(row, obj, errs)
	}
	return fmt.Errorf("unknown class %q", row.Class)
}

// judge compares what happened with what the row says.
func (r *runner) judge(row Row, obj runtime.Object, errs field.ErrorList) error {
	if row.Class == Invalid || row.Class == Immutable {
		if row.Error == "" {
			return errors.New("the row names no error")
		}
	} else if row.Error != "" {
		return errors.New("the row names an error, but its class expects none")
	}
	wanted, err := parseErrors(row.Error)
	if err != nil {
		return err
	}
	var got []string
	for _, e := range errs {
		got = append(got, strings.TrimSpace(typeName(e.Type)+" "+e.Field))
	}
	slices.Sort(got)
	if !slices.Equal(slices.Compact(got), wanted) {
		return fmt.Errorf("errors are %q, want %q\n%w", got, wanted, errs.ToAggregate())
	}
	if row.Class == Invalid || row.Class == Immutable {
		return nil
	}
	return checkResult(row, obj)
}

func checkResult(row Row, obj runtime.Object) error {
	encoded, err := json.Marshal(obj)
	if err != nil {
		return err
	}
	var result any
	if err := json.Unmarshal(encoded, &result); err != nil {
		return err
	}
	expected := row.Want
	switch {
	case row.Class == Dropped:
		if found := valuesAt(result, row.Field); len(found) > 0 {
			return fmt.Errorf("%s is stored: %v", row.Field, found)
		}
	case row.Class == Defaulted && expected == "":
		return errors.New("the row says not what it wants")
	case (row.Class == Valid || row.Class == Mutable) && expected == "":
		expected = row.Patch
	}
	if expected == "" {
		return nil
	}
	var wanted any
	if err := yaml.Unmarshal([]byte(expected), &wanted); err != nil {
		return fmt.Errorf("read what is wanted: %w", err)
	}
	if err := contains(result, wanted, ""); err != nil {
		return fmt.Errorf("%w\n%s", err, encoded)
	}
	return nil
}

// create decodes an object and takes it as the registry takes a new one.
func (r *runner) create(encoded []byte, mutate func(runtime.Object)) (runtime.Object, field.ErrorList, error) {
	obj, err := r.decode(encoded, mutate)
	if err != nil {
		return nil, nil, err
	}
	m, err := meta.Accessor(obj)
	if err != nil {
		return nil, nil, err
	}
	ctx := r.context(m.GetNamespace(), "create")
	if r.answer != nil {
		return r.ask(ctx, obj)
	}
	rest.FillObjectMetaSystemFields(m)
	r.strategies.Create.PrepareForCreate(ctx, obj)
	errs := rest.ValidateCreate(ctx, obj, r.strategies.Create)
	if len(errs) == 0 {
		r.strategies.Create.Canonicalize(obj)
	}
	return obj, errs, nil
}

// ask has a question answered. A refusal is taken apart into the errors that a client sees.
func (r *runner) ask(ctx context.Context, question runtime.Object) (runtime.Object, field.ErrorList, error) {
	answered, err := r.answer(ctx, question)
	var refusal apierrors.APIStatus
	if err == nil || !errors.As(err, &refusal) {
		return answered, nil, err
	}
	switch status := refusal.Status(); status.Reason {
	case metav1.StatusReasonInvalid:
		var errs field.ErrorList
		for _, cause := range status.Details.Causes {
			errs = append(errs, &field.Error{Type: field.ErrorType(cause.Type), Field: cause.Field, Detail: cause.Message})
		}
		return nil, errs, nil
	case metav1.StatusReasonBadRequest:
		return nil, field.ErrorList{{Type: badRequest, Detail: status.Message}}, nil
	}
	return nil, nil, err
}

// update takes the patched object as the registry takes an update of the base.
func (r *runner) update(base, patched []byte, row Row) (runtime.Object, field.ErrorList, error) {
	old, errs, err := r.create(base, nil)
	if err != nil {
		return nil, nil, err
	}
	if len(errs) > 0 {
		return nil, nil, fmt.Errorf("base is invalid: %w", errs.ToAggregate())
	}
	obj, err := r.decode(patched, row.Mutate)
	if err != nil {
		return nil, nil, err
	}
	m, was := obj.(metav1.Object), old.(metav1.Object)
	was.SetResourceVersion("1")
	m.SetResourceVersion("1")
	if m.GetUID() == "" {
		m.SetUID(was.GetUID())
	}
	m.SetCreationTimestamp(was.GetCreationTimestamp())
	m.SetGeneration(was.GetGeneration())
	strategy := r.strategies.Update
	if row.Status {
		if strategy = r.strategies.Status; strategy == nil {
			return nil, nil, errors.New("the kind has no status sub-resource")
		}
	}
	ctx := r.context(m.GetNamespace(), "update")
	kept := old.DeepCopyObject()
	strategy.PrepareForUpdate(ctx, obj, old)
	errs = rest.ValidateUpdate(ctx, obj, old, strategy)
	if len(errs) == 0 {
		strategy.Canonicalize(obj)
	}
	if !reflect.DeepEqual(kept, old) {
		return nil, nil, errors.New("the update changed the old object")
	}
	return obj, errs, nil
}

func (r *runner) decode(encoded []byte, mutate func(runtime.Object)) (runtime.Object, error) {
	gvk := r.resource.GVK()
	var document map[string]any
	if err := json.Unmarshal(encoded, &document); err != nil {
		return nil, err
	}
	document["apiVersion"], document["kind"] = gvk.GroupVersion().String(), gvk.Kind
	encoded, err := json.Marshal(document)
	if err != nil {
		return nil, err
	}
	internal := schema.GroupVersion{Group: gvk.Group, Version: runtime.APIVersionInternal}
	obj, _, err := r.codecs.CodecForVersions(nil, r.codecs.UniversalDeserializer(), nil, internal).Decode(encoded, &gvk, nil)
	if err != nil {
		return nil, fmt.Errorf("decode object: %w", err)
	}
	if mutate != nil {
		mutate(obj)
		r.scheme.Default(obj)
	}
	return obj, nil
}

// context is that of a request by an administrator.
func (r *runner) context(namespace, verb string) context.Context {
	gvr := r.resource.GVR()
	ctx := apirequest.WithNamespace(context.Background(), namespace)
	ctx = apirequest.WithUser(ctx, &user.DefaultInfo{Name: "kindtest", Groups: []string{user.SystemPrivilegedGroup}})
	return apirequest.WithRequestInfo(ctx, &apirequest.RequestInfo{
		IsResourceRequest: true, Verb: verb, Namespace: namespace,
		APIGroup: gvr.Group, APIVersion: gvr.Version, Resource: gvr.Resource})
}
