package chain

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/metrics"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/endpoints/responsewriter"
	"k8s.io/apiserver/pkg/server/httplog"
)

// withTimeout answers 504 when a request's deadline passes before its handler has answered, or cuts the answer off when it
// has begun. The handler runs on a worker and may go on; what it writes from then on is refused with
// http.ErrHandlerTimeout. Long-running requests have no deadline.
func withTimeout(handler http.Handler, longRunning request.LongRunningRequestCheck, workers *Workers) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		info, ok := request.RequestInfoFrom(r.Context())
		if !ok {
			responsewriters.InternalError(w, r, errors.New("no request info found for request during timeout"))
			return
		}
		if longRunning(r, info) {
			handler.ServeHTTP(w, r)
			return
		}
		guarded := &guardedWriter{inner: w, header: w.Header().Clone()}
		// Handlers change the request's header while this goroutine may still read it.
		own, answer := r.Clone(r.Context()), responsewriter.WrapForHTTP1Or2(guarded)
		ended := make(chan any, 1)
		workers.Run(func() {
			defer func() { ended <- describePanic(recover()) }()
			handler.ServeHTTP(answer, own)
		})
		select {
		case reason := <-ended:
			if reason != nil {
				panic(reason)
			}
		case <-r.Context().Done():
			workers.Run(func() { watchLate(r, ended) })
			httplog.SetStacktracePredicate(r.Context(), func(int) bool { return false })
			defer metrics.RecordRequestTermination(r, info, metrics.APIServerComponent, http.StatusGatewayTimeout)
			guarded.cutOff(apierrors.NewTimeoutError("request did not complete within the allotted timeout", 0))
		}
	})
}

// describePanic adds to what a handler panicked with where that was, which the goroutine that passes it on cannot tell.
func describePanic(reason any) any {
	if reason == nil || reason == http.ErrAbortHandler {
		return reason
	}
	return fmt.Sprintf("%v\n%s", reason, debug.Stack())
}

// watchLate reports how a handler ended whose client has been told of a timeout.
func watchLate(r *http.Request, ended <-chan any) {
	since := time.Now()
	reason := <-ended
	status := metrics.PostTimeoutHandlerOK
	if reason != nil {
		status = metrics.PostTimeoutHandlerPanic
	}
	metrics.RecordRequestPostTimeout(metrics.PostTimeoutSourceTimeoutHandler, status)
	utilruntime.HandleErrorWithContext(r.Context(), nil, "Post-timeout activity",
		"timeElapsed", time.Since(since), "method", r.Method, "path", r.URL.Path, "result", reason)
}

// guardedWriter passes an answer on until the deadline.
type guardedWriter struct {
	inner http.ResponseWriter

	mu sync.Mutex
	// header is the handler's; it reaches inner with the status, so that the answer to a timeout is free of it.
	header   http.Header
	begun    bool // the status is written
	cut      bool
	hijacked bool
}

var _ responsewriter.UserProvidedDecorator = (*guardedWriter)(nil)

// Unwrap implements responsewriter.UserProvidedDecorator.
func (w *guardedWriter) Unwrap() http.ResponseWriter { return w.inner }

// Header implements http.ResponseWriter.
func (w *guardedWriter) Header() http.Header {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		return http.Header{}
	}
	return w.header
}

// WriteHeader implements http.ResponseWriter.
func (w *guardedWriter) WriteHeader(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut || w.begun || w.hijacked {
		return
	}
	w.begin()
	w.inner.WriteHeader(status)
}

func (w *guardedWriter) begin() {
	maps.Copy(w.inner.Header(), w.header)
	w.begun = true
}

// Write implements http.ResponseWriter.
func (w *guardedWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.cut:
		return 0, http.ErrHandlerTimeout
	case w.hijacked:
		return 0, http.ErrHijacked
	case !w.begun:
		w.begin()
	}
	return w.inner.Write(p)
}

// Flush implements http.Flusher where inner does.
func (w *guardedWriter) Flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.cut {
		w.inner.(http.Flusher).Flush()
	}
}

// CloseNotify implements http.CloseNotifier where inner does.
func (w *guardedWriter) CloseNotify() <-chan bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		gone := make(chan bool)
		close(gone)
		return gone
	}
	return w.inner.(http.CloseNotifier).CloseNotify()
}

// Hijack implements http.Hijacker where inner does.
func (w *guardedWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut {
		return nil, nil, http.ErrHandlerTimeout
	}
	conn, buffered, err := w.inner.(http.Hijacker).Hijack()
	w.hijacked = w.hijacked || err == nil
	return conn, buffered, err
}

// cutOff answers with the error, or ends the connection or stream when an answer has begun.
func (w *guardedWriter) cutOff(timeout *apierrors.StatusError) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = true
	if w.begun || w.hijacked {
		panic(http.ErrAbortHandler)
	}
	w.inner.WriteHeader(http.StatusGatewayTimeout)
	if err := json.NewEncoder(w.inner).Encode(&timeout.ErrStatus); err != nil {
		utilruntime.HandleError(fmt.Errorf("answer a request that took too long: %w", err))
	}
}
