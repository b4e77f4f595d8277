package rbac

import (
	"context"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
)

func rule(verb, group, resource string, names ...string) rbacv1.PolicyRule {
	return rbacv1.PolicyRule{Verbs: []string{verb}, APIGroups: []string{group}, Resources: []string{resource}, ResourceNames: names}
}

func newRules(t *testing.T) *Rules {
	t.Helper()
	named := func(name, namespace string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: name, Namespace: namespace}
	}
	factory := informers.NewSharedInformerFactory(fake.NewClientset(
		&rbacv1.ClusterRole{ObjectMeta: named("reader", ""), Rules: []rbacv1.PolicyRule{rule("get", "", "pods"), {Verbs: []string{"get"}, NonResourceURLs: []string{"/x/*"}}}},
		&rbacv1.Role{ObjectMeta: named("scaler", "ns"), Rules: []rbacv1.PolicyRule{rule("update", "apps", "*/scale"), rule("get", "", "secrets", "one")}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: named("readers", ""), RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "reader"},
			Subjects: []rbacv1.Subject{{Kind: "Group", Name: "dev"}, {Kind: "User", Name: "alice"}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: named("dangling", ""), RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "absent"},
			Subjects: []rbacv1.Subject{{Kind: "User", Name: "carol"}}},
		&rbacv1.RoleBinding{ObjectMeta: named("scalers", "ns"), RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "scaler"},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "bot"}, {Kind: "User", Name: "alice"}}},
	), 0)
	rules, err := NewRules(factory.Rbac().V1())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() { cancel(); factory.Shutdown() })
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	if !rules.HasSynced() {
		t.Fatal("not synced")
	}
	return rules
}

func TestDecisions(t *testing.T) {
	a := NewAuthorizer(newRules(t))
	get := authorizer.AttributesRecord{Verb: "get", Resource: "pods", ResourceRequest: true, Namespace: "ns"}
	scale := authorizer.AttributesRecord{Verb: "update", APIGroup: "apps", Resource: "deployments", Subresource: "scale", ResourceRequest: true, Namespace: "ns"}
	with := func(r authorizer.AttributesRecord, edit func(*authorizer.AttributesRecord)) authorizer.AttributesRecord {
		edit(&r)
		return r
	}
	alice, bot := &user.DefaultInfo{Name: "alice"}, &user.DefaultInfo{Name: "system:serviceaccount:ns:bot"}
	dev := &user.DefaultInfo{Name: "x", Groups: []string{"dev"}}
	for name, c := range map[string]struct {
		user    user.Info
		attrs   authorizer.AttributesRecord
		allowed bool
		reason  string
	}{
		"user":              {alice, get, true, `RBAC: allowed by ClusterRoleBinding "readers" of ClusterRole "reader" to User "alice"`},
		"group":             {dev, get, true, `RBAC: allowed by ClusterRoleBinding "readers" of ClusterRole "reader" to Group "dev"`},
		"account":           {bot, scale, true, `RBAC: allowed by RoleBinding "scalers/ns" of Role "scaler" to ServiceAccount "bot/ns"`},
		"other namespace":   {bot, with(scale, func(r *authorizer.AttributesRecord) { r.Namespace = "other" }), false, ""},
		"other group":       {bot, with(scale, func(r *authorizer.AttributesRecord) { r.APIGroup = "" }), false, ""},
		"other subresource": {bot, with(scale, func(r *authorizer.AttributesRecord) { r.Subresource = "status" }), false, ""},
		"no subresource":    {bot, with(scale, func(r *authorizer.AttributesRecord) { r.Subresource = "" }), false, ""},
		"other verb":        {alice, with(get, func(r *authorizer.AttributesRecord) { r.Verb = "list" }), false, ""},
		"named":             {alice, authorizer.AttributesRecord{Verb: "get", Resource: "secrets", Name: "one", Namespace: "ns", ResourceRequest: true}, true, ""},
		"other name":        {alice, authorizer.AttributesRecord{Verb: "get", Resource: "secrets", Name: "two", Namespace: "ns", ResourceRequest: true}, false, ""},
		"path":              {alice, authorizer.AttributesRecord{Verb: "get", Path: "/x/y"}, true, ""},
		"other path":        {alice, authorizer.AttributesRecord{Verb: "get", Path: "/y"}, false, ""},
		"nobody":            {&user.DefaultInfo{Name: "nobody"}, get, false, ""},
		"dangling":          {&user.DefaultInfo{Name: "carol"}, get, false, `RBAC: clusterrole.rbac.authorization.k8s.io "absent" not found`},
	} {
		c.attrs.User = c.user
		decision, reason, err := a.Authorize(context.Background(), c.attrs)
		if err != nil || (decision == authorizer.DecisionAllow) != c.allowed || decision == authorizer.DecisionDeny || c.reason != "" && reason != c.reason {
			t.Errorf("%s: %v, reason %q, error %v", name, decision, reason, err)
		}
	}
}

func TestRulesFor(t *testing.T) {
	resources, paths, incomplete, err := NewAuthorizer(newRules(t)).RulesFor(context.Background(), &user.DefaultInfo{Name: "alice", Groups: []string{"dev"}}, "ns")
	if len(resources) != 3 || len(paths) != 1 || incomplete || err != nil {
		t.Errorf("%d resource rules, %d paths, %t, %v; each binding counts once", len(resources), len(paths), incomplete, err)
	}
}

func TestConfirmNoEscalation(t *testing.T) {
	rules := newRules(t)
	ctx := genericapirequest.WithNamespace(genericapirequest.WithUser(context.Background(), &user.DefaultInfo{Name: "alice", Groups: []string{"dev"}}), "ns")
	if err := ConfirmNoEscalation(ctx, rules, []rbacv1.PolicyRule{rule("get", "", "pods", "any"), rule("update", "apps", "deployments/scale")}); err != nil {
		t.Errorf("held: %v", err)
	}
	err := ConfirmNoEscalation(ctx, rules, []rbacv1.PolicyRule{{Verbs: []string{"get", "list", "watch"}, APIGroups: []string{""}, Resources: []string{"pods"}}, rule("*", "*", "*")})
	want := "user \"alice\" (groups=[\"dev\"]) is attempting to grant RBAC permissions not currently held:\n" +
		"{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\" \"watch\"]}\n{APIGroups:[\"*\"], Resources:[\"*\"], Verbs:[\"*\"]}"
	if err == nil || err.Error() != want {
		t.Errorf("lacked: %v\nwant %s", err, want)
	}
	if err := ConfirmNoEscalation(context.Background(), rules, nil); err == nil {
		t.Error("no user: no error")
	}
}

func TestMayBindAndEscalate(t *testing.T) {
	var asked authorizer.Attributes
	yes := authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
		asked = a
		return authorizer.DecisionAllow, "", nil
	})
	no := authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
		return authorizer.DecisionNoOpinion, "", nil
	})
	as := func(groups ...string) context.Context {
		return genericapirequest.WithUser(context.Background(), &user.DefaultInfo{Name: "u", Groups: groups})
	}
	ref := rbacv1.RoleRef{Kind: "ClusterRole", Name: "r"}
	if !MayBind(as("system:masters"), no, ref, "") || !MayEscalate(as("system:masters"), no, "roles", "ns", "r") {
		t.Error("masters may")
	}
	if MayBind(as("dev"), no, ref, "") || MayEscalate(as("dev"), no, "roles", "ns", "r") || MayBind(context.Background(), yes, ref, "") {
		t.Error("others may not")
	}
	if !MayBind(as("dev"), yes, ref, "ns") || asked.GetVerb() != "bind" || asked.GetResource() != "clusterroles" || asked.GetNamespace() != "ns" {
		t.Errorf("asked for %v", asked)
	}
	if MayBind(as("dev"), yes, rbacv1.RoleRef{Kind: "Bogus", Name: "r"}, "ns") || !strings.EqualFold(asked.GetVerb(), "bind") {
		t.Error("an unknown kind of role may not be bound")
	}
}
