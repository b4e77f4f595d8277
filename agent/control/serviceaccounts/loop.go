// Package serviceaccounts keeps the default service account in every active namespace, so that pods which name
// none can be admitted.
//
// Ownership: the loop creates the account and leaves it alone from then on; whoever deletes it gets a new one.
//
// Concurrency: as [loop.Driver].
package serviceaccounts

import (
	"context"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/podvine/podvine/agent/control/loop"
)

// DefaultName is the account that every namespace has.
const DefaultName = "default"

// Loop makes the accounts. Make it with [New].
type Loop struct {
	loop.Controller
	namespaces corelisters.NamespaceLister
	accounts   corelisters.ServiceAccountLister
}

// New makes the loop. Its client acts as the service-account-controller.
func New(w loop.Wiring) (*Loop, error) {
	if err := w.Check("service account"); err != nil {
		return nil, err
	}
	core := w.Informers.Core().V1()
	l := &Loop{Controller: loop.NewController(w, ""), namespaces: core.Namespaces().Lister(), accounts: core.ServiceAccounts().Lister()}
	return l, l.Drive(loop.Config{
		Name: "serviceaccount",
		Sources: []loop.Source{
			loop.OnKey(core.Namespaces().Informer()),
			loop.On(core.ServiceAccounts().Informer(), func(old, new *v1.ServiceAccount) []string {
				if new == nil && old.Name == DefaultName {
					return []string{old.Namespace}
				}
				return nil
			}),
		},
		All:       core.Namespaces().Informer().GetIndexer().ListKeys,
		Reconcile: l.reconcile,
	})
}

func (l *Loop) reconcile(ctx context.Context, key string) (time.Duration, error) {
	namespace, err := l.namespaces.Get(key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	_, err = l.accounts.ServiceAccounts(key).Get(DefaultName)
	if !missing(namespace, err) {
		return 0, nil
	}
	account := &v1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: key, Name: DefaultName}}
	_, err = l.Client.CoreV1().ServiceAccounts(key).Create(ctx, account, metav1.CreateOptions{})
	if err == nil || apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause) {
		return 0, nil
	}
	return 0, fmt.Errorf("create default service account: %w", err)
}

// missing decides: an active namespace lacks its account.
func missing(namespace *v1.Namespace, found error) bool {
	return namespace.Status.Phase != v1.NamespaceTerminating && namespace.DeletionTimestamp == nil && apierrors.IsNotFound(found)
}
