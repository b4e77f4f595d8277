package admission

import (
	"context"
	"errors"
	"fmt"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	podsecurity "k8s.io/pod-security-admission/admission"
	"k8s.io/pod-security-admission/admission/api/load"
	psapi "k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/metrics"
	"k8s.io/pod-security-admission/policy"
)

// podSecurity holds pods to the level that the labels of their namespace ask for.
type podSecurity struct {
	*admission.Handler
	checks *podsecurity.Admission
}

var _ admission.ValidationInterface = (*podSecurity)(nil)

func newPodSecurity(client kubernetes.Interface, factory informers.SharedInformerFactory) (*podSecurity, error) {
	namespaceInformer, podInformer := factory.Core().V1().Namespaces(), factory.Core().V1().Pods()
	config, err := load.LoadFromData(nil) // the default: privileged where labels say nothing
	if err != nil {
		return nil, fmt.Errorf("configure pod security: %w", err)
	}
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks(), nil)
	if err != nil {
		return nil, fmt.Errorf("configure pod security: %w", err)
	}
	p := &podSecurity{
		Handler: admission.NewHandler(admission.Create, admission.Update),
		checks: &podsecurity.Admission{
			Configuration:    config,
			Evaluator:        evaluator,
			Metrics:          unrecorded{},
			PodSpecExtractor: podsecurity.DefaultPodSpecExtractor{},
			NamespaceGetter:  podsecurity.NamespaceGetterFromListerAndClient(namespaceInformer.Lister(), client),
			PodLister:        podsecurity.PodListerFromInformer(podInformer.Lister()),
		},
	}
	if err := errors.Join(p.checks.CompleteConfiguration(), p.checks.ValidateConfiguration()); err != nil {
		return nil, fmt.Errorf("configure pod security: %w", err)
	}
	synced := []func() bool{namespaceInformer.Informer().HasSynced, podInformer.Informer().HasSynced}
	p.SetReadyFunc(func() bool { return synced[0]() && synced[1]() })
	return p, nil
}

// Validate refuses, or warns about, what the namespace's level does not allow.
func (p *podSecurity) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	resource := a.GetResource().GroupResource()
	if resource != namespaces() && !p.checks.PodSpecExtractor.HasPodSpec(resource) {
		return nil
	}
	result := p.checks.Validate(ctx, securityAttributes{a})
	for _, text := range result.Warnings {
		warning.AddWarning(ctx, "", text)
	}
	for k, v := range result.AuditAnnotations {
		audit.AddAuditAnnotation(ctx, psapi.AuditAnnotationPrefix+k, v)
	}
	if result.Allowed {
		return nil
	}
	err := admission.NewForbidden(a, errors.New("Not allowed by PodSecurity"))
	var status *apierrors.StatusError
	if r := result.Result; r != nil && errors.As(err, &status) {
		if r.Message != "" {
			status.ErrStatus.Message = r.Message
		}
		if r.Reason != "" {
			status.ErrStatus.Reason = r.Reason
		}
		if r.Details != nil {
			status.ErrStatus.Details = r.Details
		}
		if r.Code != 0 {
			status.ErrStatus.Code = r.Code
		}
	}
	return err
}

// securityAttributes shows a request as the checks want it.
type securityAttributes struct{ admission.Attributes }

func (s securityAttributes) GetOperation() admissionv1.Operation {
	return admissionv1.Operation(s.Attributes.GetOperation())
}
func (s securityAttributes) GetObject() (runtime.Object, error) { return s.Attributes.GetObject(), nil }
func (s securityAttributes) GetOldObject() (runtime.Object, error) {
	return s.Attributes.GetOldObject(), nil
}
func (s securityAttributes) GetUserName() string { return s.GetUserInfo().GetName() }
func (s securityAttributes) GetResource() schema.GroupVersionResource {
	return s.Attributes.GetResource()
}

// unrecorded counts nothing: the chain may be made several times in a process, and the counters are global.
type unrecorded struct{}

func (unrecorded) RecordEvaluation(metrics.Decision, psapi.LevelVersion, metrics.Mode, psapi.Attributes) {
}
func (unrecorded) RecordExemption(psapi.Attributes)   {}
func (unrecorded) RecordError(bool, psapi.Attributes) {}
