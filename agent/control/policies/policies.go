// Package policies checks the expressions of ValidatingAdmissionPolicies against the types that they are about, and tells what
// will not work in the policy's status.
//
// Role: the API accepts an expression that compiles; whether the objects that it will see have the fields is known only from
// their schemas. A policy is checked once each generation. A warning changes nothing about what the policy does.
//
// Ownership: the loop writes status.observedGeneration and status.typeChecking, and nothing else.
//
// Concurrency: as [loop.Driver]; a policy is worked on by one goroutine at a time.
package policies

import (
	"context"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"
	"k8s.io/apiserver/pkg/cel/openapi/resolver"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/kubernetes"
	admissionlisters "k8s.io/client-go/listers/admissionregistration/v1"
	"k8s.io/client-go/restmapper"

	"github.com/podvine/podvine/agent/control/loop"
)

// checkWorkers is how many policies are checked at a time: checking reads schemas, which are large.
const checkWorkers = 1

// Check returns the warnings of a policy's expressions.
type Check func(*admissionv1.ValidatingAdmissionPolicy) []admissionv1.ExpressionWarning

// Loop is the policy status loop. Make it with [New].
type Loop struct {
	loop.Controller
	policies admissionlisters.ValidatingAdmissionPolicyLister
	check    Check
}

// New makes the loop. Its client acts as the validatingadmissionpolicy-status-controller. A nil check is by the schemas that the API
// serves.
func New(w loop.Wiring, check Check) (*Loop, error) {
	if err := w.Check("policy status"); err != nil {
		return nil, err
	}
	w.Workers = checkWorkers
	if check == nil {
		check = bySchemas(w.Client)
	}
	policies := w.Informers.Admissionregistration().V1().ValidatingAdmissionPolicies()
	l := &Loop{Controller: loop.NewController(w, ""), policies: policies.Lister(), check: check}
	return l, l.Drive(loop.Config{Name: "validatingadmissionpolicy-status", Sources: []loop.Source{loop.OnKey(policies.Informer())},
		All: policies.Informer().GetIndexer().ListKeys, Reconcile: l.reconcile})
}

// bySchemas checks with what the API says of its types now.
func bySchemas(client kubernetes.Interface) Check {
	return func(policy *admissionv1.ValidatingAdmissionPolicy) []admissionv1.ExpressionWarning {
		checker := validating.TypeChecker{
			SchemaResolver: &resolver.ClientDiscoveryResolver{Discovery: client.Discovery()},
			RestMapper:     restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery())),
		}
		return checker.Check(policy)
	}
}

func (l *Loop) reconcile(ctx context.Context, key string) (time.Duration, error) {
	policy, err := l.policies.Get(key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil || policy.Status.ObservedGeneration >= policy.Generation {
		return 0, err
	}
	checked := policy.DeepCopy()
	checked.Status.ObservedGeneration = policy.Generation
	checked.Status.TypeChecking = &admissionv1.TypeChecking{ExpressionWarnings: l.check(policy)}
	_, err = l.Client.AdmissionregistrationV1().ValidatingAdmissionPolicies().UpdateStatus(ctx, checked, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	return 0, err
}
