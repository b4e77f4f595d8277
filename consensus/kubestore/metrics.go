package kubestore

import (
	"time"

	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/storage/etcd3/metrics"

	"github.com/podvine/podvine/consensus/store"
)

// The verbs of a request to the store, as Kubernetes' dashboards know them.
const (
	verbGet    = "get"
	verbList   = "list"
	verbCreate = "create"
	verbUpdate = "update"
	verbDelete = "delete"
)

// measure records a request to the store under the names that Kubernetes has for those to etcd: etcd_request_duration_seconds,
// etcd_requests_total and etcd_request_errors_total. That an object is not there is an answer, no error.
func (r *resource) measure(verb string, began time.Time, err error) {
	if storage.IsNotFound(err) {
		err = nil
	}
	metrics.RecordEtcdRequest(verb, r.group, err, began)
}

func (w *write) verb() string {
	switch {
	case w.op.Kind == store.OpDelete:
		return verbDelete
	case w.op.Expect == store.ExpectAbsent:
		return verbCreate
	default:
		return verbUpdate
	}
}
