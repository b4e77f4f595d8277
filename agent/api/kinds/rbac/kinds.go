// Package rbac is the kinds Role, RoleBinding, ClusterRole and ClusterRoleBinding: their validation, and the checks that
// nobody grants what he does not hold. The four know each other's storage, to look up the role that a binding names;
// beyond that they hold no state.
package rbac

import (
	"context"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/agent/api/kinds"
)

// Resources returns the four kinds. held gives what resolves the rules of users; it is called for requests only, so it
// may answer late.
func Resources(held func() authorizer.RuleResolver) []kinds.Resource {
	g := &guard{held: held}
	return []kinds.Resource{roleKind(g), bindingKind(g), clusterRoleKind(g), clusterBindingKind(g)}
}

func roleKind(g *guard) kinds.Resource {
	return &kinds.Kind[*rbacv1.Role]{
		GroupVersion: rbacv1.SchemeGroupVersion,
		Kind:         "Role", Resource: "roles", Singular: "role",
		Namespaced:          true,
		AllowCreateOnUpdate: true,
		New:                 func() *rbacv1.Role { return &rbacv1.Role{} },
		NewList:             func() runtime.Object { return &rbacv1.RoleList{} },
		Validate:            func(_ context.Context, r *rbacv1.Role) field.ErrorList { return validateRole(r) },
		ValidateUpdate: func(_ context.Context, r, old *rbacv1.Role) field.ErrorList {
			return append(validateRole(r), kinds.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))...)
		},
		Extend: func(env kinds.Env, store, _ *genericregistry.Store, _ map[string]rest.Storage) error {
			g.roles, g.authorizer = store, env.Authorizer
			store.BeginCreate, store.BeginUpdate = g.createRole, g.updateRole
			return nil
		},
	}
}

func clusterRoleKind(g *guard) kinds.Resource {
	return &kinds.Kind[*rbacv1.ClusterRole]{
		GroupVersion: rbacv1.SchemeGroupVersion,
		Kind:         "ClusterRole", Resource: "clusterroles", Singular: "clusterrole",
		AllowCreateOnUpdate: true,
		New:                 func() *rbacv1.ClusterRole { return &rbacv1.ClusterRole{} },
		NewList:             func() runtime.Object { return &rbacv1.ClusterRoleList{} },
		Validate:            func(_ context.Context, r *rbacv1.ClusterRole) field.ErrorList { return validateClusterRole(r) },
		ValidateUpdate: func(_ context.Context, r, old *rbacv1.ClusterRole) field.ErrorList {
			return append(validateClusterRole(r), kinds.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))...)
		},
		Extend: func(env kinds.Env, store, _ *genericregistry.Store, _ map[string]rest.Storage) error {
			g.clusterRoles, g.authorizer = store, env.Authorizer
			store.BeginCreate, store.BeginUpdate = g.createClusterRole, g.updateClusterRole
			return nil
		},
	}
}

func bindingKind(g *guard) kinds.Resource {
	return &kinds.Kind[*rbacv1.RoleBinding]{
		GroupVersion: rbacv1.SchemeGroupVersion,
		Kind:         "RoleBinding", Resource: "rolebindings", Singular: "rolebinding",
		Namespaced:          true,
		AllowCreateOnUpdate: true,
		New:                 func() *rbacv1.RoleBinding { return &rbacv1.RoleBinding{} },
		NewList:             func() runtime.Object { return &rbacv1.RoleBindingList{} },
		Default:             func(b *rbacv1.RoleBinding) { setDefaults(&b.RoleRef, b.Subjects) },
		Validate: func(_ context.Context, b *rbacv1.RoleBinding) field.ErrorList {
			return validateBinding(namespaced(b))
		},
		ValidateUpdate: func(_ context.Context, b, old *rbacv1.RoleBinding) field.ErrorList {
			return validateBindingUpdate(namespaced(b), namespaced(old))
		},
		Columns: columns(func(b *rbacv1.RoleBinding) binding { return namespaced(b) }),
		Extend: func(env kinds.Env, store, _ *genericregistry.Store, _ map[string]rest.Storage) error {
			g.authorizer = env.Authorizer
			store.BeginCreate, store.BeginUpdate = g.createBinding, g.updateBinding
			return nil
		},
	}
}

func clusterBindingKind(g *guard) kinds.Resource {
	return &kinds.Kind[*rbacv1.ClusterRoleBinding]{
		GroupVersion: rbacv1.SchemeGroupVersion,
		Kind:         "ClusterRoleBinding", Resource: "clusterrolebindings", Singular: "clusterrolebinding",
		AllowCreateOnUpdate: true,
		New:                 func() *rbacv1.ClusterRoleBinding { return &rbacv1.ClusterRoleBinding{} },
		NewList:             func() runtime.Object { return &rbacv1.ClusterRoleBindingList{} },
		Default:             func(b *rbacv1.ClusterRoleBinding) { setDefaults(&b.RoleRef, b.Subjects) },
		Validate: func(_ context.Context, b *rbacv1.ClusterRoleBinding) field.ErrorList {
			return validateBinding(clusterWide(b))
		},
		ValidateUpdate: func(_ context.Context, b, old *rbacv1.ClusterRoleBinding) field.ErrorList {
			return validateBindingUpdate(clusterWide(b), clusterWide(old))
		},
		Columns: columns(func(b *rbacv1.ClusterRoleBinding) binding { return clusterWide(b) }),
		Extend: func(env kinds.Env, store, _ *genericregistry.Store, _ map[string]rest.Storage) error {
			g.authorizer = env.Authorizer
			store.BeginCreate, store.BeginUpdate = g.createBinding, g.updateBinding
			return nil
		},
	}
}

// setDefaults fills the API groups that may be left out.
func setDefaults(ref *rbacv1.RoleRef, subjects []rbacv1.Subject) {
	if ref.APIGroup == "" {
		ref.APIGroup = rbacv1.GroupName
	}
	for i := range subjects {
		s := &subjects[i]
		if s.APIGroup == "" && (s.Kind == rbacv1.UserKind || s.Kind == rbacv1.GroupKind) {
			s.APIGroup = rbacv1.GroupName
		}
	}
}

// columns are those of both kinds of bindings.
func columns[T kinds.Object](of func(T) binding) []kinds.Column[T] {
	list := func(name, kind string) kinds.Column[T] {
		return kinds.Column[T]{Name: name, Priority: 1, Description: name + " in the binding", Cell: func(o T) any {
			return strings.Join(subjectNames(of(o).subjects, kind), ", ")
		}}
	}
	return []kinds.Column[T]{
		kinds.NameColumn[T](),
		{Name: "Role", Description: "The role that is bound", Cell: func(o T) any {
			ref := of(o).ref
			return ref.Kind + "/" + ref.Name
		}},
		kinds.AgeColumn[T](),
		list("Users", rbacv1.UserKind), list("Groups", rbacv1.GroupKind), list("ServiceAccounts", rbacv1.ServiceAccountKind),
	}
}

func subjectNames(subjects []rbacv1.Subject, kind string) []string {
	var names []string
	for _, s := range subjects {
		switch {
		case s.Kind != kind:
		case kind == rbacv1.ServiceAccountKind:
			names = append(names, s.Namespace+"/"+s.Name)
		default:
			names = append(names, s.Name)
		}
	}
	return names
}

// validName accepts everything that can be a segment of a path.
func validName(name string, prefix bool) []string {
	if prefix {
		return path.IsValidPathSegmentPrefix(name)
	}
	return path.IsValidPathSegmentName(name)
}
