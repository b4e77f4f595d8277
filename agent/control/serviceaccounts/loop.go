// Package serviceaccounts keeps the default service account in every active namespace, so that pods which name
// none can be admitted.
//
// Ownership: the loop creates the account and leaves it alone from then on; whoever deletes it gets a new one.
//
// Concurrency: as [loop.Driver].
package serviceaccounts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"

	"github.com/podvine/podvine/agent/control/loop"
)

// DefaultName is the account that every namespace has.
const DefaultName = "default"

// Config wires a [Loop].
type Config struct {
	// Client acts as the service-account-controller. Required.
	Client kubernetes.Interface
	// Informers of namespaces and serviceaccounts; the caller starts them. Required.
	Informers informers.SharedInformerFactory
	// Logger is required.
	Logger *slog.Logger
	// Metrics is a registry of the loop's own; nil registers nowhere.
	Metrics prometheus.Registerer
}

// Loop makes the accounts. Make it with [New].
type Loop struct {
	cfg        Config
	driver     *loop.Driver
	namespaces corelisters.NamespaceLister
	accounts   corelisters.ServiceAccountLister
}

// New checks the configuration and asks the factory for its informers.
func New(cfg Config) (*Loop, error) {
	if cfg.Client == nil || cfg.Informers == nil || cfg.Logger == nil {
		return nil, errors.New("make service account loop: Client, Informers and Logger are required")
	}
	core := cfg.Informers.Core().V1()
	l := &Loop{cfg: cfg, namespaces: core.Namespaces().Lister(), accounts: core.ServiceAccounts().Lister()}
	metrics, err := loop.OptionalMetrics(cfg.Metrics)
	if err != nil {
		return nil, err
	}
	l.driver, err = loop.New(loop.Config{
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
		Logger:    cfg.Logger,
		Metrics:   metrics,
	})
	return l, err
}

// Run keeps the accounts until ctx ends.
func (l *Loop) Run(ctx context.Context) error { return l.driver.Run(ctx) }

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
	_, err = l.cfg.Client.CoreV1().ServiceAccounts(key).Create(ctx, account, metav1.CreateOptions{})
	if err == nil || apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, v1.NamespaceTerminatingCause) {
		return 0, nil
	}
	return 0, fmt.Errorf("create default service account: %w", err)
}

// missing decides: an active namespace lacks its account.
func missing(namespace *v1.Namespace, found error) bool {
	return namespace.Status.Phase != v1.NamespaceTerminating && namespace.DeletionTimestamp == nil && apierrors.IsNotFound(found)
}
