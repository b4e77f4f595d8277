package api

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
)

// batchBinder is the registry of pods/binding.
type batchBinder interface {
	BindAll(ctx context.Context, bindings []*corev1.Binding) []error
}

// Bind is what as many requests to pods/binding by that user do, with one error, or nil, for each: the user is
// authorized, admission runs, and the registry checks each binding. It spares the handler chain, and the bindings share
// transactions. Only a loop of this process calls it, whose decisions its events tell, so it writes no audit events.
func (s *Server) Bind(ctx context.Context, as user.Info, bindings []*corev1.Binding) []error {
	errs := make([]error, len(bindings))
	if s.bindings == nil {
		for i := range errs {
			errs[i] = errors.New("bind pods: pods/binding is not served")
		}
		return errs
	}
	ctx = genericapirequest.WithUser(ctx, as)
	admitted := make([]*corev1.Binding, 0, len(bindings))
	at := make([]int, 0, len(bindings))
	allowed := map[string]error{} // by namespace
	for i, b := range bindings {
		err, known := allowed[b.Namespace]
		if !known {
			err = s.mayBind(ctx, as, b.Namespace)
			allowed[b.Namespace] = err
		}
		if err == nil {
			err = s.admitBinding(ctx, as, b)
		}
		if errs[i] = err; err == nil {
			admitted, at = append(admitted, b), append(at, i)
		}
	}
	for k, err := range s.bindings.BindAll(ctx, admitted) {
		errs[at[k]] = err
	}
	return errs
}

// mayBind asks whether the user may bind every pod of the namespace.
func (s *Server) mayBind(ctx context.Context, as user.Info, namespace string) error {
	decision, reason, err := s.security.Authorizer.Authorize(ctx, authorizer.AttributesRecord{User: as, Verb: "create",
		Namespace: namespace, APIVersion: "v1", Resource: "pods", Subresource: "binding", ResourceRequest: true})
	if decision == authorizer.DecisionAllow {
		return nil
	}
	return errors.Join(errors.New("bind pods: "+as.GetName()+" may not create pods/binding in "+namespace+": "+reason), err)
}

// admitBinding runs the admission plug-ins on one binding.
func (s *Server) admitBinding(ctx context.Context, as user.Info, b *corev1.Binding) error {
	plugins := s.security.Admission
	if plugins == nil || !plugins.Handles(admission.Create) {
		return nil
	}
	attributes := admission.NewAttributesRecord(b, nil, corev1.SchemeGroupVersion.WithKind("Binding"), b.Namespace, b.Name,
		corev1.SchemeGroupVersion.WithResource("pods"), "binding", admission.Create, &metav1.CreateOptions{}, false, as)
	objects := admission.NewObjectInterfacesFromScheme(s.scheme)
	if mutating, ok := plugins.(admission.MutationInterface); ok {
		if err := mutating.Admit(genericapirequest.WithNamespace(ctx, b.Namespace), attributes, objects); err != nil {
			return err
		}
	}
	if validating, ok := plugins.(admission.ValidationInterface); ok {
		return validating.Validate(genericapirequest.WithNamespace(ctx, b.Namespace), attributes, objects)
	}
	return nil
}
