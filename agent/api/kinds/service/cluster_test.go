package service

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/storagebackend"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/consensus"
	"github.com/podvine/podvine/consensus/kubestore"
)

const namespace = "ns"

// cluster is the storage of services over a real replica, without a server around it.
type cluster struct {
	rest    *serviceREST
	proxy   *proxyREST
	records *records
	scheme  *runtime.Scheme
	ctx     context.Context
}

// restOptions gives every resource its storage in one backend.
type restOptions struct {
	backend *kubestore.Backend
	codecs  serializer.CodecFactory
}

func (r restOptions) GetRESTOptions(resource schema.GroupResource, _ runtime.Object) (generic.RESTOptions, error) {
	info, ok := runtime.SerializerInfoForMediaType(r.codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	if !ok {
		return generic.RESTOptions{}, fmt.Errorf("no protobuf")
	}
	version := schema.GroupVersion{Group: resource.Group, Version: "v1"}
	internal := schema.GroupVersion{Group: resource.Group, Version: runtime.APIVersionInternal}
	config := storagebackend.Config{Codec: r.codecs.CodecForVersions(info.Serializer, r.codecs.UniversalDeserializer(), version, internal)}
	return generic.RESTOptions{StorageConfig: config.ForResource(resource), Decorator: r.backend.Decorator,
		ResourcePrefix: resource.Group + "/" + resource.Resource, DeleteCollectionWorkers: 1, EnableGarbageCollection: true}, nil
}

func newCluster(t testing.TB, settings kinds.Settings) *cluster {
	t.Helper()
	replica, err := consensus.Open(t.Context(), consensus.Config{
		Dir: t.TempDir(), NodeID: "node", ClusterID: "cluster", SegmentBytes: 4 << 20, ReserveBytes: -1,
		Logger: slog.New(slog.DiscardHandler), Registerer: prometheus.NewRegistry(),
	})
	must(t, err)
	t.Cleanup(func() {
		if err := replica.Close(); err != nil {
			t.Error(err)
		}
	})
	must(t, replica.WaitReady(t.Context()))
	backend, err := kubestore.New(replica, kubestore.Options{})
	must(t, err)
	t.Cleanup(backend.Close)
	return clusterOver(t, backend, settings)
}

// clusterOver is a second server over the same store when called again.
func clusterOver(t testing.TB, backend *kubestore.Backend, settings kinds.Settings) *cluster {
	t.Helper()
	scheme, err := kinds.NewScheme([]kinds.Resource{Resource()})
	must(t, err)
	if settings.NodePortFirst == 0 {
		settings.NodePortFirst, settings.NodePortLast = 30000, 32767
	}
	env := kinds.Env{Scheme: scheme, Settings: settings, RESTOptions: restOptions{backend, serializer.NewCodecFactory(scheme)}}
	all := map[string]rest.Storage{}
	must(t, Resource().Install(env, all))
	c := &cluster{rest: all["services"].(*serviceREST), proxy: all["services/proxy"].(*proxyREST), scheme: scheme}
	c.records = c.rest.Storage.Storage.(*claiming).records
	c.ctx = genericapirequest.WithNamespace(t.Context(), namespace)
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// service is a new object as from a request: with defaults.
func (c *cluster) service(name string, change ...func(*corev1.ServiceSpec)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	for _, f := range change {
		f(&s.Spec)
	}
	c.scheme.Default(s)
	return s
}

func (c *cluster) create(s *corev1.Service, dryRun ...string) (*corev1.Service, error) {
	out, err := c.rest.Create(c.ctx, s, nil, &metav1.CreateOptions{DryRun: dryRun})
	if err != nil {
		return nil, err
	}
	return out.(*corev1.Service), nil
}

// change makes an update as from a request: on what is stored, and with defaults.
func (c *cluster) change(name string, f func(*corev1.ServiceSpec), dryRun ...string) (*corev1.Service, error) {
	info := rest.DefaultUpdatedObjectInfo(nil, func(_ context.Context, _, old runtime.Object) (runtime.Object, error) {
		s := old.DeepCopyObject().(*corev1.Service)
		f(&s.Spec)
		c.scheme.Default(s)
		return s, nil
	})
	out, _, err := c.rest.Update(c.ctx, name, info, nil, nil, false, &metav1.UpdateOptions{DryRun: dryRun})
	if err != nil {
		return nil, err
	}
	return out.(*corev1.Service), nil
}

func (c *cluster) delete(name string) error {
	_, _, err := c.rest.Delete(c.ctx, name, rest.ValidateAllObjectFunc, &metav1.DeleteOptions{})
	return err
}

// check fails unless the records are exactly what the services hold, each held by one.
func (c *cluster) check(t testing.TB) {
	t.Helper()
	if err := c.consistent(); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) consistent() error {
	list, err := c.rest.List(genericapirequest.WithNamespace(c.ctx, ""), nil)
	if err != nil {
		return err
	}
	addresses, ports := map[string]string{}, map[int32]string{}
	for _, s := range list.(*corev1.ServiceList).Items {
		for address := range addressesOf(&s) {
			if other := addresses[address]; other != "" {
				return fmt.Errorf("%s is of %s and %s", address, other, s.Name)
			}
			addresses[address] = s.Name
		}
		for port := range heldPorts(&s) {
			if other := ports[port]; other != "" {
				return fmt.Errorf("port %d is of %s and %s", port, other, s.Name)
			}
			ports[port] = s.Name
			record, live, err := c.records.portRecord(c.ctx, port)
			if err != nil {
				return err
			}
			if string(record.Data) != ownerOf(&s) {
				return fmt.Errorf("port %d of %s has the record %q (%v)", port, s.Name, record.Data, live)
			}
		}
	}
	var stored networkingv1.IPAddressList
	if err := c.records.addresses.listAll(c.ctx, &stored); err != nil {
		return err
	}
	recorded := map[string]string{}
	for _, a := range stored.Items {
		recorded[a.Name] = a.Spec.ParentRef.Name
		if a.UID == "" || a.CreationTimestamp.IsZero() {
			return fmt.Errorf("record %s has no identity", a.Name)
		}
	}
	if !maps.Equal(addresses, recorded) {
		return fmt.Errorf("services hold %v, records say %v", addresses, recorded)
	}
	return c.noStrayPorts(ports)
}

func (c *cluster) noStrayPorts(held map[int32]string) error {
	for port := int32(30000); port < 30040; port++ {
		var record corev1.RangeAllocation
		if err := c.records.ports.find(c.ctx, portName(port), &record); err != nil {
			return err
		}
		if record.Name != "" && held[port] == "" {
			return fmt.Errorf("port %d has the record %q and no service", port, record.Data)
		}
	}
	return nil
}
