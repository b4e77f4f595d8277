package bootstrap

// controllerRoles are the roles of the controllers, each bound to the account of its name in kube-system; the full names
// start with system:controller:.
func controllerRoles() []role {
	return append(append(workloadControllers(), clusterControllers()...), storageControllers()...)
}

func workloadControllers() []role {
	return []role{
		{name: "cronjob-controller", rules: rules(
			may(read+" update", "batch", "cronjobs"), may(read+" create delete patch update", "batch", "jobs"),
			may("update", "batch", "cronjobs/status"), may("update", "batch", "cronjobs/finalizers"),
			may("delete list watch", core, "pods"), events(),
		)},
		{name: "daemon-set-controller", rules: rules(
			may(read, workloads, "daemonsets"), may("update", workloads, "daemonsets/status"), may("update", workloads, "daemonsets/finalizers"),
			may("list watch", core, "nodes"), may("create delete list patch watch", core, "pods"), may("create", core, "pods/binding"),
			may(read+" create delete patch update", "apps", "controllerrevisions"), events(),
		)},
		{name: "deployment-controller", rules: rules(
			may(read+" update", workloads, "deployments"), may("update", workloads, "deployments/status"), may("update", workloads, "deployments/finalizers"),
			may(read+" create delete patch update", workloads, "replicasets"), may(read+" update", core, "pods"), events(),
		)},
		{name: "disruption-controller", rules: rules(
			may(read, workloads, "deployments"), may(read, workloads, "replicasets"), may(read, core, "replicationcontrollers"),
			may(read, "policy", "poddisruptionbudgets"), may(read, "apps", "statefulsets"), may("update", "policy", "poddisruptionbudgets/status"),
			may("patch update", core, "pods/status"), may("get", "*", "*/scale"), events(),
		)},
		{name: "horizontal-pod-autoscaler", rules: rules(
			may(read, "autoscaling", "horizontalpodautoscalers"), may("update", "autoscaling", "horizontalpodautoscalers/status"),
			may("get update", "*", "*/scale"), may("list watch", core, "pods"), may("list watch", "metrics.k8s.io", "pods"),
			may(read, "custom.metrics.k8s.io", "*"), may(read, "external.metrics.k8s.io", "*"), events(),
		)},
		{name: "job-controller", rules: rules(
			may(read+" patch update", "batch", "jobs"), may("update", "batch", "jobs/status"), may("update", "batch", "jobs/finalizers"),
			may("create delete list patch watch", core, "pods"), events(),
		)},
		{name: "replicaset-controller", rules: rules(
			may(read+" update", workloads, "replicasets"), may("update", workloads, "replicasets/status"), may("update", workloads, "replicasets/finalizers"),
			may("create delete list patch watch", core, "pods"), events(),
		)},
		{name: "replication-controller", rules: rules(
			may(read+" update", core, "replicationcontrollers"), may("update", core, "replicationcontrollers/status"), may("update", core, "replicationcontrollers/finalizers"),
			may("create delete list patch watch", core, "pods"), events(),
		)},
		{name: "statefulset-controller", rules: rules(
			may("list watch", core, "pods"), may(read, "apps", "statefulsets"), may("update", "apps", "statefulsets/status"), may("update", "apps", "statefulsets/finalizers"),
			may("create delete get patch update", core, "pods"), may(read+" create delete patch update", "apps", "controllerrevisions"),
			may(read+" create", core, "persistentvolumeclaims"), may("delete update", core, "persistentvolumeclaims"), may("update", core, "pods/finalizers"), events(),
		)},
		{name: "ttl-after-finished-controller", rules: rules(may(read+" delete", "batch", "jobs"), events())},
		{name: "pod-garbage-collector", rules: rules(may("delete list watch", core, "pods"), may(read, core, "nodes"), may("patch", core, "pods/status"))},
	}
}

func clusterControllers() []role {
	return []role{
		{name: "certificate-controller", rules: rules(
			may(read+" delete", certificate, "certificatesigningrequests"),
			may("update", certificate, "certificatesigningrequests/approval certificatesigningrequests/status"),
			may("approve", certificate, "signers", "kubernetes.io/kube-apiserver-client-kubelet"),
			may("sign", certificate, "signers", "kubernetes.io/kube-apiserver-client", "kubernetes.io/kube-apiserver-client-kubelet",
				"kubernetes.io/kubelet-serving", "kubernetes.io/legacy-unknown"),
			may("create", "authorization.k8s.io", "subjectaccessreviews"), events(),
		)},
		{name: "clusterrole-aggregation-controller", rules: rules(may(read+" escalate patch update", "rbac.authorization.k8s.io", "clusterroles"))},
		{name: "endpoint-controller", rules: rules(
			may(read, core, "pods services"), may(read+" create delete update", core, "endpoints"), may("create", core, "endpoints/restricted"), events(),
		)},
		{name: "endpointslice-controller", rules: rules(
			may(read, core, "nodes pods services"), may("update", core, "services/finalizers"),
			may(read+" create delete update", "discovery.k8s.io", "endpointslices"), events(),
		)},
		{name: "endpointslicemirroring-controller", rules: rules(
			may(read, core, "endpoints services"), may("update", core, "services/finalizers"), may("update", core, "endpoints/finalizers"),
			may(read+" create delete update", "discovery.k8s.io", "endpointslices"), events(),
		)},
		{name: "generic-garbage-collector", rules: rules(may(read+" delete patch update", "*", "*"), events())},
		{name: "kube-apiserver-serving-clustertrustbundle-publisher", rules: rules(
			may("attest", certificate, "signers", "kubernetes.io/kube-apiserver-serving"),
			may("create delete list update watch", certificate, "clustertrustbundles"), events(),
		)},
		{name: "legacy-service-account-token-cleaner", rules: rules(
			may("get", core, "configmaps", "kube-apiserver-legacy-service-account-token-tracking"), may("delete patch", core, "secrets"),
		)},
		{name: "namespace-controller", rules: rules(
			may(read+" delete", core, "namespaces"), may("update", core, "namespaces/finalize namespaces/status"),
			may(read+" delete deletecollection", "*", "*"),
		)},
		{name: "node-controller", rules: rules(
			may(read+" delete patch update", core, "nodes"), may("patch update", core, "nodes/status"), may("patch update", core, "pods/status"),
			may(read+" delete", core, "pods"), may(read, "coordination.k8s.io", "leases"), events(),
		)},
		{name: "podcertificaterequestcleaner", rules: rules(may(read+" delete", certificate, "podcertificaterequests"))},
		{name: "resourcequota-controller", rules: rules(may("list watch", "*", "*"), may("update", core, "resourcequotas/status"), events())},
		{name: "root-ca-cert-publisher", rules: rules(may("create update", core, "configmaps"), events())},
		{name: "route-controller", rules: rules(may("list watch", core, "nodes"), may("patch", core, "nodes/status"), events())},
		{name: "service-account-controller", rules: rules(may("create", core, "serviceaccounts"), events())},
		{name: "service-cidrs-controller", rules: rules(
			may(read+" patch update", "networking.k8s.io", "servicecidrs"), may("patch update", "networking.k8s.io", "servicecidrs/finalizers"),
			may("patch update", "networking.k8s.io", "servicecidrs/status"), may(read, "networking.k8s.io", "ipaddresses"), events(),
		)},
		{name: "service-controller", rules: rules(
			may(read, core, "services"), may("patch update", core, "services/status"), may("list watch", core, "nodes"), events(),
		)},
		{name: "storage-version-migrator-controller", rules: rules(
			may("list patch", "*", "*"), may("get", "apiextensions.k8s.io", "customresourcedefinitions"),
			may("patch", "apiextensions.k8s.io", "customresourcedefinitions/status"),
			may("update", "storagemigration.k8s.io", "storageversionmigrations/status"),
		)},
		{name: "ttl-controller", rules: rules(may("list patch update watch", core, "nodes"), events())},
		{name: "validatingadmissionpolicy-status-controller", rules: rules(
			may(read, "admissionregistration.k8s.io", "validatingadmissionpolicies"),
			may("get patch update", "admissionregistration.k8s.io", "validatingadmissionpolicies/status"), events(),
		)},
	}
}

func storageControllers() []role {
	return []role{
		{name: "attachdetach-controller", rules: rules(
			may("list watch", core, "persistentvolumeclaims persistentvolumes"), may(read, core, "nodes"), may("patch update", core, "nodes/status"),
			may("list watch", core, "pods"), events(), may(read+" create delete", "storage.k8s.io", "volumeattachments"),
			may(read, "storage.k8s.io", "csidrivers"), may(read, "storage.k8s.io", "csinodes"),
		)},
		{name: "device-taint-eviction-controller", rules: rules(
			may(read+" delete", core, "pods"), may("patch update", core, "pods/status"), may(read, devices, "resourceclaims"),
			may(read, devices, "resourceslices"), may(read, devices, "deviceclasses"), events(),
			may("patch update", devices, "devicetaintrules/status"), may(read, devices, "devicetaintrules"),
		)},
		{name: "ephemeral-volume-controller", rules: rules(
			may(read, core, "pods"), may("update", core, "pods/finalizers"), may(read+" create", core, "persistentvolumeclaims"), events(),
		)},
		{name: "expand-controller", rules: rules(
			may(read+" patch update", core, "persistentvolumes"), may("patch update", core, "persistentvolumeclaims/status"),
			may(read, core, "persistentvolumeclaims"), events(),
		)},
		{name: "persistent-volume-binder", rules: rules(
			may(read+" create delete update", core, "persistentvolumes"), may("update", core, "persistentvolumes/status"),
			may(read+" update", core, "persistentvolumeclaims"), may("update", core, "persistentvolumeclaims/status"),
			may(read+" create delete", core, "pods"), may(read, "storage.k8s.io", "storageclasses"), may("list watch", core, "nodes"),
			events(), may("watch", core, "events"),
		)},
		{name: "pv-protection-controller", rules: rules(may(read+" update", core, "persistentvolumes"), events())},
		{name: "pvc-protection-controller", rules: rules(
			may(read+" update", core, "persistentvolumeclaims"), may("update", core, "persistentvolumeclaims/status"), may(read, core, "pods"), events(),
		)},
		{name: "resource-claim-controller", rules: rules(
			may(read, core, "pods"), may("update", core, "pods/finalizers"), may(read+" create delete", devices, "resourceclaims"),
			may("patch update", devices, "resourceclaims resourceclaims/status"), may("patch update", core, "pods/status"), events(),
			may("patch update", devices, "resourceclaims/binding"),
		)},
		{name: "selinux-warning-controller", rules: rules(
			events(), may(read, core, "persistentvolumes"), may(read, core, "persistentvolumeclaims"), may(read, core, "pods"), may(read, "storage.k8s.io", "csidrivers"),
		)},
		{name: "volumeattributesclass-protection-controller", rules: rules(
			may(read, core, "persistentvolumeclaims"), may(read, core, "persistentvolumes"), may(read+" update", "storage.k8s.io", "volumeattributesclasses"), events(),
		)},
	}
}
