package control

import (
	"k8s.io/client-go/kubernetes"
	discoveryv1 "k8s.io/client-go/kubernetes/typed/discovery/v1"
)

// Names of the identities that the loops act as. All but two are service accounts in kube-system, whose rights
// Kubernetes' bootstrap roles (system:controller:…) give; see [User].
const (
	NameScheduler        = "kube-scheduler"
	NameAPIServer        = "kube-apiserver"
	NameDeployment       = "deployment-controller"
	NameReplicaSet       = "replicaset-controller"
	NameStatefulSet      = "statefulset-controller"
	NameClaimProtection  = "pvc-protection-controller"
	NameVolumeProtection = "pv-protection-controller"
	NameClassProtection  = "volumeattributesclass-protection-controller"
	NameDaemonSet        = "daemon-set-controller"
	NameJob              = "job-controller"
	NameCronJob          = "cronjob-controller"
	NameJobExpiry        = "ttl-after-finished-controller"
	NameDisruption       = "disruption-controller"
	NameReplication      = "replication-controller"
	NameNamespace        = "namespace-controller"
	NameServiceAccount   = "service-account-controller"
	NamePolicyStatus     = "validatingadmissionpolicy-status-controller"
	NameCertificates     = "certificate-controller"
	NamePodCertificates  = "podcertificaterequestcleaner"
	NameQuota            = "resourcequota-controller"
	NameRootCA           = "root-ca-cert-publisher"
	NameNode             = "node-controller"
	NamePodCollector     = "pod-garbage-collector"
	NameGarbageCollector = "generic-garbage-collector"
	NameEndpoints        = "endpoint-controller"
	NameEndpointSlices   = "endpointslice-controller"
	// NameRebalancer is Podvine's own.
	NameRebalancer = "podvine-rebalancer"
)

// User is the user name and the groups that an identity acts under.
func User(name string) (user string, groups []string) {
	switch name {
	case NameScheduler:
		return "system:kube-scheduler", []string{"system:authenticated"}
	case NameAPIServer: // the repair of address records is part of the API server in Kubernetes
		return "system:apiserver", []string{"system:masters", "system:authenticated"}
	}
	return "system:serviceaccount:kube-system:" + name,
		[]string{"system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"}
}

// slicesAs is a client that writes endpoint slices under another identity than the rest, for the loop that
// keeps both endpoints and slices: in Kubernetes these are two, each with a role of its own.
type slicesAs struct {
	kubernetes.Interface
	slices kubernetes.Interface
}

// DiscoveryV1 is the other identity's.
func (c slicesAs) DiscoveryV1() discoveryv1.DiscoveryV1Interface { return c.slices.DiscoveryV1() }
