package mesh

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// bare is the manifest of a Pod.
func bare(name, spec string) string {
	return "\napiVersion: v1\nkind: Pod\nmetadata: {name: " + name + ", labels: {app: " + name + "}}\nspec: " + spec + "\n---"
}

// nodeOf waits until a pod is ready and tells where it is.
func (w *work) nodeOf(pod string) string {
	w.Helper()
	w.do("wait", "--for=condition=Ready", "pod/"+pod, "--timeout=80s")
	return w.do("get", "pod", pod, "-o", "jsonpath={.spec.nodeName}")
}

// pendingPage: a pod that waits says of each node why, and so do its events.
func pendingPage(w *work) {
	w.labelled("work-pending=yes", "h3")
	w.Cleanup(func() { w.do("uncordon", "h2") })
	w.tainted("h1", "work-pending=no:NoSchedule")
	w.do("cordon", "h2")
	w.apply(bare("waits", `{nodeSelector: {work-pending: "yes"}, containers: [{name: app, image: "`+appImage+`", resources: {requests: {cpu: "1000"}}}]}`))
	w.untilHas([]string{"describe", "pod", "waits"}, "Status:", "Pending", "PodScheduled", "False", "Warning", "FailedScheduling", "0/4 nodes are available: ",
		"1 Insufficient cpu", "1 node(s) didn't match Pod's node affinity/selector", "1 node(s) had untolerated taint", "1 node(s) were unschedulable",
		"preemption: 0/4 nodes are available: ", "Preemption is not helpful for scheduling")
	lines := strings.Split(strings.TrimSpace(w.do("get", "events")), "\n")
	if head := strings.Join(strings.Fields(lines[0]), " "); head != "LAST SEEN TYPE REASON OBJECT MESSAGE" {
		w.Errorf("events have the columns %q", head)
	}
	w.wants(strings.Join(lines[1:], "\n"), "Warning", "FailedScheduling", "pod/waits", "0/4 nodes are available")
	w.do("delete", "pod", "waits", "--now")
}

// taintsPage: who tolerates a taint stays or comes, who does so for a while stays for that while, others go.
func taintsPage(w *work) {
	on := `nodeSelector: {kubernetes.io/hostname: h4}, `
	tolerates := func(rest string) string { return withApp(on + "tolerations: [{key: work-taint, " + rest + "}], ") }
	w.apply(bare("plain", withApp(on)) + bare("tolerant", tolerates("operator: Exists")) +
		bare("patient", tolerates("operator: Equal, value: b, effect: NoExecute, tolerationSeconds: 3")))
	for _, name := range []string{"plain", "tolerant", "patient"} {
		w.nodeOf(name)
	}
	mend := w.tainted("h4", "work-taint=a:NoSchedule")
	w.apply(bare("late", withApp(on)) + bare("welcome", tolerates("operator: Equal, value: a, effect: NoSchedule")) +
		bare("other", tolerates("operator: Equal, value: b, effect: NoSchedule")))
	w.wants(w.nodeOf("welcome"), "h4")
	for _, name := range []string{"late", "other"} {
		w.untilHas([]string{"describe", "pod", name}, "1 node(s) had untolerated taint", "3 node(s) didn't match Pod's node affinity/selector")
	}
	w.until("Running", "get", "pod", "plain", "-o", "jsonpath={.status.phase}")
	w.do("taint", "node", "h4", "work-taint=b:NoExecute")
	w.do("wait", "--for=delete", "pod/plain", "pod/welcome", "--timeout=60s")
	w.untilHas([]string{"get", "events"}, "TaintManagerEviction", "Marking for deletion Pod "+w.namespace+"/plain")
	w.until("Running", "get", "pod", "patient", "-o", "jsonpath={.status.phase}")
	w.do("wait", "--for=delete", "pod/patient", "--timeout=60s")
	w.until("Running", "get", "pod", "tolerant", "-o", "jsonpath={.status.phase}")
	mend()
	w.wants(w.nodeOf("late")+w.nodeOf("other"), "h4h4")
}

// budgetPage: what a budget allows, and a node that is drained of pods which come up elsewhere.
func budgetPage(w *work) {
	w.Cleanup(func() { w.do("uncordon", "h4") })
	w.apply(replicated("Deployment", "guarded", 4, "", withApp(`affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 100,
  podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: guarded}}}}]}}, `)) + `
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: guarded}
spec: {minAvailable: 4, selector: {matchLabels: {app: guarded}}}
`)
	w.rolledOut("deployment/guarded")
	w.until("4 4 0", "get", "pdb", "guarded", "-o", "jsonpath={.status.currentHealthy} {.status.desiredHealthy} {.status.disruptionsAllowed}")
	drain := []string{"drain", "h4", "--pod-selector=app=guarded"}
	w.wants(w.fails(append(drain, "--timeout=3s")...), "Cannot evict pod as it would violate the pod's disruption budget")
	w.do("patch", "pdb", "guarded", "-p", `{"spec": {"minAvailable": "75%"}}`)
	w.until("1", "get", "pdb", "guarded", "-o", "jsonpath={.status.disruptionsAllowed}")
	w.wants(w.do(append(drain, "--timeout=80s")...), "evicted", "drained")
	w.rolledOut("deployment/guarded")
	if on := onNodes(w.pods("app=guarded")); on["h4"] != 0 {
		w.Errorf("after the drain: %v", on)
	}
	w.wants(w.do("get", "pdb"), "NAME", "MIN AVAILABLE", "MAX UNAVAILABLE", "ALLOWED DISRUPTIONS", "75%", "N/A")
	w.do("uncordon", "h4")
	w.wants(w.fails("patch", "pdb", "guarded", "-p", `{"spec": {"maxUnavailable": 1}}`), "minAvailable and maxUnavailable cannot be both set")
}

// initPage: one after the other, each until it succeeds, before the rest.
func initPage(w *work) {
	ask := func(name string) string {
		return `{name: ask-` + name + `, image: "` + appImage + `", command: [/app, get, "http://` + name + `:8080/"]}`
	}
	w.apply(bare("front", `{terminationGracePeriodSeconds: 1, initContainers: [`+ask("one")+`, `+ask("two")+`], containers: [{name: app, image: "`+appImage+`"}]}`))
	state := []string{"get", "pod", "front", "-o", "jsonpath={.status.initContainerStatuses[*].state.terminated.reason} {.status.containerStatuses[0].state.waiting.reason}"}
	eventually(w, workloadLimit, "the first to fail", func() (string, bool) {
		out := w.do("get", "pod", "front")
		return out, strings.Contains(out, "Init:Error") || strings.Contains(out, "Init:CrashLoopBackOff")
	})
	w.wants(w.do("describe", "pod", "front"), "Init Containers:", "ask-one:", "ask-two:", "PodInitializing", "Initialized", "False")
	w.do("run", "one", "--image="+appImage, "--port=8080", "--expose")
	w.untilHas([]string{"get", "pod", "front", "-o", "jsonpath={.status.initContainerStatuses[0].state.terminated.reason} {.status.containerStatuses[0].state.waiting.reason}"}, "Completed PodInitializing")
	w.do("run", "two", "--image="+appImage, "--port=8080", "--expose")
	w.until("Completed Completed", state...)
	w.nodeOf("front")
	w.wants(w.do("logs", "front", "-c", "ask-two"), "hello from two")
}

// sidecarPage: one that starts before the rest, goes on beside it, and does not keep a Job from its end.
func sidecarPage(w *work) {
	sidecar := `initContainers: [{name: beside, image: "` + appImage + `", restartPolicy: Always, startupProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}}], `
	ask := `containers: [{name: app, image: "` + appImage + `", command: [/app, get, "http://127.0.0.1:8080/"]}]}`
	w.apply(job("done", "", `{terminationGracePeriodSeconds: 2, restartPolicy: Never, `+sidecar+ask) +
		bare("both", strings.Replace(withExit("0", "5m", sidecar), "Never", "Always", 1)))
	w.ends("done", "{.status.succeeded}", "SuccessCriteriaMet Complete 1")
	w.wants(w.do("logs", "jobs/done", "-c", "app"), "hello from done-")
	pod := w.pods("job-name=done")[0]
	beside, app := pod.Status.InitContainerStatuses[0].State.Terminated, pod.Status.ContainerStatuses[0].State.Terminated
	if beside == nil || app == nil || beside.FinishedAt.Before(&app.FinishedAt) {
		w.Errorf("beside ended as %+v, app as %+v", beside, app)
	}
	w.nodeOf("both")
	w.wants(w.do("get", "pod", "both"), "2/2")
}

// assignPage: by a label, by what is asked for and what is liked, by name, and not before somebody says so.
func assignPage(w *work) {
	w.labelled("work-disk=ssd", "h3")
	w.labelled("work-size=4", "h2")
	w.labelled("work-size=8", "h4")
	affinity := func(kind, terms string) string {
		return withApp("affinity: {nodeAffinity: {" + kind + "DuringSchedulingIgnoredDuringExecution: " + terms + "}}, ")
	}
	const large = "{matchExpressions: [{key: work-size, operator: Gt, values: [\"5\"]}]}"
	w.apply(bare("selector", withApp("nodeSelector: {work-disk: ssd}, ")) +
		bare("required", affinity("required", "{nodeSelectorTerms: ["+large+"]}")) +
		bare("liked", affinity("preferred", "[{weight: 1, preference: {matchExpressions: [{key: work-disk, operator: Exists}]}}, {weight: 100, preference: {matchExpressions: [{key: work-size, operator: In, values: [\"4\"]}]}}]")) +
		bare("named", withApp("nodeName: h4, ")) +
		bare("gated", withApp("schedulingGates: [{name: example.com/later}], nodeSelector: {work-disk: ssd}, ")))
	for pod, node := range map[string]string{"selector": "h3", "required": "h4", "liked": "h2", "named": "h4"} {
		if on := w.nodeOf(pod); on != node {
			w.Errorf("%s is on %s, want %s", pod, on, node)
		}
	}
	w.wants(w.do("get", "pod", "gated"), "SchedulingGated")
	w.do("patch", "pod", "gated", "--type=json", "-p", `[{"op": "remove", "path": "/spec/schedulingGates"}]`)
	w.wants(w.nodeOf("gated"), "h3")
}

// affinityPage: caches on nodes of their own, and a server beside each.
func affinityPage(w *work) {
	nodes := []string{"h2", "h3", "h4"}
	w.labelled("work-affine=yes", nodes...)
	term := func(app string) string {
		return "requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchExpressions: [{key: app, operator: In, values: [" + app + "]}]}}]"
	}
	const on = "nodeSelector: {work-affine: \"yes\"}, "
	w.apply(replicated("Deployment", "cache", 3, "", withApp(on+"affinity: {podAntiAffinity: {"+term("cache")+"}}, ")) +
		replicated("Deployment", "server", 3, "", withApp(on+"affinity: {podAntiAffinity: {"+term("server")+"}, podAffinity: {"+term("cache")+"}}, ")))
	for _, app := range []string{"cache", "server"} {
		w.rolledOut("deployment/" + app)
		if at := onNodes(w.pods("app=" + app)); !slices.Equal(slices.Sorted(maps.Keys(at)), nodes) {
			w.Errorf("%s is at %v", app, at)
		}
	}
	w.do("scale", "deployment/cache", "--replicas=4")
	w.untilHas([]string{"get", "events"}, "3 node(s) didn't match pod anti-affinity rules", "1 node(s) didn't match Pod's node affinity/selector")
}

// spreadPage: evenly over zones, also while it rolls and where a zone is larger; and not at all rather than unevenly.
func spreadPage(w *work) {
	w.labelled("work-zone=a", "h2", "h3")
	w.labelled("work-zone=b", "h4")
	spread := func(when string) string {
		return withApp("affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: work-zone, operator: Exists}]}]}}}, " +
			"topologySpreadConstraints: [{maxSkew: 1, topologyKey: work-zone, whenUnsatisfiable: " + when + ", matchLabelKeys: [pod-template-hash], labelSelector: {matchLabels: {app: front}}}], ")
	}
	zones := func(pods []corev1.Pod) string {
		count := map[string]int{}
		for _, p := range pods {
			count[map[string]string{"h2": "a", "h3": "a", "h4": "b"}[p.Spec.NodeName]]++
		}
		return fmt.Sprint(count)
	}
	even := func(pods []corev1.Pod) bool { return ready(4)(pods) && zones(pods) == "map[a:2 b:2]" }
	w.apply(replicated("Deployment", "front", 4, "", spread("DoNotSchedule")))
	w.rolledOut("deployment/front")
	w.untilPods("two in each zone", "app=front", even)
	w.do("set", "env", "deployment/front", "STEP=two")
	w.rolledOut("deployment/front")
	w.untilPods("two in each zone after the roll-out", "app=front", even)
	w.apply(bare("lone", withApp("topologySpreadConstraints: [{maxSkew: 1, topologyKey: work-nowhere, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: lone}}}], ")))
	w.untilHas([]string{"describe", "pod", "lone"}, "4 node(s) didn't match pod topology spread constraints (missing required label)")
}

// priorityPage: the more important pod takes the place of another, unless its class says that it waits.
func priorityPage(w *work) {
	node, err := w.client.CoreV1().Nodes().Get(w.Context(), "h4", metav1.GetOptions{})
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { w.do("delete", "priorityclass", "work-high", "work-low", "work-waits") })
	class := func(name string, value int, rest string) string {
		return fmt.Sprintf("\napiVersion: scheduling.k8s.io/v1\nkind: PriorityClass\nmetadata: {name: work-%s}\nvalue: %d\ndescription: of a test\n%s\n---", name, value, rest)
	}
	w.apply(class("low", 100, "") + class("high", 1000, "") + class("waits", 2000, "preemptionPolicy: Never"))
	most := node.Status.Allocatable.Cpu().MilliValue() * 6 / 10
	pod := func(name, class string) string {
		return bare(name, fmt.Sprintf(`{terminationGracePeriodSeconds: 1, priorityClassName: work-%s, nodeSelector: {kubernetes.io/hostname: h4}, containers: [{name: app, image: %q, resources: {requests: {cpu: %dm}}}]}`, class, appImage, most))
	}
	w.apply(pod("low", "low"))
	w.nodeOf("low")
	w.apply(pod("waits", "waits"))
	w.untilHas([]string{"describe", "pod", "waits"}, "FailedScheduling", "1 Insufficient cpu", "not eligible due to preemptionPolicy=Never")
	w.do("delete", "pod", "waits", "--now")
	w.apply(pod("high", "high"))
	w.wants(w.nodeOf("high"), "h4")
	w.do("wait", "--for=delete", "pod/low", "--timeout=60s")
	w.untilHas([]string{"get", "events"}, "Preempted", "pod/low", "Preempted by pod")
	w.wants(w.do("get", "pod", "high", "-o", "jsonpath={.spec.priority} {.spec.preemptionPolicy}"), "1000 PreemptLowerPriority")
	w.wants(w.do("get", "priorityclasses"), "NAME", "VALUE", "GLOBAL-DEFAULT", "work-high", "system-cluster-critical", "2000000000")
}
