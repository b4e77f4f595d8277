package service

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/apiserver/pkg/util/dryrun"

	"github.com/podvine/podvine/agent/api/kinds"
)

// maxAttempts is how often a write is begun anew because another service took the chosen address or port meanwhile.
const maxAttempts = 16

// errLost says that a claim was lost to another service between choosing and writing.
var errLost = errors.New("address or node port was taken meanwhile")

// extend makes the store of services allocate: addresses and ports are chosen before validation, as in Kubernetes,
// and recorded with the service.
func extend(env kinds.Env, store *genericregistry.Store, storages map[string]rest.Storage) error {
	taken, err := openRecords(env)
	if err != nil {
		return err
	}
	taken.service = func(ctx context.Context, namespace, name string) (*corev1.Service, error) {
		key, err := store.KeyFunc(genericapirequest.WithNamespace(ctx, namespace), name)
		if err != nil {
			return nil, err
		}
		found := &corev1.Service{}
		if err := store.Storage.Get(ctx, key, storage.GetOptions{IgnoreNotFound: true}, found); err != nil || found.Name == "" {
			return nil, err
		}
		return found, nil
	}
	chooser := &allocator{
		view:     taken,
		families: taken.families(),
		primary:  taken.seed[0],
		ports:    portRange{first: env.Settings.NodePortFirst, last: env.Settings.NodePortLast},
		random:   rand.Uint64N,
	}
	store.BeginCreate = func(ctx context.Context, obj runtime.Object, options *metav1.CreateOptions) (genericregistry.FinishFunc, error) {
		s := obj.(*corev1.Service)
		alignClusterIPs(s, nil)
		return finishNothing, chooser.fill(ctx, s, nil, dryrun.IsDryRun(options.DryRun))
	}
	store.BeginUpdate = func(ctx context.Context, obj, old runtime.Object, options *metav1.UpdateOptions) (genericregistry.FinishFunc, error) {
		s, was := obj.(*corev1.Service), old.(*corev1.Service)
		adoptAllocated(s, was)
		alignClusterIPs(s, was)
		return finishNothing, chooser.fill(ctx, s, was, dryrun.IsDryRun(options.DryRun))
	}
	store.Storage.Storage = &claiming{Interface: store.Storage.Storage, records: taken}
	main, ok := storages["services"].(*kinds.REST)
	if !ok {
		return fmt.Errorf("extend storage of services: it is a %T", storages["services"])
	}
	storages["services"] = &serviceREST{main}
	return nil
}

func finishNothing(context.Context, bool) {}

// serviceREST begins a write anew when it lost a claim.
type serviceREST struct{ *kinds.REST }

// Create implements rest.Creater.
func (r *serviceREST) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	for attempt := 1; ; attempt++ {
		created, err := r.REST.Create(ctx, obj.DeepCopyObject(), validate, options)
		if !errors.Is(err, errLost) {
			return created, err
		}
		if attempt == maxAttempts {
			return nil, r.giveUp(obj.(*corev1.Service).Name, err)
		}
	}
}

// Update implements rest.Updater.
func (r *serviceREST) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc,
	update rest.ValidateObjectUpdateFunc, force bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	for attempt := 1; ; attempt++ {
		updated, created, err := r.REST.Update(ctx, name, info, create, update, force, options)
		if !errors.Is(err, errLost) {
			return updated, created, err
		}
		if attempt == maxAttempts {
			return nil, false, r.giveUp(name, err)
		}
	}
}

// giveUp answers a write that lost too often as a conflict, so that clients try again.
func (r *serviceREST) giveUp(name string, err error) error {
	return apierrors.NewConflict(r.DefaultQualifiedResource, name, err)
}
