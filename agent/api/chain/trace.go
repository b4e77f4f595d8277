package chain

import (
	"net/http"
	"net/textproto"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"k8s.io/component-base/tracing"
)

// withTraceContext carries the trace context that a request names to the calls that are made for it, which is all that the
// library's tracing filter does without a tracer. A request that names none passes untouched.
func withTraceContext(handler http.Handler, provider trace.TracerProvider) http.Handler {
	propagators := tracing.Propagators()
	tracer := provider.Tracer("github.com/podvine/podvine/agent/api/chain")
	var headers []string
	for _, field := range propagators.Fields() {
		headers = append(headers, textproto.CanonicalMIMEHeaderKey(field))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, header := range headers {
			if _, ok := r.Header[header]; !ok {
				continue
			}
			ctx, _ := tracer.Start(propagators.Extract(r.Context(), propagation.HeaderCarrier(r.Header)), r.Method)
			r = r.WithContext(ctx)
			break
		}
		handler.ServeHTTP(w, r)
	})
}
