package chain

import (
	"bufio"
	"net"
	"net/http"
	"sync"

	"k8s.io/apiserver/pkg/endpoints/request"
)

// listBufferBytes is how much of a list is written at once. The library encodes a list item by item, and each write of its own
// is a hand-over to the goroutine that frames the connection.
const listBufferBytes = 64 << 10

var listBuffers = sync.Pool{New: func() any { return bufio.NewWriterSize(nil, listBufferBytes) }}

// withLists writes lists in large pieces, and leaves them uncompressed for clients on the same machine, to whom no byte is far.
func withLists(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if info, ok := request.RequestInfoFrom(r.Context()); !ok || !info.IsResourceRequest || info.Verb != "list" {
			handler.ServeHTTP(w, r)
			return
		}
		if sameMachine(r) {
			r.Header.Del("Accept-Encoding")
		}
		buffer := listBuffers.Get().(*bufio.Writer)
		buffer.Reset(w)
		// A handler that panics leaves its answer as it is: cut off.
		handler.ServeHTTP(&listWriter{ResponseWriter: w, buffer: buffer}, r)
		_ = buffer.Flush() // an error means that nobody reads any more
		buffer.Reset(nil)
		listBuffers.Put(buffer)
	})
}

// sameMachine tells whether client and server have the same address, or speak over loopback.
func sameMachine(r *http.Request) bool {
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	here, _, hereErr := net.SplitHostPort(local.String())
	there, _, thereErr := net.SplitHostPort(r.RemoteAddr)
	return hereErr == nil && thereErr == nil && here == there
}

// listWriter gathers what is written.
type listWriter struct {
	http.ResponseWriter
	buffer *bufio.Writer
}

// Unwrap serves http.ResponseController.
func (w *listWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Write implements http.ResponseWriter.
func (w *listWriter) Write(p []byte) (int, error) { return w.buffer.Write(p) }

// Flush implements http.Flusher.
func (w *listWriter) Flush() {
	_ = w.buffer.Flush()
	if f, ok := w.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}
