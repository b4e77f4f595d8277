package api

import (
	"fmt"
	"slices"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/runtime"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	"k8s.io/kube-openapi/pkg/builder"
	"k8s.io/kube-openapi/pkg/cached"
	openapicommon "k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/common/restfuladapter"
	"k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/podvine/podvine/agent/api/openapi"
)

// Words of the OpenAPI documents.
const (
	// kindExtension lists the kinds of a definition.
	kindExtension = "x-kubernetes-group-version-kind"

	bearerName        = "BearerToken"
	bearerDescription = "Bearer Token authentication"
)

// describe configures the OpenAPI documents.
func (s *Server) describe(c *genericapiserver.Config) {
	namer := openapinamer.NewDefinitionNamer(s.scheme, apiextensions.Scheme, aggregatorscheme.Scheme)
	c.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(openapi.Definitions, namer)
	c.OpenAPIConfig.Info.Title = "Kubernetes"
	name := published(namer)
	c.OpenAPIConfig.GetDefinitionName = name
	c.OpenAPIConfig.SecurityDefinitions = &spec.SecurityDefinitions{bearerName: {SecuritySchemeProps: spec.SecuritySchemeProps{
		Type: "apiKey", Name: "authorization", In: "header", Description: bearerDescription}}}
	c.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(openapi.Definitions, namer)
	c.OpenAPIV3Config.Info.Title = "Kubernetes"
	c.OpenAPIV3Config.GetDefinitionName = name
	c.OpenAPIV3Config.SecuritySchemes = spec3.SecuritySchemes{bearerName: {SecuritySchemeProps: spec3.SecuritySchemeProps{
		Type: "apiKey", Name: "authorization", In: "header", Description: bearerDescription}}}
}

// serveOpenAPIV2 serves the core's document of version 2, which takes 12 MB and which clients of today do not read, from
// the first request on. The aggregator merges what its delegates serve when it is asked itself, so nothing reads it before.
func serveOpenAPIV2(core *genericapiserver.GenericAPIServer, config *openapicommon.Config) {
	built := cached.Once(cached.Func(func() (*spec.Swagger, string, error) {
		document, err := builder.BuildOpenAPISpecFromRoutes(restfuladapter.AdaptWebServices(core.Handler.GoRestfulContainer.RegisteredWebServices()), config)
		if err != nil {
			return nil, "", fmt.Errorf("build OpenAPI document: %w", err)
		}
		document.Definitions = handler.PruneDefaults(document.Definitions)
		return document, "built", nil // the kinds of the core never change, so neither does its document
	}))
	handler.NewOpenAPIServiceLazy(built).RegisterOpenAPIVersionedService("/openapi/v2", core.Handler.NonGoRestfulMux)
}

// published leaves the internal versions out of what a definition says about its kinds: they are the same Go types as
// the published ones, and nobody outside may know of them.
func published(namer *openapinamer.DefinitionNamer) func(string) (string, spec.Extensions) {
	return func(typeName string) (string, spec.Extensions) {
		name, extensions := namer.GetDefinitionName(typeName)
		served, ok := extensions[kindExtension].([]any)
		if !ok {
			return name, extensions
		}
		extensions[kindExtension] = slices.DeleteFunc(served, func(kind any) bool {
			fields, ok := kind.(map[string]any)
			return ok && fields["version"] == runtime.APIVersionInternal
		})
		return name, extensions
	}
}
