package pod

import "github.com/podvine/podvine/agent/api/kinds/kindtest"

const smallYAML = `{metadata: {name: small, namespace: ns}, spec: {containers: [{name: c, image: example.com/app}]}}`

// defaultRows shows what a pod gets that says little.
func defaultRows() []kindtest.Row {
	row := func(field, patch, want string) kindtest.Row {
		return kindtest.Row{Field: field, Class: kindtest.Defaulted, Base: smallYAML, Patch: patch, Want: want}
	}
	return []kindtest.Row{
		row("spec.dnsPolicy", "", `{"spec":{"dnsPolicy":"ClusterFirst"}}`),
		row("spec.restartPolicy", "", `{"spec":{"restartPolicy":"Always"}}`),
		row("spec.schedulerName", "", `{"spec":{"schedulerName":"default-scheduler"}}`),
		row("spec.terminationGracePeriodSeconds", "", `{"spec":{"terminationGracePeriodSeconds":30}}`),
		row("spec.terminationGracePeriodSeconds", `{"spec":{"terminationGracePeriodSeconds":-3}}`, `{"spec":{"terminationGracePeriodSeconds":1}}`),
		row("spec.enableServiceLinks", "", `{"spec":{"enableServiceLinks":true}}`),
		row("spec.serviceAccount", `{"spec":{"serviceAccountName":"a"}}`, `{"spec":{"serviceAccount":"a"}}`),
		row("spec.serviceAccountName", `{"spec":{"serviceAccount":"a"}}`, `{"spec":{"serviceAccountName":"a"}}`),
		row("spec.containers[].imagePullPolicy", "", `{"spec":{"containers":[{"imagePullPolicy":"Always"}]}}`),
		row("spec.containers[].imagePullPolicy", `{"spec":{"containers":[{"name":"c","image":"example.com:5000/app:v1"}]}}`, `{"spec":{"containers":[{"imagePullPolicy":"IfNotPresent"}]}}`),
		row("spec.containers[].terminationMessagePath", "", `{"spec":{"containers":[{"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}]}}`),
		row("spec.containers[].ports[].hostPort", `{"spec":{"hostNetwork":true,"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}]}]}}`,
			`{"spec":{"containers":[{"ports":[{"containerPort":80,"hostPort":80,"protocol":"TCP"}]}]}}`),
		row("spec.containers[].resources.requests", `{"spec":{"containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"1","memory":"1Gi"},"requests":{"cpu":"0.5"}}}]}}`,
			`{"spec":{"containers":[{"resources":{"requests":{"cpu":"500m","memory":"1Gi"}}}]}}`),
		row("spec.resources.requests", `{"spec":{"resources":{"limits":{"cpu":"2","memory":"1Gi"}},"containers":[{"name":"c","image":"i","resources":{"requests":{"cpu":"1"}}}]}}`,
			`{"spec":{"resources":{"requests":{"cpu":"1","memory":"1Gi"}}}}`),
		row("spec.containers[].livenessProbe", `{"spec":{"containers":[{"name":"c","image":"i","livenessProbe":{"httpGet":{"port":80}}}]}}`,
			`{"spec":{"containers":[{"livenessProbe":{"httpGet":{"path":"/","scheme":"HTTP"},"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3}}]}}`),
		row("spec.volumes[].hostPath.type", `{"spec":{"volumes":[{"name":"v","hostPath":{"path":"/"}}]}}`, `{"spec":{"volumes":[{"hostPath":{"type":""}}]}}`),
		row("spec.volumes[].emptyDir", `{"spec":{"volumes":[{"name":"v"}]}}`, `{"spec":{"volumes":[{"emptyDir":{}}]}}`),
		row("spec.volumes[].secret.defaultMode", `{"spec":{"volumes":[{"name":"v","secret":{"secretName":"s"}}]}}`, `{"spec":{"volumes":[{"secret":{"defaultMode":420}}]}}`),
		row("spec.volumes[].projected.sources[].serviceAccountToken.expirationSeconds", `{"spec":{"volumes":[{"name":"v","projected":{"sources":[{"serviceAccountToken":{"path":"t"}}]}}]}}`,
			`{"spec":{"volumes":[{"projected":{"defaultMode":420,"sources":[{"serviceAccountToken":{"expirationSeconds":3600}}]}}]}}`),
		row("spec.volumes[].azureDisk.kind", `{"spec":{"volumes":[{"name":"v","azureDisk":{"diskName":"d","diskURI":"https://a"}}]}}`,
			`{"spec":{"volumes":[{"azureDisk":{"kind":"Shared","cachingMode":"ReadWrite","fsType":"ext4","readOnly":false}}]}}`),
		row("spec.topologySpreadConstraints[].labelSelector", `{"metadata":{"labels":{"rev":"7"}},"spec":{"topologySpreadConstraints":[{"maxSkew":1,"topologyKey":"z","whenUnsatisfiable":"DoNotSchedule","labelSelector":{},"matchLabelKeys":["rev"]}]}}`,
			`{"spec":{"topologySpreadConstraints":[{"labelSelector":{"matchExpressions":[{"key":"rev","operator":"In","values":["7"]}]}}]}}`),
		row("status.phase", "", `{"status":{"phase":"Pending","qosClass":"BestEffort"}}`),
		row("status.conditions", `{"spec":{"schedulingGates":[{"name":"a"}]}}`, `{"status":{"conditions":[{"type":"PodScheduled","status":"False","reason":"SchedulingGated"}]}}`),
	}
}
