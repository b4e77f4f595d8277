package reviews

import (
	"context"
	"errors"
	"net/http"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/agent/api/kinds"
)

// podReaders is an authorizer that lets alice get pods.
func podReaders(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.GetUser().GetName() == "alice" && a.GetVerb() == "get" && a.GetResource() == "pods" {
		return authorizer.DecisionAllow, "because", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

type resolver struct{}

func (resolver) RulesFor(_ context.Context, _ user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	return []authorizer.ResourceRuleInfo{&authorizer.DefaultResourceRuleInfo{Verbs: []string{"get"}, ResourceNames: []string{namespace}}}, nil, false, nil
}

func create(t *testing.T, kind string, ctx context.Context, obj runtime.Object) (runtime.Object, error) {
	t.Helper()
	checkToken := authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		audiences, _ := authenticator.AudiencesFrom(r.Context())
		if r.Header.Get("Authorization") != "Bearer good" {
			return nil, false, nil
		}
		return &authenticator.Response{User: &user.DefaultInfo{Name: "bot", Extra: map[string][]string{"k": {"v"}}}, Audiences: audiences}, true, nil
	})
	for _, r := range Resources(func() Access {
		return Access{Authenticator: checkToken, Audiences: authenticator.Audiences{"api"}, RuleResolver: resolver{}}
	}) {
		if r.GVK().Kind != kind {
			continue
		}
		storage := map[string]rest.Storage{}
		if err := r.Install(kinds.Env{Authorizer: authorizer.AuthorizerFunc(podReaders)}, storage); err != nil {
			t.Fatal(err)
		}
		return storage[r.GVR().Resource].(rest.Creater).Create(ctx, obj, nil, &metav1.CreateOptions{})
	}
	t.Fatalf("no kind %s", kind)
	return nil, nil
}

func as(name, namespace string) context.Context {
	return genericapirequest.WithNamespace(genericapirequest.WithUser(context.Background(), &user.DefaultInfo{Name: name}), namespace)
}

func TestTokenReview(t *testing.T) {
	for token, want := range map[string]bool{"good": true, "bad": false} {
		got, err := create(t, "TokenReview", as("x", ""), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token}})
		if err != nil {
			t.Fatal(err)
		}
		status := got.(*authenticationv1.TokenReview).Status
		if status.Authenticated != want || want && (status.User.Username != "bot" || status.Audiences[0] != "api") {
			t.Errorf("%s: %+v", token, status)
		}
	}
	if _, err := create(t, "TokenReview", as("x", ""), &authenticationv1.TokenReview{}); !apierrors.IsBadRequest(err) {
		t.Errorf("no token: %v", err)
	}
}

func pods(namespace string) *authorizationv1.ResourceAttributes {
	return &authorizationv1.ResourceAttributes{Verb: "get", Resource: "pods", Namespace: namespace}
}

func TestAccessReviews(t *testing.T) {
	got, err := create(t, "SubjectAccessReview", as("x", ""), &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{User: "alice", ResourceAttributes: pods("")}})
	if err != nil || !got.(*authorizationv1.SubjectAccessReview).Status.Allowed {
		t.Errorf("alice: %v %v", got, err)
	}
	got, err = create(t, "SelfSubjectAccessReview", as("bob", ""), &authorizationv1.SelfSubjectAccessReview{
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: pods("")}})
	if err != nil || got.(*authorizationv1.SelfSubjectAccessReview).Status.Allowed {
		t.Errorf("bob: %v %v", got, err)
	}
	local := &authorizationv1.LocalSubjectAccessReview{ObjectMeta: metav1.ObjectMeta{Namespace: "ns"},
		Spec: authorizationv1.SubjectAccessReviewSpec{User: "alice", ResourceAttributes: pods("ns")}}
	if got, err = create(t, "LocalSubjectAccessReview", as("x", "ns"), local); err != nil || !got.(*authorizationv1.LocalSubjectAccessReview).Status.Allowed {
		t.Errorf("alice in ns: %v %v", got, err)
	}
}

func TestInvalidQuestions(t *testing.T) {
	both := authorizationv1.SubjectAccessReviewSpec{User: "u", ResourceAttributes: pods(""), NonResourceAttributes: &authorizationv1.NonResourceAttributes{}}
	selector := authorizationv1.SubjectAccessReviewSpec{User: "u", ResourceAttributes: &authorizationv1.ResourceAttributes{
		FieldSelector: &authorizationv1.FieldSelectorAttributes{}, LabelSelector: &authorizationv1.LabelSelectorAttributes{}}}
	for name, c := range map[string]struct {
		review authorizationv1.SubjectAccessReview
		fields int
	}{
		"nothing":  {authorizationv1.SubjectAccessReview{}, 2},
		"both":     {authorizationv1.SubjectAccessReview{Spec: both}, 1},
		"selector": {authorizationv1.SubjectAccessReview{Spec: selector}, 2},
		"a name":   {authorizationv1.SubjectAccessReview{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: authorizationv1.SubjectAccessReviewSpec{User: "u", ResourceAttributes: pods("")}}, 1},
	} {
		_, err := create(t, "SubjectAccessReview", as("x", ""), &c.review)
		var status apierrors.APIStatus
		if !apierrors.IsInvalid(err) || !errors.As(err, &status) || len(status.Status().Details.Causes) != c.fields {
			t.Errorf("%s: %v, want %d errors", name, err, c.fields)
		}
	}
}

func TestSelfReviews(t *testing.T) {
	got, err := create(t, "SelfSubjectReview", as("alice", ""), &authenticationv1.SelfSubjectReview{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
	if err != nil || got.(*authenticationv1.SelfSubjectReview).Status.UserInfo.Username != "alice" || got.(*authenticationv1.SelfSubjectReview).Name != "" {
		t.Errorf("%v %v", got, err)
	}
	got, err = create(t, "SelfSubjectRulesReview", as("alice", ""), &authorizationv1.SelfSubjectRulesReview{Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "ns"}})
	if err != nil || got.(*authorizationv1.SelfSubjectRulesReview).Status.ResourceRules[0].ResourceNames[0] != "ns" {
		t.Errorf("%v %v", got, err)
	}
	if _, err = create(t, "SelfSubjectRulesReview", as("alice", ""), &authorizationv1.SelfSubjectRulesReview{}); !apierrors.IsBadRequest(err) {
		t.Errorf("no namespace: %v", err)
	}
}
