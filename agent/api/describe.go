package api

import (
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apiserver"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	aggregatorscheme "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"github.com/podvine/podvine/agent/api/openapi"
)

// How clients authenticate, as the OpenAPI documents say it.
const (
	bearerName        = "BearerToken"
	bearerDescription = "Bearer Token authentication"
)

// describe configures the OpenAPI documents.
func (s *Server) describe(c *genericapiserver.Config) {
	namer := openapinamer.NewDefinitionNamer(s.scheme, apiextensions.Scheme, aggregatorscheme.Scheme)
	c.OpenAPIConfig = genericapiserver.DefaultOpenAPIConfig(openapi.Definitions, namer)
	c.OpenAPIConfig.Info.Title = "Kubernetes"
	c.OpenAPIConfig.SecurityDefinitions = &spec.SecurityDefinitions{bearerName: {SecuritySchemeProps: spec.SecuritySchemeProps{
		Type: "apiKey", Name: "authorization", In: "header", Description: bearerDescription}}}
	c.OpenAPIV3Config = genericapiserver.DefaultOpenAPIV3Config(openapi.Definitions, namer)
	c.OpenAPIV3Config.Info.Title = "Kubernetes"
	c.OpenAPIV3Config.SecuritySchemes = spec3.SecuritySchemes{bearerName: {SecuritySchemeProps: spec3.SecuritySchemeProps{
		Type: "apiKey", Name: "authorization", In: "header", Description: bearerDescription}}}
}
