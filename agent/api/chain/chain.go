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
	"slices"
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

// step is a filter by its name.
type step struct {
	name string
	wrap func(http.Handler) http.Handler
}

// running is the chain of a server whose paths are all installed.
func running(handler http.Handler, c *genericapiserver.Config, workers *Workers) http.Handler {
	return through(steps(c, workers), handler)
}

// through puts the filters in front of handler; a request meets the first one first.
func through(filters []step, handler http.Handler) http.Handler {
	for _, s := range slices.Backward(filters) {
		handler = s.wrap(handler)
	}
	return handler
}

// timed is a filter whose time is recorded.
func timed(name string, wrap func(http.Handler) http.Handler) step {
	return step{name, func(handler http.Handler) http.Handler { return begun(wrap(completed(handler)), name) }}
}

// steps are the filters in the order in which a request meets them.
func steps(c *genericapiserver.Config, workers *Workers) []step {
	return slices.Concat(outer(c, workers), []step{
		timed("authentication", func(handler http.Handler) http.Handler {
			failed := genericapifilters.WithFailedAuthenticationAudit(genericapifilters.Unauthorized(c.Serializer), c.AuditBackend, c.AuditPolicyRuleEvaluator)
			return genericapifilters.WithAuthentication(handler, c.Authentication.Authenticator, completed(failed), c.Authentication.APIAudiences,
				c.Authentication.RequestHeaderConfig)
		}),
		{"trace", func(handler http.Handler) http.Handler { return withTraceContext(handler, c.TracerProvider) }},
		timed("audit", func(handler http.Handler) http.Handler {
			return genericapifilters.WithAudit(handler, c.AuditBackend, c.AuditPolicyRuleEvaluator, c.LongRunningFunc)
		}),
		impersonated(c),
		admitted(c),
		timed("authorization", func(handler http.Handler) http.Handler {
			return genericapifilters.WithAuthorization(handler, c.Authorization.Authorizer, c.Serializer)
		}),
		{"lists", withLists},
	})
}

// outer are the filters before anybody knows who asks.
func outer(c *genericapiserver.Config, workers *Workers) []step {
	filters := []step{
		{"arrival", func(handler http.Handler) http.Handler { return withArrival(handler, c.RequestInfoResolver) }},
		{"panic", func(handler http.Handler) http.Handler {
			return genericfilters.WithPanicRecovery(handler, c.RequestInfoResolver)
		}},
	}
	if c.FeatureGate.Enabled(genericfeatures.APIServingWithRoutine) {
		filters = append(filters, step{"routine", func(handler http.Handler) http.Handler { return routine.WithRoutine(handler, c.LongRunningFunc) }})
	}
	filters = append(filters, step{"log", genericfilters.WithHTTPLogging},
		step{"hsts", func(handler http.Handler) http.Handler { return genericfilters.WithHSTS(handler, c.HSTSDirectives) }})
	if c.SecureServing != nil && !c.SecureServing.DisableHTTP2 && c.GoawayChance > 0 {
		filters = append(filters, step{"goaway", func(handler http.Handler) http.Handler {
			return genericfilters.WithProbabilisticGoaway(handler, c.GoawayChance)
		}})
	}
	return append(filters,
		step{"wait group", func(handler http.Handler) http.Handler {
			return genericfilters.WithWaitGroup(handler, c.LongRunningFunc, c.NonLongRunningRequestWaitGroup)
		}},
		step{"deadline", func(handler http.Handler) http.Handler {
			return genericapifilters.WithRequestDeadline(handler, c.AuditBackend, c.AuditPolicyRuleEvaluator, c.LongRunningFunc, c.Serializer, c.RequestTimeout)
		}},
		step{"timeout", func(handler http.Handler) http.Handler { return withTimeout(handler, c.LongRunningFunc, workers) }},
		step{"warnings", genericapifilters.WithWarningRecorder},
		step{"cors", func(handler http.Handler) http.Handler {
			return genericfilters.WithCORS(handler, c.CorsAllowedOriginList, nil, nil, nil, "true")
		}})
}

func impersonated(c *genericapiserver.Config) step {
	if c.FeatureGate.Enabled(genericfeatures.ConstrainedImpersonation) {
		return timed("constrainedimpersonation", func(handler http.Handler) http.Handler {
			return impersonation.WithConstrainedImpersonation(handler, c.Authorization.Authorizer, c.Serializer)
		})
	}
	return timed("impersonation", func(handler http.Handler) http.Handler {
		return impersonation.WithImpersonation(handler, c.Authorization.Authorizer, c.Serializer)
	})
}

// admitted lets requests in by priority and fairness, or by their number.
func admitted(c *genericapiserver.Config) step {
	if c.FlowControl == nil {
		return step{"limit", func(handler http.Handler) http.Handler {
			return genericfilters.WithMaxInFlightLimit(handler, c.MaxRequestsInFlight, c.MaxMutatingRequestsInFlight, c.LongRunningFunc)
		}}
	}
	return timed("priorityandfairness", func(handler http.Handler) http.Handler {
		estimator := flowcontrolrequest.NewWorkEstimator(c.StorageObjectCountTracker.Get, c.FlowControl.GetInterestedWatchCount,
			flowcontrolrequest.DefaultWorkEstimatorConfig(), c.FlowControl.GetMaxSeats)
		return genericfilters.WithPriorityAndFairness(handler, c.LongRunningFunc, c.FlowControl, estimator, c.RequestTimeout/4)
	})
}
