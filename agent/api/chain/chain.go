// Package chain builds the handler chain of the API server from the library's filters: the same filters in the same order
// with the same answers as the library's own chain, with less work for each request.
//
// What is made cheaper: the filters that only add values to a request's context add them at once; tracing without a
// provider only carries the trace context along; handlers run on goroutines that are kept, whose stacks have grown
// already; lists are written in large pieces, and uncompressed to the same machine. Where a setting is on that only the library's chain can serve (a tracer, draining signals), [Build] returns
// that chain.
//
// Handlers may be called from any goroutine. [Workers] own the goroutines; nothing else here keeps any. The tests send
// the same requests through this chain and through the library's.
package chain

import (
	"net/http"
	"reflect"
	"sync/atomic"

	genericapifilters "k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/filters/impersonation"
	genericfeatures "k8s.io/apiserver/pkg/features"
	genericapiserver "k8s.io/apiserver/pkg/server"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
	"k8s.io/apiserver/pkg/server/routine"
	flowcontrolrequest "k8s.io/apiserver/pkg/util/flowcontrol/request"
	"k8s.io/component-base/tracing"
)

// Build returns the chain in front of handler; it has the type of genericapiserver.Config.BuildHandlerChainFunc but for
// the workers that run the handlers.
func Build(handler http.Handler, c *genericapiserver.Config, workers *Workers) http.Handler {
	if traced(c) || c.ShutdownSendRetryAfter || c.ShutdownWatchTerminationGracePeriod > 0 {
		return genericapiserver.DefaultBuildHandlerChain(handler, c)
	}
	b := &starting{}
	b.running = running(handler, c, workers)
	// Only the library's chain knows whether all paths are installed; until it says so it serves.
	b.library = genericapiserver.DefaultBuildHandlerChain(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if genericapifilters.NoMuxAndDiscoveryIncompleteKey(r.Context()) {
			b.complete.Store(true)
		}
		handler.ServeHTTP(w, r)
	}), c)
	return b
}

func traced(c *genericapiserver.Config) bool {
	return reflect.TypeOf(c.TracerProvider) != reflect.TypeOf(tracing.NewNoopTracerProvider())
}

// starting hands requests to the library's chain until all paths are installed, and from then on to the cheaper one.
type starting struct {
	complete         atomic.Bool
	library, running http.Handler
}

// ServeHTTP implements http.Handler.
func (s *starting) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.complete.Load() {
		s.running.ServeHTTP(w, r)
		return
	}
	s.library.ServeHTTP(w, r)
}

// running is the chain of a server whose paths are all installed. Read it from the end: the last filter is the first.
func running(handler http.Handler, c *genericapiserver.Config, workers *Workers) http.Handler {
	handler = begun(genericapifilters.WithAuthorization(completed(withLists(handler)), c.Authorization.Authorizer, c.Serializer), "authorization")
	if c.FlowControl != nil {
		estimator := flowcontrolrequest.NewWorkEstimator(c.StorageObjectCountTracker.Get, c.FlowControl.GetInterestedWatchCount,
			flowcontrolrequest.DefaultWorkEstimatorConfig(), c.FlowControl.GetMaxSeats)
		handler = begun(genericfilters.WithPriorityAndFairness(completed(handler), c.LongRunningFunc, c.FlowControl, estimator,
			c.RequestTimeout/4), "priorityandfairness")
	} else {
		handler = genericfilters.WithMaxInFlightLimit(handler, c.MaxRequestsInFlight, c.MaxMutatingRequestsInFlight, c.LongRunningFunc)
	}
	if c.FeatureGate.Enabled(genericfeatures.ConstrainedImpersonation) {
		handler = begun(impersonation.WithConstrainedImpersonation(completed(handler), c.Authorization.Authorizer, c.Serializer), "constrainedimpersonation")
	} else {
		handler = begun(impersonation.WithImpersonation(completed(handler), c.Authorization.Authorizer, c.Serializer), "impersonation")
	}
	handler = begun(genericapifilters.WithAudit(completed(handler), c.AuditBackend, c.AuditPolicyRuleEvaluator, c.LongRunningFunc), "audit")
	handler = withTraceContext(handler, c.TracerProvider)
	failed := genericapifilters.WithFailedAuthenticationAudit(genericapifilters.Unauthorized(c.Serializer), c.AuditBackend, c.AuditPolicyRuleEvaluator)
	handler = begun(genericapifilters.WithAuthentication(completed(handler), c.Authentication.Authenticator, completed(failed),
		c.Authentication.APIAudiences, c.Authentication.RequestHeaderConfig), "authentication")
	handler = genericfilters.WithCORS(handler, c.CorsAllowedOriginList, nil, nil, nil, "true")
	handler = genericapifilters.WithWarningRecorder(handler)
	handler = withTimeout(handler, c.LongRunningFunc, workers)
	handler = genericapifilters.WithRequestDeadline(handler, c.AuditBackend, c.AuditPolicyRuleEvaluator, c.LongRunningFunc, c.Serializer, c.RequestTimeout)
	handler = genericfilters.WithWaitGroup(handler, c.LongRunningFunc, c.NonLongRunningRequestWaitGroup)
	if c.SecureServing != nil && !c.SecureServing.DisableHTTP2 && c.GoawayChance > 0 {
		handler = genericfilters.WithProbabilisticGoaway(handler, c.GoawayChance)
	}
	handler = genericfilters.WithHSTS(handler, c.HSTSDirectives)
	handler = genericfilters.WithHTTPLogging(handler)
	if c.FeatureGate.Enabled(genericfeatures.APIServingWithRoutine) {
		handler = routine.WithRoutine(handler, c.LongRunningFunc)
	}
	handler = genericfilters.WithPanicRecovery(handler, c.RequestInfoResolver)
	return withArrival(handler, c.RequestInfoResolver)
}
