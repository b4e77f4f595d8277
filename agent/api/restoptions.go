package api

import (
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	flowcontrolrequest "k8s.io/apiserver/pkg/util/flowcontrol/request"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"

	"github.com/podvine/podvine/agent/api/kinds"
)

// countPeriod is how often the number of a resource's objects is read, for metrics and for the cost of lists.
const countPeriod = time.Minute

// restOptions tells the generic registry how objects of one of the three servers are stored. It is immutable.
type restOptions struct {
	decorator generic.StorageDecorator
	counts    flowcontrolrequest.StorageObjectCountTracker
	// codec returns nothing for groups that the server does not know: the registry of equivalent resources asks for those.
	codec func(schema.GroupResource) (runtime.Codec, runtime.GroupVersioner)
}

// GetRESTOptions implements generic.RESTOptionsGetter. The configuration is a new one each time, because the server of
// custom resources overwrites its codec.
func (o restOptions) GetRESTOptions(resource schema.GroupResource, _ runtime.Object) (generic.RESTOptions, error) {
	codec, versioner := o.codec(resource)
	prefix := resource.Resource
	if resource.Group != "" {
		prefix = resource.Group + "/" + resource.Resource
	}
	return generic.RESTOptions{
		StorageConfig: &storagebackend.ConfigForResource{
			Config:        storagebackend.Config{Codec: codec, EncodeVersioner: versioner},
			GroupResource: resource,
		},
		Decorator:                 o.decorator,
		EnableGarbageCollection:   true,
		DeleteCollectionWorkers:   deleteCollectionWorkers,
		ResourcePrefix:            prefix,
		CountMetricPollPeriod:     countPeriod,
		StorageObjectCountTracker: o.counts,
	}, nil
}

// nativeCodec stores the built-in kinds as protobuf, in the first version of their group that has them.
func nativeCodec(scheme *runtime.Scheme, codecs serializer.CodecFactory, resources []kinds.Resource) func(schema.GroupResource) (runtime.Codec, runtime.GroupVersioner) {
	encoder := protobuf.NewSerializer(scheme, scheme)
	return func(resource schema.GroupResource) (runtime.Codec, runtime.GroupVersioner) {
		versions := scheme.PrioritizedVersionsForGroup(resource.Group)
		if len(versions) == 0 {
			return nil, nil
		}
		version := versions[0]
		for _, r := range resources {
			if r.GVR().GroupResource() == resource && !scheme.Recognizes(version.WithKind(r.GVK().Kind)) {
				version = r.GVR().GroupVersion()
			}
		}
		internal := schema.GroupVersion{Group: resource.Group, Version: runtime.APIVersionInternal}
		return untyped{codecs.CodecForVersions(encoder, codecs.UniversalDeserializer(), version, internal)}, version
	}
}

// untyped leaves kind and apiVersion out of decoded objects, as conversion to an internal type of its own would: items
// of lists show none.
type untyped struct{ runtime.Codec }

// Decode implements runtime.Decoder.
func (c untyped) Decode(data []byte, defaults *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	obj, kind, err := c.Codec.Decode(data, defaults, into)
	if err == nil {
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	}
	return obj, kind, err
}

func definitionCodec(schema.GroupResource) (runtime.Codec, runtime.GroupVersioner) {
	return apiextensions.Codecs.LegacyCodec(apiextensionsv1.SchemeGroupVersion), apiextensionsv1.SchemeGroupVersion
}

// customCodec is a placeholder that the server of custom resources replaces with one for each definition.
func customCodec(schema.GroupResource) (runtime.Codec, runtime.GroupVersioner) {
	return runtime.NewCodec(unstructured.UnstructuredJSONScheme, unstructured.UnstructuredJSONScheme), nil
}

func serviceCodec(schema.GroupResource) (runtime.Codec, runtime.GroupVersioner) {
	return aggregatorscheme.Codecs.LegacyCodec(apiregistrationv1.SchemeGroupVersion), apiregistrationv1.SchemeGroupVersion
}
