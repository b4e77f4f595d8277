package api

import (
	"reflect"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/informers/admissionregistration"
	"k8s.io/client-go/informers/apps"
	"k8s.io/client-go/informers/batch"
	"k8s.io/client-go/informers/certificates"
	"k8s.io/client-go/informers/coordination"
	"k8s.io/client-go/informers/core"
	"k8s.io/client-go/informers/discovery"
	"k8s.io/client-go/informers/flowcontrol"
	"k8s.io/client-go/informers/internalinterfaces"
	"k8s.io/client-go/informers/networking"
	"k8s.io/client-go/informers/node"
	"k8s.io/client-go/informers/policy"
	"k8s.io/client-go/informers/rbac"
	"k8s.io/client-go/informers/scheduling"
	"k8s.io/client-go/informers/storage"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/agent/api/kinds"
)

// ListerWatcher returns what an informer of a stored resource reads. It may be called, and its result used, before the
// resource has a storage: calls fail until then, and informers try again.
type ListerWatcher func(schema.GroupResource) cache.ListerWatcher

// directInformers is a factory whose informers for stored kinds read the storage itself: no HTTP, no encoding, and
// the same decoded objects as everyone else's. Kinds that are not stored here are read through the client.
type directInformers struct {
	informers.SharedInformerFactory
	stored ListerWatcher
	// objects holds an example of each stored resource, resources the way back; both are immutable.
	objects   map[schema.GroupVersionResource]runtime.Object
	resources map[reflect.Type]schema.GroupResource
}

// newDirectInformers knows every kind whose served version is the stored one; none when there is no storage to read.
func newDirectInformers(client kubernetes.Interface, stored ListerWatcher, scheme *runtime.Scheme, resources []kinds.Resource) (*directInformers, error) {
	f := &directInformers{
		SharedInformerFactory: informers.NewSharedInformerFactory(client, 0), stored: stored,
		objects: map[schema.GroupVersionResource]runtime.Object{}, resources: map[reflect.Type]schema.GroupResource{},
	}
	if stored == nil {
		return f, nil
	}
	for _, r := range resources {
		served, err := scheme.New(r.GVK())
		if err != nil {
			return nil, err
		}
		if stored := r.NewObject(); reflect.TypeOf(stored) == reflect.TypeOf(served) {
			f.objects[r.GVR()] = stored
			f.resources[reflect.TypeOf(stored)] = r.GVR().GroupResource()
		}
	}
	return f, nil
}

// InformerFor implements informers.SharedInformerFactory.
func (f *directInformers) InformerFor(obj runtime.Object, newInformer internalinterfaces.NewInformerFunc) cache.SharedIndexInformer {
	resource, ok := f.resources[reflect.TypeOf(obj)]
	if !ok {
		return f.SharedInformerFactory.InformerFor(obj, newInformer)
	}
	return f.SharedInformerFactory.InformerFor(obj, func(_ kubernetes.Interface, resync time.Duration) cache.SharedIndexInformer {
		byNamespace := cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}
		return cache.NewSharedIndexInformer(f.stored(resource), obj, resync, byNamespace)
	})
}

// The group accessors below hand out informers that ask this factory, not the embedded one.

// Admissionregistration implements informers.SharedInformerFactory.
func (f *directInformers) Admissionregistration() admissionregistration.Interface {
	return admissionregistration.New(f, metav1.NamespaceAll, nil)
}

// Apps implements informers.SharedInformerFactory.
func (f *directInformers) Apps() apps.Interface { return apps.New(f, metav1.NamespaceAll, nil) }

// Batch implements informers.SharedInformerFactory.
func (f *directInformers) Batch() batch.Interface { return batch.New(f, metav1.NamespaceAll, nil) }

// Certificates implements informers.SharedInformerFactory.
func (f *directInformers) Certificates() certificates.Interface {
	return certificates.New(f, metav1.NamespaceAll, nil)
}

// Coordination implements informers.SharedInformerFactory.
func (f *directInformers) Coordination() coordination.Interface {
	return coordination.New(f, metav1.NamespaceAll, nil)
}

// Core implements informers.SharedInformerFactory.
func (f *directInformers) Core() core.Interface { return core.New(f, metav1.NamespaceAll, nil) }

// Discovery implements informers.SharedInformerFactory.
func (f *directInformers) Discovery() discovery.Interface {
	return discovery.New(f, metav1.NamespaceAll, nil)
}

// Flowcontrol implements informers.SharedInformerFactory.
func (f *directInformers) Flowcontrol() flowcontrol.Interface {
	return flowcontrol.New(f, metav1.NamespaceAll, nil)
}

// Networking implements informers.SharedInformerFactory.
func (f *directInformers) Networking() networking.Interface {
	return networking.New(f, metav1.NamespaceAll, nil)
}

// Node implements informers.SharedInformerFactory.
func (f *directInformers) Node() node.Interface { return node.New(f, metav1.NamespaceAll, nil) }

// Policy implements informers.SharedInformerFactory.
func (f *directInformers) Policy() policy.Interface { return policy.New(f, metav1.NamespaceAll, nil) }

// Rbac implements informers.SharedInformerFactory.
func (f *directInformers) Rbac() rbac.Interface { return rbac.New(f, metav1.NamespaceAll, nil) }

// Scheduling implements informers.SharedInformerFactory.
func (f *directInformers) Scheduling() scheduling.Interface {
	return scheduling.New(f, metav1.NamespaceAll, nil)
}

// Storage implements informers.SharedInformerFactory.
func (f *directInformers) Storage() storage.Interface {
	return storage.New(f, metav1.NamespaceAll, nil)
}

// ForResource implements informers.SharedInformerFactory.
func (f *directInformers) ForResource(resource schema.GroupVersionResource) (informers.GenericInformer, error) {
	// The embedded factory keeps informers by type: it finds the direct one when that has been made before.
	if obj, ok := f.objects[resource]; ok {
		f.InformerFor(obj, nil)
	}
	return f.SharedInformerFactory.ForResource(resource)
}
