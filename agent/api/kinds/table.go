package kinds

import (
	"context"
	"fmt"
	"net/http"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/apiserver/pkg/registry/rest"
)

// NameColumn is the first column of every table.
func NameColumn[T Object]() Column[T] {
	return Column[T]{Name: "Name", Format: "name", Description: metav1.ObjectMeta{}.SwaggerDoc()["name"],
		Cell: func(obj T) any { return obj.GetName() }}
}

// AgeColumn is the time since the object's creation, in the short form that people know ("3d4h").
func AgeColumn[T Object]() Column[T] {
	return Column[T]{Name: "Age", Description: metav1.ObjectMeta{}.SwaggerDoc()["creationTimestamp"],
		Cell: func(obj T) any { return Age(obj.GetCreationTimestamp()) }}
}

// Age returns the time since then in the short form that people know, "<unknown>" for no time.
func Age(since metav1.Time) string {
	if since.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(time.Since(since.Time))
}

func (k *Kind[T]) tableConvertor() rest.TableConvertor {
	if k.Columns == nil {
		return rest.NewDefaultTableConvertor(k.GVR().GroupResource())
	}
	definitions := make([]metav1.TableColumnDefinition, len(k.Columns))
	for i, c := range k.Columns {
		definitions[i] = metav1.TableColumnDefinition{
			Name: c.Name, Type: c.Type, Format: c.Format, Priority: c.Priority, Description: c.Description}
		if c.Type == "" {
			definitions[i].Type = "string"
		}
	}
	return &tableConvertor[T]{kind: k, definitions: definitions}
}

// tableConvertor makes the tables that kubectl prints. It is immutable.
type tableConvertor[T Object] struct {
	kind        *Kind[T]
	definitions []metav1.TableColumnDefinition
}

// ConvertToTable implements rest.TableConvertor.
func (c *tableConvertor[T]) ConvertToTable(_ context.Context, obj, options runtime.Object) (*metav1.Table, error) {
	table := &metav1.Table{}
	if list, err := meta.ListAccessor(obj); err == nil && meta.IsListType(obj) {
		table.ResourceVersion, table.Continue = list.GetResourceVersion(), list.GetContinue()
		table.RemainingItemCount = list.GetRemainingItemCount()
		if n := meta.LenList(obj); n > 0 {
			table.Rows = make([]metav1.TableRow, 0, n)
		}
		if err := meta.EachListItem(obj, func(item runtime.Object) error { return c.addRow(table, item) }); err != nil {
			return nil, err
		}
	} else {
		if err := c.addRow(table, obj); err != nil {
			return nil, err
		}
		table.ResourceVersion = obj.(T).GetResourceVersion()
	}
	if o, ok := options.(*metav1.TableOptions); !ok || !o.NoHeaders {
		table.ColumnDefinitions = c.definitions
	}
	return table, nil
}

func (c *tableConvertor[T]) addRow(table *metav1.Table, obj runtime.Object) error {
	typed, ok := obj.(T)
	if !ok {
		return notAcceptable(fmt.Sprintf("the resource %s does not support being converted to a Table", c.kind.GVR().GroupResource()))
	}
	row := metav1.TableRow{Cells: make([]any, len(c.kind.Columns)), Object: runtime.RawExtension{Object: obj}}
	for i := range c.kind.Columns {
		row.Cells[i] = c.kind.Columns[i].Cell(typed)
	}
	if c.kind.RowConditions != nil {
		row.Conditions = c.kind.RowConditions(typed)
	}
	table.Rows = append(table.Rows, row)
	return nil
}

func notAcceptable(message string) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusNotAcceptable, Reason: metav1.StatusReasonNotAcceptable, Message: message}}
}
