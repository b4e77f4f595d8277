package chain

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/types"
	auditinternal "k8s.io/apiserver/pkg/apis/audit"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/metrics"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/endpoints/responsewriter"
	"k8s.io/apiserver/pkg/server/httplog"
	"k8s.io/klog/v2"
)

// slowFilter is from when on a filter's time is added to the request's log line.
const slowFilter = 100 * time.Millisecond

// withArrival gives a request everything that the later filters look for: an audit context with the request's ID, the time
// of its arrival, what it is about, trackers of latency. The library has a filter, and a copy of the request, for each.
func withArrival(handler http.Handler, resolver request.RequestInfoResolver) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := audit.WithAuditContext(r.Context())
		header := w.Header()
		echoAuditID(ctx, header, r)
		ctx = request.WithReceivedTimestamp(ctx, time.Now())
		info, err := resolver.NewRequestInfo(r)
		if err != nil {
			responsewriters.InternalError(w, r.WithContext(ctx), fmt.Errorf("failed to create RequestInfo: %v", err))
			return
		}
		ctx = request.WithRequestInfo(ctx, info)
		if _, ok := header["Cache-Control"]; !ok {
			header["Cache-Control"] = []string{"no-cache, private"}
		}
		ctx = context.WithValue(ctx, filterKey{}, &filter{})
		if info.Verb != "watch" {
			ctx = request.WithLatencyTrackers(ctx)
			w = responsewriter.WrapForHTTP1Or2(&timedWriter{w, ctx})
		}
		handler.ServeHTTP(w, r.WithContext(ctx))
	})
}

// echoAuditID names the request, as the client did or anew, and tells the client.
func echoAuditID(ctx context.Context, header http.Header, r *http.Request) {
	id := r.Header.Get(auditinternal.HeaderAuditID)
	if id == "" {
		id = uuid.NewString()
	}
	audit.WithAuditID(ctx, types.UID(id))
	if header.Get(auditinternal.HeaderAuditID) == "" {
		header.Set(auditinternal.HeaderAuditID, id)
	}
}

// timedWriter tracks how long a response takes to be written.
type timedWriter struct {
	http.ResponseWriter
	ctx context.Context // of the request that the writer answers
}

// Unwrap implements responsewriter.UserProvidedDecorator.
func (w *timedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Write implements io.Writer.
func (w *timedWriter) Write(p []byte) (int, error) {
	begun := time.Now()
	n, err := w.ResponseWriter.Write(p)
	request.TrackResponseWriteLatency(w.ctx, time.Since(begun))
	return n, err
}

// filter is the filter that a request is in; one goroutine at a time writes it.
type filter struct {
	name  string
	begun time.Time
}

type filterKey struct{}

// begun notes that a request enters a filter.
func begun(handler http.Handler, name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f, ok := r.Context().Value(filterKey{}).(*filter); ok {
			f.name, f.begun = name, time.Now()
		}
		handler.ServeHTTP(w, r)
	})
}

// completed records how long the request was in the filter that it was in.
func completed(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f, ok := r.Context().Value(filterKey{}).(*filter); ok {
			latency := time.Since(f.begun)
			metrics.RecordFilterLatency(r.Context(), f.name, latency)
			if latency > slowFilter && klog.V(3).Enabled() {
				httplog.AddKeyValue(r.Context(), "fl_"+f.name, latency.String())
			}
		}
		handler.ServeHTTP(w, r)
	})
}
