package reviews

import (
	"context"
	"errors"
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
)

func tokenAnswer(access func() Access) answer[*authenticationv1.TokenReview] {
	return func(_ context.Context, r *authenticationv1.TokenReview, admit func() error) error {
		if r.Spec.Token == "" {
			return apierrors.NewBadRequest("token is required for TokenReview in authentication")
		}
		if err := admit(); err != nil {
			return err
		}
		a := access()
		if a.Authenticator == nil {
			return nil
		}
		audiences := authenticator.Audiences(r.Spec.Audiences)
		if len(audiences) == 0 {
			audiences = a.Audiences
		}
		// A request with nothing but the token, in a context of its own: not that of who asks.
		request := (&http.Request{Header: http.Header{"Authorization": {"Bearer " + r.Spec.Token}}}).WithContext(
			authenticator.WithAudiences(context.Background(), audiences))
		found, ok, err := a.Authenticator.AuthenticateRequest(request)
		r.Status = authenticationv1.TokenReviewStatus{Authenticated: ok}
		if err != nil {
			r.Status.Error = err.Error()
		}
		if found == nil {
			return nil
		}
		if len(audiences) > 0 && len(audiences.Intersect(found.Audiences)) == 0 {
			return apierrors.NewInternalError(errors.New("error validating audiences"))
		}
		if found.User != nil {
			r.Status.User = userInfo(found.User)
		}
		r.Status.Audiences = found.Audiences
		return nil
	}
}

func selfAnswer(ctx context.Context, r *authenticationv1.SelfSubjectReview, admit func() error) error {
	u, ok := genericapirequest.UserFrom(ctx)
	if !ok {
		return apierrors.NewBadRequest("no user present on request")
	}
	if err := admit(); err != nil {
		return err
	}
	// Nothing of the question comes back.
	*r = authenticationv1.SelfSubjectReview{
		ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.Now()},
		Status:     authenticationv1.SelfSubjectReviewStatus{UserInfo: userInfo(u)},
	}
	return nil
}

func userInfo(u user.Info) authenticationv1.UserInfo {
	info := authenticationv1.UserInfo{Username: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups()}
	for k, v := range u.GetExtra() {
		if info.Extra == nil {
			info.Extra = map[string]authenticationv1.ExtraValue{}
		}
		info.Extra[k] = v
	}
	return info
}
