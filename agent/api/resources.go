package api

import (
	"slices"

	"k8s.io/apiserver/pkg/authorization/authorizer"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/admissionregistration"
	"github.com/podvine/podvine/agent/api/kinds/autoscaler"
	"github.com/podvine/podvine/agent/api/kinds/certificates"
	"github.com/podvine/podvine/agent/api/kinds/componentstatus"
	"github.com/podvine/podvine/agent/api/kinds/configmap"
	"github.com/podvine/podvine/agent/api/kinds/controllerrevision"
	"github.com/podvine/podvine/agent/api/kinds/cronjob"
	"github.com/podvine/podvine/agent/api/kinds/daemonset"
	"github.com/podvine/podvine/agent/api/kinds/deployment"
	"github.com/podvine/podvine/agent/api/kinds/devices"
	"github.com/podvine/podvine/agent/api/kinds/endpoints"
	"github.com/podvine/podvine/agent/api/kinds/endpointslice"
	"github.com/podvine/podvine/agent/api/kinds/event"
	"github.com/podvine/podvine/agent/api/kinds/flowcontrol"
	"github.com/podvine/podvine/agent/api/kinds/ipaddress"
	"github.com/podvine/podvine/agent/api/kinds/job"
	"github.com/podvine/podvine/agent/api/kinds/lease"
	"github.com/podvine/podvine/agent/api/kinds/limitrange"
	"github.com/podvine/podvine/agent/api/kinds/namespace"
	"github.com/podvine/podvine/agent/api/kinds/networking"
	"github.com/podvine/podvine/agent/api/kinds/node"
	"github.com/podvine/podvine/agent/api/kinds/persistentvolume"
	"github.com/podvine/podvine/agent/api/kinds/persistentvolumeclaim"
	"github.com/podvine/podvine/agent/api/kinds/pod"
	"github.com/podvine/podvine/agent/api/kinds/poddisruptionbudget"
	"github.com/podvine/podvine/agent/api/kinds/podtemplate"
	"github.com/podvine/podvine/agent/api/kinds/priorityclass"
	"github.com/podvine/podvine/agent/api/kinds/rbac"
	"github.com/podvine/podvine/agent/api/kinds/replicaset"
	"github.com/podvine/podvine/agent/api/kinds/replicationcontroller"
	"github.com/podvine/podvine/agent/api/kinds/resourcequota"
	"github.com/podvine/podvine/agent/api/kinds/reviews"
	"github.com/podvine/podvine/agent/api/kinds/runtimeclass"
	"github.com/podvine/podvine/agent/api/kinds/secret"
	"github.com/podvine/podvine/agent/api/kinds/service"
	"github.com/podvine/podvine/agent/api/kinds/serviceaccount"
	"github.com/podvine/podvine/agent/api/kinds/servicecidr"
	"github.com/podvine/podvine/agent/api/kinds/statefulset"
	"github.com/podvine/podvine/agent/api/kinds/storage"
	"github.com/podvine/podvine/agent/api/kinds/storageversionmigration"
)

// Resources returns every built-in kind that is served. A kind is installed by being in this list. access returns
// what answers questions about users and their rights; it is called when requests are served.
func Resources(access func() reviews.Access) []kinds.Resource {
	disruptions := &poddisruptionbudget.Guard{}
	return slices.Concat(
		[]kinds.Resource{
			componentstatus.Resource(),
			configmap.Resource(),
			controllerrevision.Resource(),
			cronjob.Resource(),
			daemonset.Resource(),
			deployment.Resource(),
			endpoints.Resource(),
			endpointslice.Resource(),
			ipaddress.Resource(),
			job.Resource(),
			networking.IngressClasses(),
			networking.Ingresses(),
			networking.NetworkPolicies(),
			node.Resource(),
			persistentvolume.Resource(),
			persistentvolumeclaim.Resource(),
			pod.Guarded(disruptions),
			poddisruptionbudget.Resource(disruptions),
			podtemplate.Resource(),
			replicaset.Resource(),
			replicationcontroller.Resource(),
			resourcequota.Resource(),
			runtimeclass.Resource(),
			service.Resource(),
			servicecidr.Resource(),
			statefulset.Resource(),
			storageversionmigration.Resource(),
			namespace.Resource(),
			secret.Resource(),
			serviceaccount.Resource(),
			lease.Resource(),
			limitrange.Resource(),
			priorityclass.Resource(),
			flowcontrol.Levels(),
			flowcontrol.Schemas(),
		},
		admissionregistration.Resources(),
		autoscaler.Resources(),
		certificates.Resources(),
		devices.Resources(),
		event.Resources(),
		storage.Resources(),
		rbac.Resources(func() authorizer.RuleResolver { return access().RuleResolver }),
		reviews.Resources(access),
	)
}
