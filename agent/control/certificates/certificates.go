// Package certificates answers requests for certificates: it approves those that nodes' agents make for themselves, signs
// what is approved with the cluster's key, and removes requests that nobody needs any more.
//
// Role: [Decide] looks at one request and plans one step; the loop carries it out. Kubernetes' signers
// kubernetes.io/kube-apiserver-client, kubernetes.io/kube-apiserver-client-kubelet and kubernetes.io/kubelet-serving are
// served; other signers' requests are only cleaned up. Only a request for kube-apiserver-client-kubelet is approved by
// itself, and only where its requester may create certificatesigningrequests/selfnodeclient or …/nodeclient.
//
// Ownership: the loop writes the condition Approved with the reason AutoApproved, the condition Failed, and the certificate.
//
// Concurrency: as [loop.Driver]; a request is worked on by one goroutine at a time.
package certificates

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	certificateslisters "k8s.io/client-go/listers/certificates/v1"

	"github.com/podvine/podvine/agent/control/loop"
)

// Sign certifies what a request asks for, in PEM. It must be safe for concurrent use.
type Sign func(request *x509.CertificateRequest, key x509.KeyUsage, extended []x509.ExtKeyUsage, lifetime time.Duration, now time.Time) ([]byte, error)

// Loop answers requests. Make it with [New].
type Loop struct {
	loop.Controller
	sign     Sign
	requests certificateslisters.CertificateSigningRequestLister
}

// New checks the configuration and asks the factory for its informer.
func New(w loop.Wiring, sign Sign) (*Loop, error) {
	if err := w.Check("certificate"); err != nil {
		return nil, err
	}
	if sign == nil {
		return nil, errors.New("make certificate loop: nothing signs")
	}
	requests := w.Informers.Certificates().V1().CertificateSigningRequests()
	l := &Loop{Controller: loop.NewController(w, "certificate-controller"), sign: sign, requests: requests.Lister()}
	return l, l.Drive(loop.Config{
		Name:      "certificate",
		Sources:   []loop.Source{loop.OnKey(requests.Informer())},
		All:       requests.Informer().GetIndexer().ListKeys,
		Reconcile: l.reconcile,
	})
}

func (l *Loop) reconcile(ctx context.Context, name string) (time.Duration, error) {
	request, err := l.requests.Get(name)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	now := time.Now()
	plan := Decide(request, now)
	switch {
	case plan.Remove != "":
		return 0, l.remove(ctx, request, plan.Remove)
	case plan.Fail != "":
		return plan.Again, l.fail(ctx, request, plan.Fail, now)
	case plan.Sign != nil:
		return plan.Again, l.certify(ctx, request, plan.Sign, now)
	}
	for _, approval := range plan.Ask {
		allowed, err := l.allowed(ctx, request, approval.Subresource)
		if err != nil {
			return 0, err
		}
		if allowed {
			return plan.Again, l.approve(ctx, request, approval.Message, now)
		}
	}
	return plan.Again, nil
}

// remove deletes the request that was looked at.
func (l *Loop) remove(ctx context.Context, request *certificatesv1.CertificateSigningRequest, why string) error {
	only := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &request.UID, ResourceVersion: &request.ResourceVersion}}
	err := l.Client.CertificatesV1().CertificateSigningRequests().Delete(ctx, request.Name, only)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove certificate signing request %s: %w", request.Name, err)
	}
	l.Logger.Info("removed certificate signing request", "request", request.Name, "why", why)
	return nil
}

// fail says on the request why it is never signed.
func (l *Loop) fail(ctx context.Context, request *certificatesv1.CertificateSigningRequest, why string, now time.Time) error {
	next := request.DeepCopy()
	next.Status.Conditions = append(next.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateFailed, Status: corev1.ConditionTrue, Reason: "SignerValidationFailure", Message: why, LastUpdateTime: metav1.NewTime(now),
	})
	return l.update(ctx, next, "refuse to sign")
}

func (l *Loop) certify(ctx context.Context, request *certificatesv1.CertificateSigningRequest, order *Order, now time.Time) error {
	certificate, err := l.sign(order.Request, order.Key, order.Extended, order.Lifetime, now)
	if err != nil {
		return fmt.Errorf("sign certificate signing request %s: %w", request.Name, err)
	}
	next := request.DeepCopy()
	next.Status.Certificate = certificate
	if err := l.update(ctx, next, "sign"); err != nil {
		return err
	}
	l.Logger.Info("signed certificate", "request", request.Name, "signer", request.Spec.SignerName, "subject", order.Request.Subject.String(), "lifetime", order.Lifetime)
	return nil
}

func (l *Loop) update(ctx context.Context, next *certificatesv1.CertificateSigningRequest, doing string) error {
	_, err := l.Client.CertificatesV1().CertificateSigningRequests().UpdateStatus(ctx, next, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("%s certificate signing request %s: %w", doing, next.Name, err)
	}
	return nil
}

// allowed asks whether the requester may have such a request approved.
func (l *Loop) allowed(ctx context.Context, request *certificatesv1.CertificateSigningRequest, subresource string) (bool, error) {
	extra := map[string]authorizationv1.ExtraValue{}
	for key, values := range request.Spec.Extra {
		extra[key] = authorizationv1.ExtraValue(values)
	}
	review, err := l.Client.AuthorizationV1().SubjectAccessReviews().Create(ctx, &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
		User: request.Spec.Username, UID: request.Spec.UID, Groups: request.Spec.Groups, Extra: extra,
		ResourceAttributes: &authorizationv1.ResourceAttributes{Group: certificatesv1.GroupName, Version: "*", Resource: "certificatesigningrequests",
			Subresource: subresource, Verb: "create"},
	}}, metav1.CreateOptions{})
	if err != nil {
		return false, fmt.Errorf("ask what the requester of certificate signing request %s may do: %w", request.Name, err)
	}
	return review.Status.Allowed, nil
}

func (l *Loop) approve(ctx context.Context, request *certificatesv1.CertificateSigningRequest, message string, now time.Time) error {
	next := request.DeepCopy()
	next.Status.Conditions = append(next.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "AutoApproved", Message: message, LastUpdateTime: metav1.NewTime(now),
	})
	_, err := l.Client.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, next.Name, next, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("approve certificate signing request %s: %w", next.Name, err)
	}
	l.Logger.Info("approved certificate signing request", "request", next.Name, "user", next.Spec.Username)
	return nil
}
