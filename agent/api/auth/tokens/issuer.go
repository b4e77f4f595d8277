package tokens

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/token/jwt"
	"k8s.io/apiserver/pkg/warning"
)

// Lifetimes of tokens, in seconds.
const (
	// DefaultExpirationSeconds is what a request without a lifetime gets.
	DefaultExpirationSeconds = 3600
	// MinExpirationSeconds is the least that may be asked for.
	MinExpirationSeconds = 600
	// MaxExpirationSeconds shortens longer requests, with a warning; signing keys are kept for longer than that.
	MaxExpirationSeconds = 365 * 24 * 3600
	// WarnOnlySeconds is the lifetime that the admission plug-in asks for in the volumes that it adds. Such tokens
	// live on to ExtendedExpirationSeconds, so that clients that never read the file again keep working.
	WarnOnlySeconds           = 3607
	ExtendedExpirationSeconds = 365 * 24 * 3600
)

// IssuerConfig says how tokens are made. All fields but Now are required.
type IssuerConfig struct {
	// Issuer is the "iss" of the tokens: https://kubernetes.default.svc.cluster.local.
	Issuer string
	// Audiences are those of the API server, the default of a request without any.
	Audiences []string
	Keys      Keys
	// Objects must be live: a token is bound to what is there now.
	Objects Objects
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Issuer makes tokens.
type Issuer struct{ config IssuerConfig }

// NewIssuer checks the configuration.
func NewIssuer(config IssuerConfig) (*Issuer, error) {
	if config.Issuer == "" || len(config.Audiences) == 0 || config.Keys == nil || config.Objects == nil {
		return nil, errors.New("make token issuer: issuer, audiences, keys and objects are needed")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	return &Issuer{config: config}, nil
}

// Validate reports what is wrong with a request, with Kubernetes' paths and texts. The lifetime must be set.
func Validate(request *authenticationv1.TokenRequest) field.ErrorList {
	var errs field.ErrorList
	path := field.NewPath("spec", "expirationSeconds")
	seconds := *request.Spec.ExpirationSeconds
	if seconds < MinExpirationSeconds {
		errs = append(errs, field.Invalid(path, seconds, "may not specify a duration less than 10 minutes"))
	}
	if seconds > 1<<32 {
		errs = append(errs, field.Invalid(path, seconds, "may not specify a duration larger than 2^32 seconds"))
	}
	return errs
}

// Issue answers a request for a token of account, which the caller has read, as the serviceaccounts/token
// sub-resource does. validate runs between the static checks and the issuing (admission); it may be nil. The request
// is changed.
func (i *Issuer) Issue(ctx context.Context, account *corev1.ServiceAccount, request *authenticationv1.TokenRequest,
	validate func(context.Context, *authenticationv1.TokenRequest) error,
) (*authenticationv1.TokenRequest, error) {
	now := i.config.Now()
	complete(request, account, i.config.Audiences, now)
	if errs := Validate(request); len(errs) > 0 {
		return nil, apierrors.NewInvalid(authenticationv1.SchemeGroupVersion.WithKind("TokenRequest").GroupKind(), "", errs)
	}
	if validate != nil {
		if err := validate(ctx, request.DeepCopy()); err != nil {
			return nil, err
		}
	}
	binding, err := i.bind(ctx, account, request.Spec.BoundObjectRef)
	if err != nil {
		return nil, err
	}
	if seconds := *request.Spec.ExpirationSeconds; seconds > MaxExpirationSeconds {
		warning.AddWarning(ctx, "", fmt.Sprintf("requested expiration of %d seconds shortened to %d seconds", seconds, MaxExpirationSeconds))
		*request.Spec.ExpirationSeconds = MaxExpirationSeconds
	}
	asked := time.Duration(*request.Spec.ExpirationSeconds) * time.Second
	lifetime, warnAfter := i.lifetime(asked, binding, request.Spec.Audiences)
	id := string(uuid.NewUUID())
	token, err := sign(i.config.Keys, newClaims(binding, i.config.Issuer, id, request.Spec.Audiences, now, lifetime, warnAfter))
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	out := request.DeepCopy()
	out.Status = authenticationv1.TokenRequestStatus{Token: token, ExpirationTimestamp: metav1.NewTime(now.Add(asked))}
	audit.AddAuditAnnotation(ctx, serviceaccount.IssuedCredentialIDAuditAnnotationKey, jwt.CredentialIDForJTI(id))
	return out, nil
}

// lifetime extends the tokens of the volumes that admission adds.
func (i *Issuer) lifetime(asked time.Duration, b Binding, audiences []string) (lifetime, warnAfter time.Duration) {
	foreign := slices.ContainsFunc(audiences, func(a string) bool { return !slices.Contains(i.config.Audiences, a) })
	if b.Pod == nil || asked != WarnOnlySeconds*time.Second || foreign {
		return asked, 0
	}
	return ExtendedExpirationSeconds * time.Second, asked
}

// complete fills what a request may leave out.
func complete(request *authenticationv1.TokenRequest, account *corev1.ServiceAccount, audiences []string, now time.Time) {
	if len(request.Spec.Audiences) == 0 {
		request.Spec.Audiences = slices.Clone(audiences)
	}
	if request.Spec.ExpirationSeconds == nil {
		seconds := int64(DefaultExpirationSeconds)
		request.Spec.ExpirationSeconds = &seconds
	}
	if request.Name == "" {
		request.Name = account.Name
	}
	if request.Namespace == "" {
		request.Namespace = account.Namespace
	}
	request.CreationTimestamp = metav1.NewTime(now)
	request.Status = authenticationv1.TokenRequestStatus{}
}

// bind looks up what the token shall be bound to.
func (i *Issuer) bind(ctx context.Context, account *corev1.ServiceAccount, ref *authenticationv1.BoundObjectReference) (Binding, error) {
	b := Binding{Account: account}
	if ref == nil {
		return b, nil
	}
	gvk := schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind)
	var uid types.UID
	var err error
	switch {
	case gvk.Group == "" && gvk.Kind == "Pod":
		uid, err = i.bindPod(ctx, &b, ref.Name)
	case gvk.Group == "" && gvk.Kind == "Node":
		if b.Node, err = i.config.Objects.Node(ctx, ref.Name); err == nil {
			uid = b.Node.UID
		}
	case gvk.Group == "" && gvk.Kind == "Secret":
		if b.Secret, err = i.config.Objects.Secret(ctx, account.Namespace, ref.Name); err == nil {
			uid = b.Secret.UID
		}
	default:
		return b, apierrors.NewBadRequest("cannot bind token to object of type " + gvk.String())
	}
	if err != nil {
		return b, err
	}
	if ref.UID != "" && ref.UID != uid {
		return b, apierrors.NewConflict(schema.GroupResource{Group: gvk.Group, Resource: gvk.Kind}, ref.Name, fmt.Errorf(
			"the UID in the bound object reference (%s) does not match the UID in record. The object might have been deleted and then recreated", ref.UID))
	}
	return b, nil
}

func (i *Issuer) bindPod(ctx context.Context, b *Binding, name string) (types.UID, error) {
	pod, err := i.config.Objects.Pod(ctx, b.Account.Namespace, name)
	if err != nil {
		return "", err
	}
	if pod.Spec.ServiceAccountName != b.Account.Name {
		return "", apierrors.NewBadRequest(fmt.Sprintf(
			"cannot bind token for serviceaccount %q to pod running with different serviceaccount name.", b.Account.Name))
	}
	b.Pod = pod
	if pod.Spec.NodeName != "" {
		node, err := i.config.Objects.Node(ctx, pod.Spec.NodeName)
		switch {
		case apierrors.IsNotFound(err): // told by name only
			node = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: pod.Spec.NodeName}}
		case err != nil:
			return "", err
		}
		b.Node = node
	}
	return pod.UID, nil
}
