package componentstatus_test

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/componentstatus"
)

// There are no components: lists are empty and every name is unknown. Nothing can be written or watched.
func TestReadsOnly(t *testing.T) {
	storage := map[string]rest.Storage{}
	if err := componentstatus.Resource().Install(kinds.Env{}, storage); err != nil {
		t.Fatal(err)
	}
	served := storage["componentstatuses"]
	list, err := served.(rest.Lister).List(t.Context(), nil)
	if err != nil || len(list.(*corev1.ComponentStatusList).Items) != 0 {
		t.Errorf("got %v, %v", list, err)
	}
	if _, err := served.(rest.Getter).Get(t.Context(), "scheduler", nil); !apierrors.IsNotFound(err) {
		t.Errorf("got %v, want not found", err)
	}
	table, err := served.(rest.TableConvertor).ConvertToTable(t.Context(), list, &metav1.TableOptions{})
	if err != nil || len(table.ColumnDefinitions) != 4 || len(table.Rows) != 0 {
		t.Errorf("got %v, %v", table, err)
	}
	if _, ok := served.(rest.Creater); ok {
		t.Error("can be created")
	}
	if _, ok := served.(rest.Watcher); ok {
		t.Error("can be watched")
	}
}
