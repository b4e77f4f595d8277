// Package reviews is the kinds that answer questions and are never stored: TokenReview and SelfSubjectReview about who
// somebody is, SubjectAccessReview, LocalSubjectAccessReview, SelfSubjectAccessReview and SelfSubjectRulesReview about
// what he may do. They hold no state.
package reviews

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/agent/api/kinds"
)

// Access is what answers the questions, beside the authorizer that each kind is given.
type Access struct {
	// Authenticator checks the tokens of TokenReviews.
	Authenticator authenticator.Request
	// Audiences are those of the API, for TokenReviews that name none.
	Audiences authenticator.Audiences
	// RuleResolver lists the rules of users.
	RuleResolver authorizer.RuleResolver
}

// Resources returns the six kinds. access is called for requests only, so it may answer late.
func Resources(access func() Access) []kinds.Resource {
	authentication, authorization := authenticationv1.SchemeGroupVersion, authorizationv1.SchemeGroupVersion
	return []kinds.Resource{
		resource(authentication, "TokenReview", "tokenreview", false, func() *authenticationv1.TokenReview { return &authenticationv1.TokenReview{} },
			func(kinds.Env) answer[*authenticationv1.TokenReview] { return tokenAnswer(access) }),
		resource(authentication, "SelfSubjectReview", "selfsubjectreview", false, func() *authenticationv1.SelfSubjectReview { return &authenticationv1.SelfSubjectReview{} },
			func(kinds.Env) answer[*authenticationv1.SelfSubjectReview] { return selfAnswer }),
		resource(authorization, "SubjectAccessReview", "subjectaccessreview", false, func() *authorizationv1.SubjectAccessReview { return &authorizationv1.SubjectAccessReview{} },
			func(env kinds.Env) answer[*authorizationv1.SubjectAccessReview] {
				return accessAnswer(env.Authorizer)
			}),
		resource(authorization, "LocalSubjectAccessReview", "localsubjectaccessreview", true, func() *authorizationv1.LocalSubjectAccessReview { return &authorizationv1.LocalSubjectAccessReview{} },
			func(env kinds.Env) answer[*authorizationv1.LocalSubjectAccessReview] {
				return localAnswer(env.Authorizer)
			}),
		resource(authorization, "SelfSubjectAccessReview", "selfsubjectaccessreview", false, func() *authorizationv1.SelfSubjectAccessReview { return &authorizationv1.SelfSubjectAccessReview{} },
			func(env kinds.Env) answer[*authorizationv1.SelfSubjectAccessReview] {
				return selfAccessAnswer(env.Authorizer)
			}),
		resource(authorization, "SelfSubjectRulesReview", "selfsubjectrulesreview", false, func() *authorizationv1.SelfSubjectRulesReview { return &authorizationv1.SelfSubjectRulesReview{} },
			func(kinds.Env) answer[*authorizationv1.SelfSubjectRulesReview] { return rulesAnswer(access) }),
	}
}

// answer checks a question, has admission look at it, and fills in its status.
type answer[T kinds.Object] func(ctx context.Context, question T, admit func() error) error

func resource[T kinds.Object](version schema.GroupVersion, kind, singular string, namespaced bool, empty func() T, with func(kinds.Env) answer[T]) kinds.Resource {
	return &kinds.Kind[T]{
		GroupVersion: version, Kind: kind, Resource: singular + "s", Singular: singular, Namespaced: namespaced, New: empty,
		Virtual: func(env kinds.Env) (rest.Storage, error) {
			return &storage[T]{kind: kind, singular: singular, namespaced: namespaced, empty: empty, answer: with(env)}, nil
		},
	}
}

// storage answers a POST.
type storage[T kinds.Object] struct {
	kind, singular string
	namespaced     bool
	empty          func() T
	answer         answer[T]
}

var (
	_ rest.Creater              = (*storage[*authenticationv1.TokenReview])(nil)
	_ rest.Scoper               = (*storage[*authenticationv1.TokenReview])(nil)
	_ rest.SingularNameProvider = (*storage[*authenticationv1.TokenReview])(nil)
)

// New implements rest.Storage.
func (s *storage[T]) New() runtime.Object { return s.empty() }

// Destroy implements rest.Storage.
func (s *storage[T]) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (s *storage[T]) NamespaceScoped() bool { return s.namespaced }

// GetSingularName implements rest.SingularNameProvider.
func (s *storage[T]) GetSingularName() string { return s.singular }

// Create implements rest.Creater.
func (s *storage[T]) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	question, ok := obj.(T)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a %s: %#v", s.kind, obj))
	}
	admit := func() error {
		if validate == nil {
			return nil
		}
		return validate(ctx, obj.DeepCopyObject())
	}
	if err := s.answer(ctx, question, admit); err != nil {
		return nil, err
	}
	return question, nil
}

// invalid is the error of a question that makes no sense; Kubernetes names no kind in it.
func invalid(group string, errs field.ErrorList) error {
	return apierrors.NewInvalid(schema.GroupKind{Group: group}, "", errs)
}
