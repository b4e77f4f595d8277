package tokens

import (
	"context"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
)

var (
	_ rest.NamedCreater             = (*REST)(nil)
	_ rest.GroupVersionKindProvider = (*REST)(nil)
	_ rest.Storage                  = (*REST)(nil)
)

// REST is the serviceaccounts/token sub-resource.
type REST struct{ issuer *Issuer }

// NewREST serves an issuer; the service-account kind installs it as "serviceaccounts/token".
func NewREST(issuer *Issuer) *REST { return &REST{issuer: issuer} }

// New returns an empty request.
func (r *REST) New() runtime.Object { return &authenticationv1.TokenRequest{} }

// Destroy does nothing: the issuer holds no resources.
func (r *REST) Destroy() {}

// GroupVersionKind is not that of the parent.
func (r *REST) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return authenticationv1.SchemeGroupVersion.WithKind("TokenRequest")
}

// Create issues a token for the service account name.
func (r *REST) Create(ctx context.Context, name string, obj runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	request, ok := obj.(*authenticationv1.TokenRequest)
	if !ok {
		return nil, apierrors.NewBadRequest("not a TokenRequest")
	}
	namespace, ok := genericapirequest.NamespaceFrom(ctx)
	if !ok {
		return nil, apierrors.NewBadRequest("namespace is required")
	}
	kind := authenticationv1.SchemeGroupVersion.WithKind("TokenRequest").GroupKind()
	if request.Name != "" && request.Name != name {
		return nil, apierrors.NewInvalid(kind, name, field.ErrorList{
			field.Invalid(field.NewPath("metadata", "name"), request.Name, "must match the service account name if specified")})
	}
	if request.Namespace != "" && request.Namespace != namespace {
		return nil, apierrors.NewInvalid(kind, name, field.ErrorList{
			field.Invalid(field.NewPath("metadata", "namespace"), request.Namespace, "must match the service account namespace if specified")})
	}
	account, err := r.issuer.config.Objects.ServiceAccount(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	return r.issuer.Issue(ctx, account, request, func(ctx context.Context, request *authenticationv1.TokenRequest) error {
		if validate == nil {
			return nil
		}
		return validate(ctx, request)
	})
}
