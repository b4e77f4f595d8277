package admission

import (
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/openapi"
	"k8s.io/client-go/tools/cache"
)

// quietClient reads schemas only while there are mutating policies. The library reads their list every few seconds, for
// which the server would have to build, and keep, the documents of all groups.
type quietClient struct {
	kubernetes.Interface
	schemas *quietSchemas
}

func newQuietClient(client kubernetes.Interface, factory informers.SharedInformerFactory, ended <-chan struct{}) (*quietClient, error) {
	policies := factory.Admissionregistration().V1().MutatingAdmissionPolicies()
	lister := policies.Lister()
	s := &quietSchemas{client: client.Discovery().OpenAPIV3, changed: make(chan struct{}, 1), ended: ended, wanted: func() bool {
		all, err := lister.List(labels.Everything())
		return err == nil && len(all) > 0
	}}
	_, err := policies.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: func(any) {
		select {
		case s.changed <- struct{}{}:
		default: // a look is due already
		}
	}})
	if err != nil {
		return nil, fmt.Errorf("watch mutating policies: %w", err)
	}
	return &quietClient{client, s}, nil
}

// Discovery implements kubernetes.Interface.
func (c *quietClient) Discovery() discovery.DiscoveryInterfaces {
	return quietDiscovery{c.Interface.Discovery(), c.schemas}
}

type quietDiscovery struct {
	discovery.DiscoveryInterfaces
	schemas *quietSchemas
}

// OpenAPIV3 implements discovery.OpenAPIV3SchemaInterface.
func (d quietDiscovery) OpenAPIV3() openapi.Client { return d.schemas }

// quietSchemas has one reader.
type quietSchemas struct {
	client func() openapi.Client
	wanted func() bool
	// changed delivers after a policy has been added, ended when nobody needs schemas any more.
	changed chan struct{}
	ended   <-chan struct{}
}

// Paths implements openapi.Client. It waits until a policy needs schemas.
func (s *quietSchemas) Paths() (map[string]openapi.GroupVersion, error) {
	for !s.wanted() {
		select {
		case <-s.changed:
		case <-s.ended:
			return nil, errors.New("read schemas: the server has ended")
		}
	}
	return s.client().Paths()
}
