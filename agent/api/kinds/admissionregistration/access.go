package admissionregistration

import (
	"context"
	"errors"
	"fmt"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"

	"github.com/podvine/podvine/agent/api/auth/rbac"
)

// everything stands for what is not known: who may read all may read that.
const everything = "*"

// access refuses a policy or binding whose author may not read the parameters, because a policy's answers tell what they
// hold. It is set while the kinds are installed and only read afterwards; before, it refuses nothing.
type access struct {
	authorizer authorizer.Authorizer
	mapper     meta.RESTMapper
	// validating and mutating return the kind of a policy's parameters, nil where the policy or they are absent.
	validating, mutating func(ctx context.Context, policy string) *admissionv1.ParamKind
}

func policyGetter(store *genericregistry.Store, kind func(runtime.Object) *admissionv1.ParamKind) func(context.Context, string) *admissionv1.ParamKind {
	return func(ctx context.Context, name string) *admissionv1.ParamKind {
		policy, err := store.Get(ctx, name, &metav1.GetOptions{})
		if err != nil {
			return nil // whoever may read everything may bind it
		}
		return kind(policy)
	}
}

// toKind refuses a policy whose author may not read every object of the kind.
func (a *access) toKind(ctx context.Context, kind *admissionv1.ParamKind) field.ErrorList {
	if kind == nil {
		return nil
	}
	if err := a.mayRead(ctx, kind, everything, everything); err != nil {
		return field.ErrorList{field.Forbidden(field.NewPath("spec", "paramKind"), err.Error())}
	}
	return nil
}

// toChangedKind is toKind for an update, which is refused only where it changes the kind.
func (a *access) toChangedKind(ctx context.Context, kind, old *admissionv1.ParamKind) field.ErrorList {
	if equality.Semantic.DeepEqual(kind, old) {
		return nil
	}
	return a.toKind(ctx, kind)
}

// toParams refuses a binding whose author may not read what it refers to.
func (a *access) toParams(ctx context.Context, policy string, ref *admissionv1.ParamRef,
	kindOf func(context.Context, string) *admissionv1.ParamKind) field.ErrorList {
	if ref == nil || kindOf == nil {
		return nil
	}
	name := ref.Name
	if name == "" {
		name = everything
	}
	namespace := ref.Namespace
	if namespace == "" {
		namespace = everything
	}
	if err := a.mayRead(ctx, kindOf(ctx, policy), namespace, name); err != nil {
		return field.ErrorList{field.Forbidden(field.NewPath("spec", "paramRef"), err.Error())}
	}
	return nil
}

// mayRead asks the authorizer; a nil kind is any.
func (a *access) mayRead(ctx context.Context, kind *admissionv1.ParamKind, namespace, name string) error {
	if a.authorizer == nil || rbac.Privileged(ctx) {
		return nil
	}
	u, ok := genericapirequest.UserFrom(ctx)
	if !ok {
		return errors.New("cannot identify the user who would read the parameters")
	}
	wanted := authorizer.AttributesRecord{User: u, Verb: "get", ResourceRequest: true, Namespace: namespace, Name: name,
		APIGroup: everything, APIVersion: everything, Resource: everything}
	if kind != nil {
		if version, err := schema.ParseGroupVersion(kind.APIVersion); err == nil {
			wanted.APIGroup, wanted.APIVersion = version.Group, version.Version
			if mapping, err := a.mapper.RESTMapping(version.WithKind(kind.Kind).GroupKind(), version.Version); err == nil {
				wanted.Resource = mapping.Resource.Resource
				if mapping.Scope.Name() == meta.RESTScopeNameRoot {
					wanted.Namespace = ""
				}
			}
		}
	}
	decision, _, err := a.authorizer.Authorize(ctx, wanted)
	if err == nil && decision != authorizer.DecisionAllow {
		err = fmt.Errorf("user %s does not have \"get\" permission on %s.%s", u.GetName(), wanted.Resource, wanted.APIGroup)
	}
	return err
}
