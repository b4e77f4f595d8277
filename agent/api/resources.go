package api

import (
	"slices"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/configmap"
	"github.com/podvine/podvine/agent/api/kinds/endpoints"
	"github.com/podvine/podvine/agent/api/kinds/endpointslice"
	"github.com/podvine/podvine/agent/api/kinds/event"
	"github.com/podvine/podvine/agent/api/kinds/flowcontrol"
	"github.com/podvine/podvine/agent/api/kinds/ipaddress"
	"github.com/podvine/podvine/agent/api/kinds/lease"
	"github.com/podvine/podvine/agent/api/kinds/namespace"
	"github.com/podvine/podvine/agent/api/kinds/node"
	"github.com/podvine/podvine/agent/api/kinds/pod"
	"github.com/podvine/podvine/agent/api/kinds/priorityclass"
	"github.com/podvine/podvine/agent/api/kinds/secret"
	"github.com/podvine/podvine/agent/api/kinds/service"
	"github.com/podvine/podvine/agent/api/kinds/serviceaccount"
	"github.com/podvine/podvine/agent/api/kinds/servicecidr"
)

// Resources returns every built-in kind that is served. A kind is installed by being in this list.
func Resources() []kinds.Resource {
	return slices.Concat(
		[]kinds.Resource{
			configmap.Resource(),
			endpoints.Resource(),
			endpointslice.Resource(),
			ipaddress.Resource(),
			node.Resource(),
			pod.Resource(),
			service.Resource(),
			servicecidr.Resource(),
			namespace.Resource(),
			secret.Resource(),
			serviceaccount.Resource(),
			lease.Resource(),
			priorityclass.Resource(),
			flowcontrol.Levels(),
			flowcontrol.Schemas(),
		},
		event.Resources(),
	)
}
