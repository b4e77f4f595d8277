package admission

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/resourcequota"
	quotav1 "k8s.io/apiserver/pkg/quota/v1"
	"k8s.io/apiserver/pkg/quota/v1/generic"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/podvine/podvine/agent/quota"
	"github.com/podvine/podvine/consensus/kubestore"
)

// quotaQueues is how many namespaces can be charged at a time on one member; those whose names fall together wait for
// each other.
const quotaQueues = 64

// quotas charge what is created to the quotas of its namespace. The charge is written in the object's own transaction, under
// the version of the quota that it was computed from, so that no number of writers, on whatever members, passes a quota, and
// nothing is charged for what was not created. Writers of one namespace take turns, for they would only be in each other's way.
type quotas struct {
	*admission.Handler
	client   kubernetes.Interface
	lister   corelisters.ResourceQuotaLister
	synced   func() bool
	registry quotav1.Registry
	ignored  map[schema.GroupResource]struct{}
	seed     maphash.Seed
	queues   [quotaQueues]chan struct{}
}

var _ admission.ValidationInterface = (*quotas)(nil)

func newQuotas(config Config) *quotas {
	informer := config.Informers.Core().V1().ResourceQuotas()
	counting := func(schema.GroupResource) generic.ListFuncByNamespace { return nil }
	q := &quotas{
		Handler: admission.NewHandler(admission.Create, admission.Update), client: config.Client, lister: informer.Lister(), synced: informer.Informer().HasSynced,
		registry: generic.NewRegistry(quota.Evaluators(counting, time.Now)), ignored: quota.Uncounted(), seed: maphash.MakeSeed(),
	}
	for i := range q.queues {
		q.queues[i] = make(chan struct{}, 1)
	}
	q.SetReadyFunc(informer.Informer().HasSynced)
	return q
}

// Validate refuses what a quota does not allow, and has the rest charged when it is written.
func (q *quotas) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	late := kubestore.LateOf(ctx)
	if late != nil {
		late.Set(nil) // of an earlier attempt of this request
	}
	if a.GetNamespace() == "" || concerns(a, namespaces(), "") {
		return nil
	}
	resource := a.GetResource().GroupResource()
	if _, ok := q.ignored[resource]; ok {
		return nil
	}
	evaluator := q.registry.Get(resource)
	if evaluator == nil {
		evaluator = generic.NewObjectCountEvaluator(resource, nil, "")
	}
	if !evaluator.Handles(a) {
		return nil
	}
	if !q.synced() && !q.WaitForReady() {
		return forbidden(a, "not yet ready to handle request")
	}
	there, err := q.lister.ResourceQuotas(a.GetNamespace()).List(labels.Everything())
	if err != nil || len(there) == 0 {
		return err
	}
	c := &charge{quotas: q, attributes: a, evaluator: evaluator}
	known := make([]corev1.ResourceQuota, len(there))
	for i := range there {
		known[i] = *there[i]
	}
	if _, err := c.compute(known); err != nil {
		// What is known here may be old: something may have been given back.
		if _, err = c.fresh(ctx, ""); err != nil {
			return err
		}
	}
	if a.IsDryRun() {
		return nil
	}
	if late == nil {
		return errors.New("charge quotas: nothing can be written along with this request")
	}
	late.Set(c)
	return nil
}

// charge is what one write costs.
type charge struct {
	quotas     *quotas
	attributes admission.Attributes
	evaluator  quotav1.Evaluator
	// queue is where the writer waits its turn; nil before.
	queue chan struct{}
}

var _ kubestore.LateSource = (*charge)(nil)

// compute returns the quotas that the charge changes.
func (c *charge) compute(before []corev1.ResourceQuota) ([]corev1.ResourceQuota, error) {
	after, err := resourcequota.CheckRequest(before, c.attributes, c.evaluator, nil)
	if err != nil {
		return nil, err
	}
	var changed []corev1.ResourceQuota
	for i := range after {
		if !quotav1.Equals(before[i].Status.Used, after[i].Status.Used) {
			changed = append(changed, after[i])
		}
	}
	return changed, nil
}

// fresh computes with the quotas as they are now: version "" is as new as any acknowledged write, "0" what this member has.
func (c *charge) fresh(ctx context.Context, version string) ([]corev1.ResourceQuota, error) {
	list, err := c.quotas.client.CoreV1().ResourceQuotas(c.attributes.GetNamespace()).List(ctx, metav1.ListOptions{ResourceVersion: version})
	if err != nil {
		return nil, fmt.Errorf("charge quotas of %s: %w", c.attributes.GetNamespace(), err)
	}
	return c.compute(list.Items)
}

// Companions implements kubestore.LateSource.
func (c *charge) Companions(ctx context.Context, attempt int) ([]kubestore.Companion, error) {
	version := ""
	if attempt == 0 {
		version = "0"
		queue := c.quotas.queues[maphash.String(c.quotas.seed, c.attributes.GetNamespace())%quotaQueues]
		select {
		case queue <- struct{}{}:
			c.queue = queue
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	changed, err := c.fresh(ctx, version)
	if err != nil && version == "0" {
		changed, err = c.fresh(ctx, "")
	}
	if err != nil {
		return nil, err
	}
	companions := make([]kubestore.Companion, len(changed))
	for i := range changed {
		revision, err := strconv.ParseUint(changed[i].ResourceVersion, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("charge quota %s: read its version: %w", changed[i].Name, err)
		}
		companions[i] = kubestore.Companion{Resource: corev1.Resource("resourcequotas"), Revision: revision, Object: &changed[i],
			Key: "/resourcequotas/" + changed[i].Namespace + "/" + changed[i].Name}
	}
	return companions, nil
}

// Done implements kubestore.LateSource.
func (c *charge) Done() {
	if c.queue != nil {
		<-c.queue
	}
}
