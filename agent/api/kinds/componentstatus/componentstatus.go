// Package componentstatus serves v1 ComponentStatus, which Kubernetes has deprecated: the health of the programs that
// make up a control plane. Here these are parts of one program on each node, which `/readyz?verbose` and the nodes tell
// of, so the list is empty. It holds no state. Test with `go test ./agent/api/kinds/componentstatus`.
package componentstatus

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/agent/api/kinds"
)

const plural = "componentstatuses"

// Resource returns the kind.
func Resource() kinds.Resource {
	return &kinds.Kind[*corev1.ComponentStatus]{
		GroupVersion: corev1.SchemeGroupVersion,
		Kind:         "ComponentStatus", Resource: plural, Singular: "componentstatus", ShortNames: []string{"cs"},
		New:     func() *corev1.ComponentStatus { return &corev1.ComponentStatus{} },
		Virtual: func(kinds.Env) (rest.Storage, error) { return &storage{}, nil },
	}
}

// storage answers reads. It has no state.
type storage struct{}

var (
	_ rest.Getter               = (*storage)(nil)
	_ rest.Lister               = (*storage)(nil)
	_ rest.Scoper               = (*storage)(nil)
	_ rest.ShortNamesProvider   = (*storage)(nil)
	_ rest.SingularNameProvider = (*storage)(nil)
)

// New implements rest.Storage.
func (*storage) New() runtime.Object { return &corev1.ComponentStatus{} }

// NewList implements rest.Lister.
func (*storage) NewList() runtime.Object { return &corev1.ComponentStatusList{} }

// Destroy implements rest.Storage.
func (*storage) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (*storage) NamespaceScoped() bool { return false }

// GetSingularName implements rest.SingularNameProvider.
func (*storage) GetSingularName() string { return "componentstatus" }

// ShortNames implements rest.ShortNamesProvider.
func (*storage) ShortNames() []string { return []string{"cs"} }

// List implements rest.Lister.
func (*storage) List(context.Context, *internalversion.ListOptions) (runtime.Object, error) {
	return &corev1.ComponentStatusList{Items: []corev1.ComponentStatus{}}, nil
}

// Get implements rest.Getter.
func (*storage) Get(_ context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	return nil, apierrors.NewNotFound(corev1.Resource(plural), name)
}

// ConvertToTable implements rest.TableConvertor.
func (*storage) ConvertToTable(ctx context.Context, object, options runtime.Object) (*metav1.Table, error) {
	table, err := rest.NewDefaultTableConvertor(corev1.Resource(plural)).ConvertToTable(ctx, object, options)
	if err != nil {
		return nil, err
	}
	if len(table.ColumnDefinitions) > 0 {
		table.ColumnDefinitions = []metav1.TableColumnDefinition{
			{Name: "Name", Type: "string", Format: "name"}, {Name: "Status", Type: "string"},
			{Name: "Message", Type: "string"}, {Name: "Error", Type: "string"},
		}
	}
	return table, nil
}
