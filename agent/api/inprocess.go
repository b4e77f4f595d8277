package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/rest"
)

// errNotServing is what in-process clients get before the server is built.
var errNotServing = errors.New("call API in process: the server is not built yet")

// inProcessUser keys the user of an in-process request in its context. A request from the network cannot carry it.
type inProcessUser struct{}

// loopback hands requests to the handler chain without a socket. It exists before the handler does.
type loopback struct {
	handler     atomic.Pointer[http.Handler]
	requestInfo apirequest.RequestInfoResolver
	longRunning apirequest.LongRunningRequestCheck
}

func (l *loopback) serve(handler http.Handler) { l.handler.Store(&handler) }

// clientConfig returns the configuration of a client that acts as the user.
func (l *loopback) clientConfig(as user.Info) *rest.Config {
	return &rest.Config{
		Host:      "http://in-process",
		Transport: &inProcessTransport{loopback: l, user: as},
		ContentConfig: rest.ContentConfig{
			AcceptContentTypes: runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON,
			ContentType:        runtime.ContentTypeProtobuf,
		},
		QPS: -1, // priority and fairness is the limit
	}
}

// AuthenticateRequest implements authenticator.Request for in-process requests.
func (l *loopback) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	as, ok := r.Context().Value(inProcessUser{}).(user.Info)
	if !ok {
		return nil, false, nil
	}
	return &authenticator.Response{User: as}, true, nil
}

type inProcessTransport struct {
	loopback *loopback
	user     user.Info
}

// RoundTrip implements http.RoundTripper. Plain requests run in the caller's goroutine; watches and other streams in
// one of their own, which ends when the body is closed or the request's context ends.
func (t *inProcessTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	handler := t.loopback.handler.Load()
	if handler == nil {
		return nil, errNotServing
	}
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	parent := r.Context()
	if audit.AuditContextFrom(parent) != nil {
		parent = apart{parent} // the API asks itself while it answers another request
	}
	ctx, cancel := context.WithCancel(context.WithValue(parent, inProcessUser{}, t.user))
	served := r.Clone(ctx)
	served.Proto, served.ProtoMajor, served.ProtoMinor = "HTTP/2.0", 2, 0
	served.RequestURI, served.RemoteAddr = r.URL.RequestURI(), "127.0.0.1:0"
	if served.Host == "" {
		served.Host = r.URL.Host
	}
	if served.Body == nil {
		served.Body = http.NoBody
	} else {
		defer served.Body.Close()
	}
	info, err := t.loopback.requestInfo.NewRequestInfo(served)
	if err == nil && t.loopback.longRunning(served, info) {
		return stream(ctx, cancel, *handler, served, r)
	}
	defer cancel()
	w := &bufferedResponse{header: http.Header{}}
	if err := serveRecovering(*handler, w, served); err != nil {
		return nil, err
	}
	return w.response(r), nil
}

// apart ends with another request's context but has none of its values: each request has an audit event of its own, and
// writes that one carries along are not another's.
type apart struct{ context.Context }

// Value implements context.Context.
func (apart) Value(any) any { return nil }

// serveRecovering turns panics into errors, as the HTTP server turns them into dropped connections: the handlers use one
// to abort an answer, and have logged all others, after which the process must live on.
func serveRecovering(handler http.Handler, w http.ResponseWriter, r *http.Request) (err error) {
	defer func() {
		switch reason := recover(); reason {
		case nil:
		case http.ErrAbortHandler:
			err = io.ErrUnexpectedEOF
		default:
			err = fmt.Errorf("call API in process: the handler panicked: %v", reason)
		}
	}()
	handler.ServeHTTP(w, r)
	return nil
}

// bufferedResponse keeps a whole response in memory. One goroutine uses it.
type bufferedResponse struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (w *bufferedResponse) Header() http.Header { return w.header }

func (w *bufferedResponse) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

func (w *bufferedResponse) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// Flush implements http.Flusher.
func (w *bufferedResponse) Flush() { w.WriteHeader(http.StatusOK) }

// CloseNotify implements http.CloseNotifier, which the watch and timeout handlers look for; the context does the work.
func (w *bufferedResponse) CloseNotify() <-chan bool { return nil }

func (w *bufferedResponse) response(r *http.Request) *http.Response {
	w.WriteHeader(http.StatusOK)
	return newResponse(r, w.status, w.header, io.NopCloser(&w.body), int64(w.body.Len()))
}

func newResponse(r *http.Request, status int, header http.Header, body io.ReadCloser, length int64) *http.Response {
	return &http.Response{
		Status: http.StatusText(status), StatusCode: status, Proto: "HTTP/2.0", ProtoMajor: 2,
		Header: header, Body: body, ContentLength: length, Request: r}
}

// stream runs the handler in a goroutine and returns once it has answered with a status.
func stream(ctx context.Context, cancel context.CancelFunc, handler http.Handler, served, r *http.Request) (*http.Response, error) {
	reader, writer := io.Pipe()
	w := &streamedResponse{header: http.Header{}, body: writer, started: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { reader.CloseWithError(context.Cause(ctx)) })
	go func() {
		defer cancel()
		err := serveRecovering(handler, w, served)
		w.WriteHeader(http.StatusOK)
		writer.CloseWithError(err) // nil is the ordinary end of the body
		stop()                     // a body that has ended stays ended, whatever happens to the context
	}()
	select {
	case <-w.started:
	case <-ctx.Done():
		select {
		case <-w.started: // the handler has answered and ended
		default:
			return nil, ctx.Err()
		}
	}
	return newResponse(r, w.status, w.sent, &streamBody{PipeReader: reader, stop: stop, cancel: cancel}, -1), nil
}

// streamBody ends the handler when the client closes the body.
type streamBody struct {
	*io.PipeReader
	stop   func() bool
	cancel context.CancelFunc
}

// Close implements io.Closer.
func (b *streamBody) Close() error {
	b.stop()
	b.cancel()
	return b.PipeReader.Close()
}

// streamedResponse passes a response on as it is written.
type streamedResponse struct {
	header  http.Header
	body    *io.PipeWriter
	once    sync.Once
	started chan struct{}
	// status and sent are written before started is closed.
	status int
	sent   http.Header
}

func (w *streamedResponse) Header() http.Header { return w.header }

func (w *streamedResponse) WriteHeader(status int) {
	w.once.Do(func() {
		w.status, w.sent = status, w.header.Clone()
		close(w.started)
	})
}

func (w *streamedResponse) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// Flush implements http.Flusher; nothing is held back.
func (w *streamedResponse) Flush() { w.WriteHeader(http.StatusOK) }

// CloseNotify implements http.CloseNotifier; the context does the work.
func (w *streamedResponse) CloseNotify() <-chan bool { return nil }
