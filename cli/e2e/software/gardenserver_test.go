package software

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	utilcompatibility "k8s.io/apiserver/pkg/util/compatibility"
)

// garden is a role: an API server of its own, as the library recommends it but for etcd. It asks the cluster who a client is and what it
// may do, runs the cluster's admission webhooks, and keeps its objects in memory.
func garden() error {
	scheme := runtime.NewScheme()
	if err := gardenTypes(scheme); err != nil {
		return err
	}
	codecs := serializer.NewCodecFactory(scheme)
	options := genericoptions.NewRecommendedOptions("", nil)
	options.Etcd = nil
	options.SecureServing.BindPort = 8443
	options.SecureServing.ServerCert.CertKey = genericoptions.CertKey{CertFile: "/certificates/tls.crt", KeyFile: "/certificates/tls.key"}
	if err := errors.Join(options.Validate()...); err != nil {
		return err
	}
	config := genericapiserver.NewRecommendedConfig(codecs)
	config.EffectiveVersion = utilcompatibility.DefaultBuildEffectiveVersion()
	namer := openapi.NewDefinitionNamer(scheme)
	config.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(gardenDefinitions, namer)
	config.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(gardenDefinitions, namer)
	config.OpenAPIConfig.Info.Title, config.OpenAPIV3Config.Info.Title = "Garden", "Garden"
	if err := options.ApplyTo(config); err != nil {
		return err
	}
	server, err := config.Complete().New("garden", genericapiserver.NewEmptyDelegate())
	if err != nil {
		return err
	}
	storage := newPlants()
	storage.startedAt(time.Now())
	group := genericapiserver.NewDefaultAPIGroupInfo(gardenVersion.Group, scheme, metav1.ParameterCodec, codecs)
	group.VersionedResourcesStorageMap[gardenVersion.Version] = map[string]rest.Storage{"plants": storage}
	if err := server.InstallAPIGroup(&group); err != nil {
		return err
	}
	server.AddPostStartHookOrDie("start-informers", func(hook genericapiserver.PostStartHookContext) error {
		config.SharedInformerFactory.Start(hook.Done())
		return nil
	})
	return server.PrepareRun().RunWithContext(genericapiserver.SetupSignalContext())
}

// ask is a role: it asks the server for an address as nobody, without looking at its certificate, and prints the status.
func ask() error {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, Timeout: 10 * time.Second}
	request, err := http.NewRequest(http.MethodGet, os.Args[2], nil)
	if err != nil {
		return err
	}
	// A client that is not the front proxy cannot say who it is.
	request.Header.Set("X-Remote-User", "admin")
	request.Header.Set("X-Remote-Group", "system:masters")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	fmt.Println(response.Status)
	return response.Body.Close()
}
