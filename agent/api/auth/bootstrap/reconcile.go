package bootstrap

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-helpers/auth/rbac/reconciliation"
)

// Reconcile adds what the cluster lacks of the default roles and bindings. The client's user must be above the escalation
// checks. It is safe to repeat, and stops at the end of ctx. Errors of single objects don't keep the others back.
func Reconcile(ctx context.Context, client kubernetes.Interface) error {
	for _, namespace := range []string{metav1.NamespaceSystem, metav1.NamespacePublic} {
		_, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("make namespace %s: %w", namespace, err)
		}
	}
	objects := Policy()
	var errs []error
	try := func(kind, name string, run func() error) {
		if err := ctx.Err(); err != nil {
			return
		}
		if err := run(); err != nil {
			errs = append(errs, fmt.Errorf("reconcile %s %s: %w", kind, name, err))
		}
	}
	rbac := client.RbacV1()
	for _, o := range objects.ClusterRoles {
		try("cluster role", o.Name, roleRun(reconciliation.ClusterRoleRuleOwner{ClusterRole: o}, reconciliation.ClusterRoleModifier{Client: rbac.ClusterRoles()}))
	}
	for _, o := range objects.ClusterRoleBindings {
		try("cluster role binding", o.Name, bindingRun(reconciliation.ClusterRoleBindingAdapter{ClusterRoleBinding: o},
			reconciliation.ClusterRoleBindingClientAdapter{Client: rbac.ClusterRoleBindings()}))
	}
	for _, o := range objects.Roles {
		try("role", o.Name, roleRun(reconciliation.RoleRuleOwner{Role: o}, reconciliation.RoleModifier{Client: rbac, NamespaceClient: client.CoreV1().Namespaces()}))
	}
	for _, o := range objects.RoleBindings {
		try("role binding", o.Name, bindingRun(reconciliation.RoleBindingAdapter{RoleBinding: o},
			reconciliation.RoleBindingClientAdapter{Client: rbac, NamespaceClient: client.CoreV1().Namespaces()}))
	}
	return errors.Join(append(errs, ctx.Err())...)
}

func roleRun(owner reconciliation.RuleOwner, client reconciliation.RuleOwnerModifier) func() error {
	return func() error {
		_, err := (&reconciliation.ReconcileRoleOptions{Role: owner, Client: client, Confirm: true}).Run()
		return err
	}
}

func bindingRun(b reconciliation.RoleBinding, client reconciliation.RoleBindingModifier) func() error {
	return func() error {
		_, err := (&reconciliation.ReconcileRoleBindingOptions{RoleBinding: b, Client: client, Confirm: true}).Run()
		return err
	}
}
