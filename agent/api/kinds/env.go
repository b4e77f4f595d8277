package kinds

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/registry/generic"
)

// Env is what the server gives to every kind that it installs.
type Env struct {
	Scheme      *runtime.Scheme
	RESTOptions generic.RESTOptionsGetter
	// Authorizer decides for the review kinds, and for the escalation checks of the RBAC kinds.
	Authorizer authorizer.Authorizer
	// Settings are the cluster settings that validation and allocation need.
	Settings Settings
}

// Settings are the cluster settings that kinds depend on; they never change while the server runs.
type Settings struct {
	// ServiceRanges are the CIDRs that seed the default ServiceCIDR, primary family first.
	ServiceRanges []string
	// NodePortFirst and NodePortLast bound allocated and requested node ports, both inclusive (30000, 32767).
	NodePortFirst, NodePortLast int32
	// ClusterDomain is the DNS domain of services ("cluster.local").
	ClusterDomain string
}
