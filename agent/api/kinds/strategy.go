package kinds

import (
	"context"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/operation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/names"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/podvine/podvine/agent/api/coverage"
)

// strategy serves the main resource of any kind. It is immutable.
type strategy[T Object] struct {
	runtime.ObjectTyper
	names.NameGenerator
	kind *Kind[T]
	// spec and status are field indices of T's struct; nil where it has no such field.
	spec, status []int
	// gaps finds what the object asks for and does not get yet.
	gaps *coverage.Checker
}

func newStrategy[T Object](kind *Kind[T], typer runtime.ObjectTyper) strategy[T] {
	s := strategy[T]{ObjectTyper: typer, NameGenerator: names.SimpleNameGenerator, kind: kind, gaps: coverage.For(kind.New(), "")}
	if f, ok := reflect.TypeFor[T]().Elem().FieldByName("Spec"); ok {
		s.spec = f.Index
	}
	if f, ok := reflect.TypeFor[T]().Elem().FieldByName("Status"); ok {
		s.status = f.Index
	}
	return s
}

// restore sets the field of obj to that of old; the two then share memory, as registry strategies do.
func restore(obj, old any, index []int) {
	if index == nil {
		return
	}
	reflect.ValueOf(obj).Elem().FieldByIndex(index).Set(reflect.ValueOf(old).Elem().FieldByIndex(index))
}

// equal compares a field of two objects as Kubernetes does: nil and empty are the same, quantities by value.
func equal(a, b any, index []int) bool {
	return equality.Semantic.DeepEqual(
		reflect.ValueOf(a).Elem().FieldByIndex(index).Interface(),
		reflect.ValueOf(b).Elem().FieldByIndex(index).Interface())
}

func (s strategy[T]) NamespaceScoped() bool { return s.kind.Namespaced }

func (s strategy[T]) AllowCreateOnUpdate(context.Context) bool { return s.kind.AllowCreateOnUpdate }

func (s strategy[T]) AllowUnconditionalUpdate(context.Context) bool {
	return !s.kind.ForbidUnconditionalUpdate
}

func (s strategy[T]) PrepareForCreate(ctx context.Context, obj runtime.Object) {
	typed := obj.(T)
	if s.kind.HasGeneration {
		typed.SetGeneration(1)
	}
	if s.kind.PrepareForCreate != nil {
		s.kind.PrepareForCreate(ctx, typed)
	}
}

func (s strategy[T]) PrepareForUpdate(ctx context.Context, obj, old runtime.Object) {
	typed, was := obj.(T), old.(T)
	if s.kind.Status != nil {
		restore(typed, was, s.status)
	}
	if s.kind.PrepareForUpdate != nil {
		s.kind.PrepareForUpdate(ctx, typed, was)
	}
	if s.kind.HasGeneration && s.spec != nil && !equal(typed, was, s.spec) {
		typed.SetGeneration(was.GetGeneration() + 1)
	}
}

func (s strategy[T]) Validate(ctx context.Context, obj runtime.Object) field.ErrorList {
	if s.kind.Validate == nil {
		return nil
	}
	return s.kind.Validate(ctx, obj.(T))
}

func (s strategy[T]) ValidateUpdate(ctx context.Context, obj, old runtime.Object) field.ErrorList {
	if s.kind.ValidateUpdate == nil {
		return nil
	}
	return s.kind.ValidateUpdate(ctx, obj.(T), old.(T))
}

// DeclarativeValidationConfig implements rest.DeclarativeValidationStrategy.
func (s strategy[T]) DeclarativeValidationConfig(context.Context, runtime.Object, runtime.Object) rest.DeclarativeValidationConfig {
	return rest.DeclarativeValidationConfig{}
}

// ValidateDeclaratively implements rest.DeclarativeValidationStrategy, which the registry calls last with all errors,
// its own included. There are no declared rules here; what happens is that repeated errors are dropped, because the
// registry, and most kinds, check metadata twice.
func (s strategy[T]) ValidateDeclaratively(_ context.Context, _, _ runtime.Object, errs field.ErrorList,
	_ operation.Type, _ rest.DeclarativeValidationConfig) field.ErrorList {
	var distinct field.ErrorList
	for _, e := range errs {
		if !slices.ContainsFunc(distinct, func(d *field.Error) bool { return sameError(d, e) }) {
			distinct = append(distinct, e)
		}
	}
	return distinct
}

func sameError(a, b *field.Error) bool {
	return a.Type == b.Type && a.Field == b.Field && a.Detail == b.Detail && reflect.DeepEqual(a.BadValue, b.BadValue)
}

func (s strategy[T]) WarningsOnCreate(ctx context.Context, obj runtime.Object) []string {
	warnings := s.gaps.Warnings(obj)
	if s.kind.WarningsOnCreate == nil {
		return warnings
	}
	return append(s.kind.WarningsOnCreate(ctx, obj.(T)), warnings...)
}

func (s strategy[T]) WarningsOnUpdate(ctx context.Context, obj, old runtime.Object) []string {
	warnings := s.gaps.Warnings(obj)
	if s.kind.WarningsOnUpdate == nil {
		return warnings
	}
	return append(s.kind.WarningsOnUpdate(ctx, obj.(T), old.(T)), warnings...)
}

func (s strategy[T]) Canonicalize(obj runtime.Object) {
	if s.kind.Canonicalize != nil {
		s.kind.Canonicalize(obj.(T))
	}
}

// DefaultGarbageCollectionPolicy implements rest.GarbageCollectionDeleteStrategy; "" is background deletion.
func (s strategy[T]) DefaultGarbageCollectionPolicy(context.Context) rest.GarbageCollectionPolicy {
	return s.kind.DefaultGarbageCollection
}

// GetResetFields implements rest.ResetFieldsStrategy.
func (s strategy[T]) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	reset := s.kind.ResetFields
	if reset == nil && s.kind.Status != nil {
		reset = []string{"status"}
	}
	return s.fieldSets(reset)
}

func (s strategy[T]) fieldSets(paths []string) map[fieldpath.APIVersion]*fieldpath.Set {
	if len(paths) == 0 {
		return nil
	}
	set := fieldpath.NewSet()
	for _, path := range paths {
		var elements fieldpath.Path
		for name := range strings.SplitSeq(path, ".") {
			elements = append(elements, fieldpath.PathElement{FieldName: &name})
		}
		set.Insert(elements)
	}
	return map[fieldpath.APIVersion]*fieldpath.Set{fieldpath.APIVersion(s.kind.GroupVersion.String()): set}
}

// gracefulStrategy adds graceful deletion; a type of its own because the registry asks by type assertion.
type gracefulStrategy[T Object] struct{ strategy[T] }

// CheckGracefulDelete implements rest.RESTGracefulDeleteStrategy.
func (s gracefulStrategy[T]) CheckGracefulDelete(ctx context.Context, obj runtime.Object, options *metav1.DeleteOptions) bool {
	return s.kind.GracefulDelete(ctx, obj.(T), options)
}

// statusStrategy serves the /status sub-resource.
type statusStrategy[T Object] struct{ strategy[T] }

func (s statusStrategy[T]) AllowCreateOnUpdate(context.Context) bool { return false }

func (s statusStrategy[T]) PrepareForUpdate(ctx context.Context, obj, old runtime.Object) {
	if hook := s.kind.Status.PrepareForUpdate; hook != nil {
		hook(ctx, obj.(T), old.(T))
		return
	}
	restore(obj, old, s.spec)
}

func (s statusStrategy[T]) ValidateUpdate(ctx context.Context, obj, old runtime.Object) field.ErrorList {
	if s.kind.Status.ValidateUpdate == nil {
		return nil
	}
	return s.kind.Status.ValidateUpdate(ctx, obj.(T), old.(T))
}

func (s statusStrategy[T]) WarningsOnUpdate(ctx context.Context, obj, old runtime.Object) []string {
	if s.kind.Status.WarningsOnUpdate == nil {
		return nil
	}
	return s.kind.Status.WarningsOnUpdate(ctx, obj.(T), old.(T))
}

// GetResetFields implements rest.ResetFieldsStrategy.
func (s statusStrategy[T]) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	reset := s.kind.Status.ResetFields
	if reset == nil {
		reset = []string{"spec"}
	}
	return s.fieldSets(reset)
}
