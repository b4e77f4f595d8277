package bootstrap

import (
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Resources that several roles name.
const (
	podStreams  = "pods/attach pods/exec pods/portforward pods/proxy"
	approval    = "system:certificates.k8s.io:"
	certificate = "certificates.k8s.io"
	devices     = "resource.k8s.io"
)

func clusterRoles() []role {
	return append([]role{
		{name: "admin", from: "admin"},
		{name: "edit", from: "edit", into: "admin"},
		{name: "view", from: "view", into: "edit"},
		{name: "cluster-admin", rules: rules(may("*", "*", "*"), rbacv1.PolicyRule{Verbs: []string{"*"}, NonResourceURLs: []string{"*"}})},
		{name: "system:aggregate-to-admin", into: "admin", rules: rules(
			may("create", "authorization.k8s.io", "localsubjectaccessreviews"),
			may(readWrite, "rbac.authorization.k8s.io", "roles rolebindings"),
		)},
		{name: "system:aggregate-to-edit", into: "edit", rules: editRules()},
		{name: "system:aggregate-to-view", into: "view", rules: viewRules()},
		{name: "system:auth-delegator", rules: reviewRules("subjectaccessreviews")},
		{name: "system:basic-user", rules: rules(
			may("create", "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
			may("create", "authentication.k8s.io", "selfsubjectreviews"),
		)},
		{name: "system:cluster-trust-bundle-discovery", rules: rules(may(read, certificate, "clustertrustbundles"))},
		{name: "system:discovery", rules: rules(mayGet("/livez /readyz /healthz /version /version/ /openapi /openapi/* /api /api/* /apis /apis/*"))},
		{name: "system:heapster", rules: rules(may(read, core, "events pods nodes namespaces"), may(read, "extensions", "deployments"))},
		{name: "system:kube-aggregator", rules: rules(may(read, core, "services endpoints"))},
		{name: "system:kube-controller-manager", rules: controllerManagerRules()},
		{name: "system:kube-dns", rules: rules(may("list watch", core, "endpoints services"))},
		{name: "system:kube-scheduler", rules: schedulerRules()},
		{name: "system:kubelet-api-admin", rules: rules(
			may(read, core, "nodes"), may("proxy", core, "nodes"),
			may("*", core, "nodes/log nodes/metrics nodes/proxy nodes/stats"), may("*", core, "nodes/configz nodes/healthz nodes/pods"),
		)},
		{name: "system:monitoring", rules: rules(mayGet("/healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*"), mayGet("/flagz"), mayGet("/statusz"))},
		{name: "system:node", rules: nodeRules()},
		{name: "system:node-bootstrapper", rules: rules(may("create get list watch", certificate, "certificatesigningrequests"))},
		{name: "system:node-problem-detector", rules: rules(may("get", core, "nodes"), may("patch", core, "nodes/status"), events())},
		{name: "system:node-proxier", rules: rules(
			may("list watch", core, "services endpoints"), may(read, core, "nodes"), events(),
			may("list watch", "discovery.k8s.io", "endpointslices"), may("list watch", "networking.k8s.io", "servicecidrs"),
		)},
		{name: "system:persistent-volume-provisioner", rules: rules(
			may(read+" create delete", core, "persistentvolumes"), may(read+" update", core, "persistentvolumeclaims"),
			may(read, "storage.k8s.io", "storageclasses"), may("watch", core, "events"), events(),
		)},
		{name: "system:public-info-viewer", rules: rules(mayGet("/livez /readyz /healthz /version /version/"))},
		{name: "system:service-account-issuer-discovery", rules: rules(mayGet("/.well-known/openid-configuration /openid/v1/jwks"))},
		{name: "system:volume-scheduler", rules: rules(
			may(read+" patch update", core, "persistentvolumes"), may(read, "storage.k8s.io", "storageclasses"),
			may(read+" patch update", core, "persistentvolumeclaims"),
		)},
	}, approverRoles()...)
}

// approverRoles let others approve and ask for certificates.
func approverRoles() []role {
	approver := func(name, signer string) role {
		return role{name: approval + name, rules: rules(may("approve", certificate, "signers", signer))}
	}
	return []role{
		{name: approval + "certificatesigningrequests:nodeclient", rules: rules(may("create", certificate, "certificatesigningrequests/nodeclient"))},
		{name: approval + "certificatesigningrequests:selfnodeclient", rules: rules(may("create", certificate, "certificatesigningrequests/selfnodeclient"))},
		approver("kube-apiserver-client-approver", "kubernetes.io/kube-apiserver-client"),
		approver("kube-apiserver-client-kubelet-approver", "kubernetes.io/kube-apiserver-client-kubelet"),
		approver("kubelet-serving-approver", "kubernetes.io/kubelet-serving"),
		approver("legacy-unknown-approver", "kubernetes.io/legacy-unknown"),
	}
}

func reviewRules(access string) []rbacv1.PolicyRule {
	return rules(may("create", "authentication.k8s.io", "tokenreviews"), may("create", "authorization.k8s.io", access))
}

func editRules() []rbacv1.PolicyRule {
	return rules(
		may(read, core, podStreams+" secrets services/proxy"),
		may("impersonate", core, "serviceaccounts"),
		may(write, core, "pods "+podStreams),
		may("create", core, "pods/eviction"),
		may(write, core, "replicationcontrollers replicationcontrollers/scale serviceaccounts services services/proxy persistentvolumeclaims configmaps secrets"),
		may(write, "core events.k8s.io", "events"),
		may("create", core, "serviceaccounts/token"),
		may(write, "apps", "statefulsets statefulsets/scale daemonsets deployments deployments/scale deployments/rollback replicasets replicasets/scale"),
		may(write, "autoscaling", "horizontalpodautoscalers"),
		may(write, "batch", "jobs cronjobs"),
		may(write, "extensions", "daemonsets deployments deployments/scale deployments/rollback ingresses replicasets replicasets/scale replicationcontrollers/scale networkpolicies"),
		may(write, "policy", "poddisruptionbudgets"),
		may(write, "networking.k8s.io", "networkpolicies ingresses"),
		may(readWrite, "coordination.k8s.io", "leases"),
		may(write, devices, "resourceclaims resourceclaimtemplates"),
	)
}

func viewRules() []rbacv1.PolicyRule {
	return rules(
		may(read, core, "pods replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status endpoints persistentvolumeclaims persistentvolumeclaims/status configmaps"),
		may(read, core, "limitranges resourcequotas bindings pods/status resourcequotas/status namespaces/status replicationcontrollers/status pods/log"),
		may(read, core, "namespaces"),
		may(read, "core events.k8s.io", "events"),
		may(read, "discovery.k8s.io", "endpointslices"),
		may(read, "apps", "controllerrevisions statefulsets statefulsets/status statefulsets/scale daemonsets daemonsets/status deployments deployments/status deployments/scale replicasets replicasets/status replicasets/scale"),
		may(read, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
		may(read, "batch", "jobs cronjobs cronjobs/status jobs/status"),
		may(read, "extensions", "daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status replicasets replicasets/scale replicasets/status replicationcontrollers/scale networkpolicies"),
		may(read, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
		may(read, "networking.k8s.io", "networkpolicies ingresses ingresses/status"),
		may(read, devices, "resourceclaims resourceclaims/status resourceclaimtemplates"),
	)
}

func controllerManagerRules() []rbacv1.PolicyRule {
	return append(rules(
		events(),
		may("create", "coordination.k8s.io", "leases"),
		may(read+" update", "coordination.k8s.io", "leases", "kube-controller-manager"),
		may("create", core, "secrets serviceaccounts"),
		may("delete", core, "secrets"),
		may("get", core, "namespaces secrets serviceaccounts configmaps"),
		may("update", core, "secrets serviceaccounts"),
	), append(reviewRules("subjectaccessreviews"),
		may("list watch", "*", "*"),
		may("create", core, "serviceaccounts/token"),
	)...)
}

func schedulerRules() []rbacv1.PolicyRule {
	return append(rules(
		events(),
		may("create", "coordination.k8s.io", "leases"),
		may(read+" update", "coordination.k8s.io", "leases", "kube-scheduler"),
		may(readWrite, "coordination.k8s.io", "leasecandidates"),
		may(read, core, "nodes"),
		may(read+" delete", core, "pods"),
		may("create", core, "pods/binding bindings"),
		may("patch update", core, "pods/status"),
		may(read, core, "services replicationcontrollers"),
		may(read, workloads, "replicasets"),
		may(read, "apps", "statefulsets"),
		may(read, "policy", "poddisruptionbudgets"),
		may(read, core, "persistentvolumeclaims persistentvolumes"),
	), append(reviewRules("subjectaccessreviews"),
		may(read, "storage.k8s.io", "csinodes"),
		may(read, "storage.k8s.io", "volumeattachments"),
		may(read, core, "namespaces"),
		may(read, "storage.k8s.io", "csidrivers"),
		may(read, "storage.k8s.io", "csistoragecapacities"),
		may(read, devices, "deviceclasses"),
		may(read+" patch update", devices, "resourceclaims"),
		may(read+" patch update", devices, "resourceclaims/status"),
		may("update", core, "pods/finalizers"),
		may(read, devices, "resourceslices"),
		may("create delete", devices, "resourceclaims"),
		may(read, devices, "devicetaintrules"),
		may("patch update", devices, "resourceclaims/binding"),
	)...)
}

func nodeRules() []rbacv1.PolicyRule {
	return append(reviewRules("subjectaccessreviews localsubjectaccessreviews"),
		may(read, core, "services"),
		may("create "+read, core, "nodes"),
		may("update patch", core, "nodes/status"),
		may("update patch", core, "nodes"),
		may("create update patch", core, "events"),
		may(read, core, "pods"),
		may("create delete", core, "pods"),
		may("update patch", core, "pods/status"),
		may("create", core, "pods/eviction"),
		may(read, core, "secrets configmaps"),
		may("get", core, "persistentvolumeclaims persistentvolumes"),
		may("get", core, "endpoints"),
		may("create "+read, certificate, "certificatesigningrequests"),
		may("get create update patch delete", "coordination.k8s.io", "leases"),
		may("get", "storage.k8s.io", "volumeattachments"),
		may("create", core, "serviceaccounts/token"),
		may("get update patch", core, "persistentvolumeclaims/status"),
		may(read, "storage.k8s.io", "csidrivers"),
		may("get create update patch delete", "storage.k8s.io", "csinodes"),
		may(read, "node.k8s.io", "runtimeclasses"),
		may("get", devices, "resourceclaims"),
		may("deletecollection", devices, "resourceslices"),
		may(read, certificate, "clustertrustbundles"),
		may("get", core, "serviceaccounts"),
		may("create "+read, certificate, "podcertificaterequests"),
	)
}

func clusterBindings() []binding {
	return []binding{
		{name: "cluster-admin", subjects: []string{"group system:masters"}},
		{name: "system:monitoring", subjects: []string{"group system:monitoring"}},
		{name: "system:discovery", subjects: []string{"group system:authenticated"}},
		{name: "system:basic-user", subjects: []string{"group system:authenticated"}},
		{name: "system:public-info-viewer", subjects: []string{"group system:authenticated", "group system:unauthenticated"}},
		{name: "system:node-proxier", subjects: []string{"user system:kube-proxy"}},
		{name: "system:kube-controller-manager", subjects: []string{"user system:kube-controller-manager"}},
		{name: "system:kube-dns", subjects: []string{"account kube-system/kube-dns"}},
		{name: "system:kube-scheduler", subjects: []string{"user system:kube-scheduler"}},
		{name: "system:volume-scheduler", subjects: []string{"user system:kube-scheduler"}},
		{name: "system:node"},
		{name: "system:service-account-issuer-discovery", subjects: []string{"group system:serviceaccounts"}},
		{name: "system:cluster-trust-bundle-discovery", subjects: []string{"group system:serviceaccounts"}},
	}
}

func namespaceRoles(namespace string) []role {
	if namespace == metav1.NamespacePublic {
		return []role{{name: "system:controller:bootstrap-signer", rules: rules(
			may(read, core, "configmaps"), may("update", core, "configmaps", "cluster-info"), events())}}
	}
	locking := func() []rbacv1.PolicyRule {
		return rules(may(read+" create update", "coordination.k8s.io", "leases"), may(read+" create update", "coordination.k8s.io", "leasecandidates"))
	}
	return []role{
		{name: "podvine:settings-reader", rules: rules(may(read, core, "configmaps", "podvine-settings", "podvine-images"))},
		{name: "extension-apiserver-authentication-reader", rules: rules(may(read, core, "configmaps", "extension-apiserver-authentication"))},
		{name: "system:controller:bootstrap-signer", rules: rules(may(read, core, "secrets"))},
		{name: "system:controller:cloud-provider", rules: rules(may("create "+read, core, "configmaps"))},
		{name: "system:controller:token-cleaner", rules: rules(may(read+" delete", core, "secrets"), events())},
		{name: "system::leader-locking-kube-controller-manager", rules: locking()},
		{name: "system::leader-locking-kube-scheduler", rules: locking()},
	}
}

func namespaceBindings(namespace string) []binding {
	if namespace == metav1.NamespacePublic {
		return []binding{{name: "system:controller:bootstrap-signer", subjects: []string{"account kube-system/bootstrap-signer"}}}
	}
	return []binding{
		// Every node, also one without a replica, keeps a copy of the cluster's settings and of the list of imported images.
		{name: "podvine:settings-reader", subjects: []string{"group system:nodes"}},
		{name: "system::extension-apiserver-authentication-reader", ref: "extension-apiserver-authentication-reader",
			subjects: []string{"user system:kube-controller-manager", "user system:kube-scheduler"}},
		{name: "system::leader-locking-kube-controller-manager",
			subjects: []string{"user system:kube-controller-manager", "account kube-system/kube-controller-manager", "account kube-system/leader-election-controller"}},
		{name: "system::leader-locking-kube-scheduler", subjects: []string{"user system:kube-scheduler", "account kube-system/kube-scheduler"}},
		{name: "system:controller:bootstrap-signer", subjects: []string{"account kube-system/bootstrap-signer"}},
		{name: "system:controller:cloud-provider", subjects: []string{"account kube-system/cloud-provider"}},
		{name: "system:controller:token-cleaner", subjects: []string{"account kube-system/token-cleaner"}},
	}
}

// ownRoles are Podvine's own: the loop that fills nodes which have just joined may have pods go as their budgets allow.
func ownRoles() []role {
	return []role{{name: "podvine:rebalancer", rules: rules(may("create", core, "pods/eviction"), events())}}
}

// ownBindings are Podvine's own: the API may use all of the nodes' kubelet API, and every node proxies services.
func ownBindings() []binding {
	return []binding{
		{name: "podvine:kubelet-api", ref: "system:kubelet-api-admin", subjects: []string{"group podvine:kubelet-api"}},
		{name: "podvine:rebalancer", ref: "podvine:rebalancer", subjects: []string{"account kube-system/podvine-rebalancer"}},
		{name: "podvine:node-proxier", ref: "system:node-proxier", subjects: []string{"group system:nodes"}},
	}
}
