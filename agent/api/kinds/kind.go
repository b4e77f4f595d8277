// Package kinds describes how a Kubernetes kind is served: what is its own (defaults, validation, columns,
// field selectors, sub-resources) as one struct literal, everything else from the generic registry.
//
// A kind lives in a folder of its own below this one and exports a constructor that returns a [Resource].
// The server collects the constructors in one list and installs each; nothing registers itself.
// docs/checklists/add-a-kind.md tells how to add one.
package kinds

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
)

// Object is what every stored kind is: a runtime object with metadata.
type Object interface {
	runtime.Object
	metav1.Object
}

// Resource is a kind of any type, as the server's list holds it. Only [Kind] implements it, through a pointer.
type Resource interface {
	// GVR is the served group, version and resource.
	GVR() schema.GroupVersionResource
	// GVK is the served group, version and kind.
	GVK() schema.GroupVersionKind
	// NewObject returns an empty object of the stored type.
	NewObject() runtime.Object
	// IsNamespaced says whether objects live in a namespace.
	IsNamespaced() bool
	// Strategies are how the kind is created and updated, for tests without a server; Status is nil without that
	// sub-resource.
	Strategies(typer runtime.ObjectTyper) Strategies
	// AddTypes registers types and conversions beyond those of the kind's group version.
	AddTypes(scheme *runtime.Scheme) error
	// AddDefaults registers the kind's defaulting with the scheme.
	AddDefaults(scheme *runtime.Scheme)
	// AddFieldLabels registers the field selectors that the kind supports.
	AddFieldLabels(scheme *runtime.Scheme) error
	// Install makes the kind's storage and puts it, and its sub-resources, into storage by path
	// ("pods", "pods/status").
	Install(env Env, storage map[string]rest.Storage) error
}

// Strategies are what the generic registry asks about a kind.
type Strategies struct {
	Create rest.RESTCreateStrategy
	Update rest.RESTUpdateStrategy
	Status rest.RESTUpdateStrategy
}

// Kind is everything about a kind that is not the same for all kinds. T is the external type, which is also
// registered as the internal version. Functions may be nil: nil does nothing, and a nil ValidateUpdate accepts
// every update whose metadata is valid. Functions must not keep or change their "old" argument.
type Kind[T Object] struct {
	GroupVersion schema.GroupVersion
	Kind         string // "Pod"
	Resource     string // "pods"
	Singular     string // "pod"
	ShortNames   []string
	Categories   []string
	Namespaced   bool

	New     func() T
	NewList func() runtime.Object

	// Default fills unset fields in place, as Kubernetes' versioned defaulting does. It also runs on objects read from the store.
	Default func(T)
	// Canonicalize runs after validation, before storing.
	Canonicalize func(T)

	// PrepareForCreate clears what a client may not set (status) and sets what the server sets (generation 1 is set
	// by the framework where HasGeneration). The framework leaves status alone here, because some kinds (Node) take it.
	PrepareForCreate func(ctx context.Context, obj T)
	// PrepareForUpdate keeps what an update of the main resource may not change; the framework already keeps
	// status (where Status is not nil) and bumps generation (where HasGeneration) when Spec changes.
	PrepareForUpdate func(ctx context.Context, obj, old T)
	// HasGeneration says that metadata.generation counts changes of spec.
	HasGeneration bool
	// ResetFields are the paths ("status", "metadata.labels") that server-side apply through the main resource may not
	// own; nil means "status" where Status is not nil.
	ResetFields []string

	// Validate reports every error of obj, metadata included, with Kubernetes' types, paths and texts.
	Validate func(ctx context.Context, obj T) field.ErrorList
	// ValidateUpdate reports the errors of the change from old to obj, metadata included; where Kubernetes validates
	// the whole new object too, it calls the same code.
	ValidateUpdate   func(ctx context.Context, obj, old T) field.ErrorList
	WarningsOnCreate func(ctx context.Context, obj T) []string
	WarningsOnUpdate func(ctx context.Context, obj, old T) []string

	// GenerateNameSuffix etc. follow Kubernetes' defaults. AllowCreateOnUpdate permits PUT to create (Lease, Event, Endpoints, RBAC).
	AllowCreateOnUpdate bool
	// ForbidUnconditionalUpdate refuses a PUT without resourceVersion (409/422 as Kubernetes).
	ForbidUnconditionalUpdate bool
	// TTLSeconds gives an object a time to live in seconds; 0 keeps it (Event: one hour).
	TTLSeconds func(T) uint64
	// GracefulDelete returns whether deletion is graceful, and sets the deletion grace (Pod).
	GracefulDelete func(ctx context.Context, obj T, options *metav1.DeleteOptions) bool
	// ReturnDeletedObject answers a DELETE with the deleted object instead of a Status.
	ReturnDeletedObject bool
	// DefaultGarbageCollection is the policy without an explicit propagationPolicy; "" is Kubernetes' background default.
	DefaultGarbageCollection rest.GarbageCollectionPolicy

	// Fields are the selectable fields beyond metadata.name and metadata.namespace; FieldLabels names them all, so
	// that a selector on another is refused.
	FieldLabels []string
	Fields      func(T) fields.Set
	// FieldLabelAliases maps a selectable label of the served version to the stored field it means (events.k8s.io's
	// "regarding.name" is stored as "involvedObject.name").
	FieldLabelAliases map[string]string

	// Columns of `kubectl get`, Name and Age included; nil is the default table (Name, Created At).
	Columns []Column[T]
	// RowConditions mark a row of the table, for example as that of a completed object; nil: none.
	RowConditions func(T) []metav1.TableRowCondition

	// Status is the /status sub-resource; nil: none.
	Status *Status[T]
	// Scale is the /scale sub-resource; nil: none.
	Scale *Scale[T]

	// ExtraTypes registers types and conversions that the kind's group version does not bring by itself: options of
	// connect sub-resources, or a second version of a stored type. It runs before the kind's defaults are registered.
	ExtraTypes func(scheme *runtime.Scheme) error
	// StoredAs is the resource under whose prefix objects are kept; the zero value is the served resource itself.
	StoredAs schema.GroupResource
	// Virtual makes the storage of a kind that is answered but never stored (the reviews). With it everything about
	// storing, updating, columns and sub-resources is ignored.
	Virtual func(env Env) (rest.Storage, error)

	// Extend is called with the finished store, and adds or replaces storage ("pods/binding"); it may also set the
	// store's Begin*/After*/Decorator hooks. statusStore is nil where Status is nil.
	Extend func(env Env, store, statusStore *genericregistry.Store, storage map[string]rest.Storage) error
}

// Status is the /status sub-resource: an update through it keeps spec and, unless the hook does otherwise, all
// metadata but managed fields, annotations, labels, finalizers and owner references as Kubernetes does for the kind.
type Status[T Object] struct {
	// PrepareForUpdate restores everything of old that a status update may not change. nil restores Spec.
	PrepareForUpdate func(ctx context.Context, obj, old T)
	ValidateUpdate   func(ctx context.Context, obj, old T) field.ErrorList
	WarningsOnUpdate func(ctx context.Context, obj, old T) []string
	// ResetFields are the paths that server-side apply through /status may not own; nil means "spec".
	ResetFields []string
}

// Scale is how a kind reads and takes autoscaling/v1 Scale.
type Scale[T Object] struct {
	// Get returns the wanted and the observed replicas and the selector of the pods in string form.
	Get func(T) (spec, status int32, selector string, err error)
	Set func(obj T, replicas int32)
}

// Column is one printed column. Cell returns a string, an int64 or a bool.
type Column[T Object] struct {
	Name        string
	Type        string // "string", "integer", "date"; "" is "string"
	Format      string // "name" for the first column
	Priority    int32  // above 0: only with -o wide
	Description string
	Cell        func(T) any
}
