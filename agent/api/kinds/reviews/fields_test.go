package reviews

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/agent/api/kinds"
	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
)

// mirror gives as its reason what it was asked, so that rows see that each field arrives. It forbids what is secret.
func mirror(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	var said []string
	say := func(name, value string) {
		if value != "" && value != "[]" && value != "map[]" {
			said = append(said, name+"="+value)
		}
	}
	u := a.GetUser()
	say("user", u.GetName())
	say("uid", u.GetUID())
	say("groups", fmt.Sprint(u.GetGroups()))
	say("extra", fmt.Sprint(u.GetExtra()))
	say("verb", a.GetVerb())
	say("path", a.GetPath())
	say("namespace", a.GetNamespace())
	say("group", a.GetAPIGroup())
	say("version", a.GetAPIVersion())
	say("resource", a.GetResource())
	say("subresource", a.GetSubresource())
	say("name", a.GetName())
	fields, _ := a.GetFieldSelector()
	say("fields", fmt.Sprint(fields))
	labels, _ := a.GetLabelSelector()
	say("labels", fmt.Sprint(labels))
	reason := strings.Join(said, " ")
	switch a.GetResource() {
	case "secrets":
		return authorizer.DecisionDeny, reason, nil
	case "broken":
		return authorizer.DecisionNoOpinion, reason, errors.New("out of order")
	}
	return authorizer.DecisionAllow, reason, nil
}

// tokenAccess knows the token "good", has an error for "broken" and answers rules.
func tokenAccess() Access {
	check := authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		audiences, _ := authenticator.AudiencesFrom(r.Context())
		switch r.Header.Get("Authorization") {
		case "Bearer good":
			bot := &user.DefaultInfo{Name: "bot", UID: "u1", Groups: []string{"g"}, Extra: map[string][]string{"k": {"v"}}}
			return &authenticator.Response{User: bot, Audiences: audiences}, true, nil
		case "Bearer broken":
			return nil, false, errors.New("out of order")
		}
		return nil, false, nil
	})
	return Access{Authenticator: check, Audiences: authenticator.Audiences{"api"}, RuleResolver: rules{}}
}

type rules struct{}

// RulesFor implements authorizer.RuleResolver.
func (rules) RulesFor(_ context.Context, u user.Info, namespace string) ([]authorizer.ResourceRuleInfo, []authorizer.NonResourceRuleInfo, bool, error) {
	return []authorizer.ResourceRuleInfo{&authorizer.DefaultResourceRuleInfo{
			Verbs: []string{"get"}, APIGroups: []string{"apps"}, Resources: []string{"deployments"}, ResourceNames: []string{u.GetName() + "." + namespace}}},
		[]authorizer.NonResourceRuleInfo{&authorizer.DefaultNonResourceRuleInfo{Verbs: []string{"get"}, NonResourceURLs: []string{"/healthz"}}},
		true, errors.New("one webhook is away")
}

// ask runs the rows of a kind that is answered.
func ask(t *testing.T, kind, base string, rows []Row) {
	t.Helper()
	for _, r := range Resources(tokenAccess) {
		if r.GVK().Kind != kind {
			continue
		}
		storage := map[string]rest.Storage{}
		if err := r.Install(kinds.Env{Authorizer: authorizer.AuthorizerFunc(mirror)}, storage); err != nil {
			t.Fatal(err)
		}
		creater := storage[r.GVR().Resource].(rest.Creater)
		Run(t, Table{Resource: r, Base: base, Rows: rows, Answer: func(ctx context.Context, question runtime.Object) (runtime.Object, error) {
			return creater.Create(ctx, question, nil, &metav1.CreateOptions{})
		}})
		return
	}
	t.Fatalf("no kind %s", kind)
}

func TestTokenReviewFields(t *testing.T) {
	ask(t, "TokenReview", `{spec: {token: good}}`, []Row{
		{Field: "spec.token", Class: Invalid, Patch: `{spec: {token: ""}}`, Error: "BadRequest"},
		{Field: "spec.token", Class: Valid, Patch: `{spec: {token: other}}`, Want: `{status: {user: {}}}`},
		{Field: "spec.audiences", Class: Valid, Patch: `{spec: {audiences: [vault]}}`, Want: `{status: {authenticated: true, audiences: [vault]}}`},
		{Field: "status.authenticated", Class: Valid, Want: `{status: {authenticated: true}}`},
		{Field: "status.authenticated", Class: Dropped, Patch: `{spec: {token: other}, status: {authenticated: true}}`},
		{Field: "status.user.username", Class: Valid, Want: `{status: {user: {username: bot}}}`},
		{Field: "status.user.uid", Class: Valid, Want: `{status: {user: {uid: u1}}}`},
		{Field: "status.user.groups", Class: Valid, Want: `{status: {user: {groups: [g]}}}`},
		{Field: "status.user.extra", Class: Valid, Want: `{status: {user: {extra: {k: [v]}}}}`},
		{Field: "status.audiences", Class: Valid, Want: `{status: {audiences: [api]}}`},
		{Field: "status.error", Class: Valid, Patch: `{spec: {token: broken}}`, Want: `{status: {error: out of order}}`},
	})
}

func TestSelfSubjectReviewFields(t *testing.T) {
	ask(t, "SelfSubjectReview", `{}`, []Row{
		{Field: "metadata.name", Class: Dropped, Patch: `{metadata: {name: mine}}`},
		{Field: "status.userInfo.username", Class: Valid, Patch: `{status: {userInfo: {username: mallory}}}`, Want: `{status: {userInfo: {username: kindtest}}}`},
		{Field: "status.userInfo.uid", Class: Dropped, Patch: `{status: {userInfo: {uid: mine}}}`},
		{Field: "status.userInfo.groups", Class: Valid, Want: `{status: {userInfo: {groups: ["system:masters"]}}}`},
		{Field: "status.userInfo.extra", Class: Dropped, Patch: `{status: {userInfo: {extra: {k: [v]}}}}`},
	})
}

// attributeRows are the rows of what is asked about, for a question by the user that reasons begin with.
func attributeRows(asker string) []Row {
	const at = "spec.resourceAttributes."
	const selectors = `{spec: {resourceAttributes: {`
	reason := func(rest string) string { return `{status: {allowed: true, reason: "` + asker + rest + `"}}` }
	return []Row{
		{Field: "metadata.name", Class: Invalid, Patch: `{metadata: {name: mine}}`, Error: "Invalid metadata"},
		{Field: "spec.resourceAttributes", Class: Invalid, Patch: `{spec: {resourceAttributes: null}}`, Error: "Invalid spec"},
		{Field: at + "namespace", Class: Valid, Want: reason(" verb=get namespace=ns version=* resource=pods")},
		{Field: at + "verb", Class: Valid, Patch: `{spec: {resourceAttributes: {verb: list}}}`, Want: reason(" verb=list namespace=ns version=* resource=pods")},
		{Field: at + "group", Class: Valid, Patch: `{spec: {resourceAttributes: {group: apps}}}`, Want: reason(" verb=get namespace=ns group=apps version=* resource=pods")},
		{Field: at + "version", Class: Valid, Patch: `{spec: {resourceAttributes: {version: v1}}}`, Want: reason(" verb=get namespace=ns version=v1 resource=pods")},
		{Field: at + "resource", Class: Valid, Patch: `{spec: {resourceAttributes: {resource: nodes}}}`, Want: reason(" verb=get namespace=ns version=* resource=nodes")},
		{Field: at + "subresource", Class: Valid, Patch: `{spec: {resourceAttributes: {subresource: log}}}`, Want: reason(" verb=get namespace=ns version=* resource=pods subresource=log")},
		{Field: at + "name", Class: Valid, Patch: `{spec: {resourceAttributes: {name: p}}}`, Want: reason(" verb=get namespace=ns version=* resource=pods name=p")},
		{Field: at + "fieldSelector.rawSelector", Class: Valid, Patch: selectors + `fieldSelector: {rawSelector: a=b}}}}`,
			Want: reason(" verb=get namespace=ns version=* resource=pods fields=[{= a b}]")},
		{Field: at + "fieldSelector.rawSelector", Class: Invalid, Patch: selectors + `fieldSelector: {rawSelector: a=b, requirements: [{key: a, operator: In, values: [b]}]}}}}`,
			Error: "Invalid " + at + "fieldSelector.rawSelector"},
		{Field: at + "fieldSelector.requirements", Class: Invalid, Patch: selectors + `fieldSelector: {}}}}`, Error: "Required " + at + "fieldSelector.requirements"},
		{Field: at + "fieldSelector.requirements[].key", Class: Invalid, Patch: selectors + `fieldSelector: {requirements: [{key: "", operator: In, values: [b]}]}}}}`,
			Error: "Required " + at + "fieldSelector.requirements[0].key"},
		{Field: at + "fieldSelector.requirements[].operator", Class: Valid, Patch: selectors + `fieldSelector: {requirements: [{key: a, operator: NotIn, values: [b]}]}}}}`,
			Want: reason(" verb=get namespace=ns version=* resource=pods fields=[{!= a b}]")},
		{Field: at + "fieldSelector.requirements[].values", Class: Invalid, Patch: selectors + `fieldSelector: {requirements: [{key: a, operator: In}]}}}}`,
			Error: "Required " + at + "fieldSelector.requirements[0].values"},
		{Field: at + "labelSelector.rawSelector", Class: Valid, Patch: selectors + `labelSelector: {rawSelector: a=b}}}}`,
			Want: reason(" verb=get namespace=ns version=* resource=pods labels=a=b")},
		{Field: at + "labelSelector.requirements", Class: Invalid, Patch: selectors + `labelSelector: {}}}}`, Error: "Required " + at + "labelSelector.requirements"},
		{Field: at + "labelSelector.requirements[].key", Class: Invalid, Patch: selectors + `labelSelector: {requirements: [{key: "a b", operator: Exists}]}}}}`,
			Error: "Invalid " + at + "labelSelector.requirements[0].key"},
		{Field: at + "labelSelector.requirements[].operator", Class: Valid, Patch: selectors + `labelSelector: {requirements: [{key: a, operator: DoesNotExist}]}}}}`,
			Want: reason(" verb=get namespace=ns version=* resource=pods labels=!a")},
		{Field: at + "labelSelector.requirements[].values", Class: Invalid, Patch: selectors + `labelSelector: {requirements: [{key: a, operator: In}]}}}}`,
			Error: "Required " + at + "labelSelector.requirements[0].values"},
		{Field: "status.allowed", Class: Valid, Want: `{status: {allowed: true}}`},
		{Field: "status.denied", Class: Valid, Patch: `{spec: {resourceAttributes: {resource: secrets}}}`, Want: `{status: {allowed: false, denied: true}}`},
		{Field: "status.denied", Class: Dropped, Patch: `{status: {denied: true}}`},
		{Field: "status.reason", Class: Valid, Patch: `{status: {reason: mine}}`, Want: reason(" verb=get namespace=ns version=* resource=pods")},
		{Field: "status.evaluationError", Class: Valid, Patch: `{spec: {resourceAttributes: {resource: broken}}}`, Want: `{status: {evaluationError: out of order}}`},
		{Field: "status.evaluationError", Class: Valid, Patch: selectors + `fieldSelector: {rawSelector: "a=b=c=d,"}}}}`,
			Want: `{status: {evaluationError: spec.resourceAttributes.fieldSelector ignored due to parse error}}`},
	}
}

// pathRows are those of a question about a path, for kinds that may ask one.
func pathRows(asker string) []Row {
	return []Row{
		{Field: "spec.nonResourceAttributes", Class: Invalid, Patch: `{spec: {nonResourceAttributes: {path: /x}}}`, Error: "Invalid spec"},
		{Field: "spec.nonResourceAttributes.path", Class: Valid, Patch: `{spec: {resourceAttributes: null, nonResourceAttributes: {path: /x}}}`,
			Want: `{status: {reason: "` + asker + ` path=/x"}}`},
		{Field: "spec.nonResourceAttributes.verb", Class: Valid, Patch: `{spec: {resourceAttributes: null, nonResourceAttributes: {path: /x, verb: get}}}`,
			Want: `{status: {reason: "` + asker + ` verb=get path=/x"}}`},
	}
}

// subjectRows are those of who is asked about.
func subjectRows() []Row {
	const what = " verb=get namespace=ns version=* resource=pods"
	return []Row{
		{Field: "spec.user", Class: Invalid, Patch: `{spec: {user: ""}}`, Error: "Invalid spec.user"},
		{Field: "spec.groups", Class: Valid, Patch: `{spec: {user: "", groups: [g]}}`, Want: `{status: {reason: "groups=[g]` + what + `"}}`},
		{Field: "spec.extra", Class: Valid, Patch: `{spec: {extra: {k: [v]}}}`, Want: `{status: {reason: "user=alice extra=map[k:[v]]` + what + `"}}`},
		{Field: "spec.uid", Class: Valid, Patch: `{spec: {uid: u1}}`, Want: `{status: {reason: "user=alice uid=u1` + what + `"}}`},
	}
}

func TestSubjectAccessReviewFields(t *testing.T) {
	rows := append(attributeRows("user=alice"), pathRows("user=alice")...)
	ask(t, "SubjectAccessReview", `{spec: {user: alice, resourceAttributes: {namespace: ns, verb: get, resource: pods}}}`, append(rows, subjectRows()...))
}

func TestSelfSubjectAccessReviewFields(t *testing.T) {
	const asker = "user=kindtest groups=[system:masters]"
	ask(t, "SelfSubjectAccessReview", `{spec: {resourceAttributes: {namespace: ns, verb: get, resource: pods}}}`,
		append(attributeRows(asker), pathRows(asker)...))
}

func TestLocalSubjectAccessReviewFields(t *testing.T) {
	rows := append(attributeRows("user=alice"), subjectRows()...)
	rows = append(rows,
		Row{Field: "metadata.namespace", Class: Invalid, Patch: `{metadata: {namespace: other}}`, Error: "Invalid spec.resourceAttributes.namespace"},
		Row{Field: "spec.nonResourceAttributes", Class: Invalid, Patch: `{spec: {resourceAttributes: null, nonResourceAttributes: {path: /x}}}`,
			Error: "Invalid spec.nonResourceAttributes"},
		Row{Field: "spec.nonResourceAttributes.path", Class: Invalid, Patch: `{spec: {nonResourceAttributes: {path: /x}}}`,
			Error: "Invalid spec; Invalid spec.nonResourceAttributes"},
		Row{Field: "spec.nonResourceAttributes.verb", Class: Invalid, Patch: `{spec: {nonResourceAttributes: {verb: get}}}`,
			Error: "Invalid spec; Invalid spec.nonResourceAttributes"},
	)
	ask(t, "LocalSubjectAccessReview", `{metadata: {namespace: ns}, spec: {user: alice, resourceAttributes: {namespace: ns, verb: get, resource: pods}}}`, rows)
}

func TestSelfSubjectRulesReviewFields(t *testing.T) {
	ask(t, "SelfSubjectRulesReview", `{spec: {namespace: ns}}`, []Row{
		{Field: "metadata.name", Class: Dropped, Patch: `{metadata: {name: mine}}`},
		{Field: "spec.namespace", Class: Invalid, Patch: `{spec: {namespace: ""}}`, Error: "BadRequest"},
		{Field: "spec.namespace", Class: Valid, Want: `{spec: {}}`},
		{Field: "status.resourceRules[].verbs", Class: Valid, Want: `{status: {resourceRules: [{verbs: [get]}]}}`},
		{Field: "status.resourceRules[].apiGroups", Class: Valid, Want: `{status: {resourceRules: [{apiGroups: [apps]}]}}`},
		{Field: "status.resourceRules[].resources", Class: Valid, Want: `{status: {resourceRules: [{resources: [deployments]}]}}`},
		{Field: "status.resourceRules[].resourceNames", Class: Valid, Want: `{status: {resourceRules: [{resourceNames: [kindtest.ns]}]}}`},
		{Field: "status.nonResourceRules[].verbs", Class: Valid, Want: `{status: {nonResourceRules: [{verbs: [get]}]}}`},
		{Field: "status.nonResourceRules[].nonResourceURLs", Class: Valid, Want: `{status: {nonResourceRules: [{nonResourceURLs: [/healthz]}]}}`},
		{Field: "status.incomplete", Class: Valid, Patch: `{status: {incomplete: false}}`, Want: `{status: {incomplete: true}}`},
		{Field: "status.evaluationError", Class: Valid, Want: `{status: {evaluationError: one webhook is away}}`},
	})
}
