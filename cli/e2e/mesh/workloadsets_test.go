package mesh

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// deploymentPage: created, updated, broken, undone, to a revision of choice, past its deadline, with fewer old sets.
func deploymentPage(w *work) {
	w.apply(replicated("Deployment", "front", 3, "", withApp("")))
	w.wants(w.do("rollout", "status", "deployment/front", "--timeout=80s"), `deployment "front" successfully rolled out`)
	w.wants(w.do("get", "deployments"), "NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE", "3/3")
	w.wants(w.do("get", "rs", "--show-labels"), "DESIRED", "CURRENT", "READY", "app=front,pod-template-hash=")
	w.do("set", "env", "deployment/front", "STEP=two")
	w.do("annotate", "deployment/front", "kubernetes.io/change-cause=step two")
	w.rolledOut("deployment/front")
	w.until("0 3", "get", "rs", "--sort-by=.metadata.creationTimestamp", "-o", "jsonpath={.items[*].status.replicas}")
	w.wants(w.do("rollout", "history", "deployment/front"), "REVISION", "CHANGE-CAUSE", "step two")
	w.wants(w.do("rollout", "history", "deployment/front", "--revision=2"), "pod-template-hash=", "STEP:", "step two")

	w.do("set", "image", "deployment/front", "app=podvine.io/sample:none")
	w.wants(w.fails("rollout", "status", "deployment/front", "--timeout=3s"), "1 out of 3 new replicas have been updated")
	if pods := w.pods("app=front"); len(pods) != 4 {
		w.Errorf("a quarter of three may come beyond, none be missing, but there are:\n%s", told(pods))
	}
	w.wants(w.do("rollout", "undo", "deployment/front"), "rolled back")
	w.rolledOut("deployment/front")
	w.wants(w.do("rollout", "undo", "deployment/front", "--to-revision=1"), "rolled back")
	w.rolledOut("deployment/front")
	w.until("5", "get", "deployment", "front", `-o=jsonpath={.metadata.annotations.deployment\.kubernetes\.io/revision}{.spec.template.spec.containers[0].env}`)
	w.wants(w.fails("rollout", "undo", "deployment/front", "--to-revision=99"), "unable to find specified revision 99 in history")

	w.do("patch", "deployment", "front", "-p", `{"spec": {"progressDeadlineSeconds": 2, "revisionHistoryLimit": 1}}`)
	w.do("set", "image", "deployment/front", "app=podvine.io/sample:none")
	w.wants(w.fails("rollout", "status", "deployment/front", "--timeout=60s"), `deployment "front" exceeded its progress deadline`)
	w.until("False ProgressDeadlineExceeded", "get", "deployment", "front",
		"-o", `jsonpath={.status.conditions[?(@.type=="Progressing")]['status','reason']}`)
	w.do("rollout", "undo", "deployment/front")
	w.rolledOut("deployment/front")
	w.untilHas([]string{"describe", "deployment", "front"}, "StrategyType:", "RollingUpdate", "25% max unavailable, 25% max surge",
		"NewReplicaSetAvailable", "ScalingReplicaSet", "Scaled up replica set front-", "3 desired | 3 updated | 3 total | 3 available | 0 unavailable")
	eventually(w, workloadLimit, "one old set to be kept", func() (string, bool) {
		out := w.do("get", "rs", "-o", "name")
		return out, len(strings.Fields(out)) == 2
	})
}

// pausePage: what changes while it is paused is rolled out at once afterwards. With Recreate no two versions run at a time.
func pausePage(w *work) {
	w.apply(replicated("Deployment", "front", 2, "strategy: {type: Recreate},", withApp("")))
	w.rolledOut("deployment/front")
	w.do("set", "env", "deployment/front", "STEP=one")
	w.rolledOut("deployment/front")
	w.wants(w.do("rollout", "pause", "deployment/front"), "paused")
	w.do("set", "env", "deployment/front", "STEP=two")
	w.do("set", "resources", "deployment/front", "-c=app", "--limits=memory=64Mi")
	w.wants(w.fails("rollout", "undo", "deployment/front"), "cannot rollback a paused deployment")
	w.do("scale", "deployment/front", "--replicas=3")
	w.untilPods("a paused one to be scaled", "app=front", ready(3))
	w.wants(w.do("describe", "deployment", "front"), "DeploymentPaused")
	if sets := strings.Fields(w.do("get", "rs", "-o", "name")); len(sets) != 2 {
		w.Errorf("rolled out while it was paused: %v", sets)
	}
	seen := w.watched("get", "pods", "--watch-only", "-o", "jsonpath={.metadata.name} {.spec.containers[0].env[0].value} {.status.phase}{\"\\n\"}")
	w.wants(w.do("rollout", "resume", "deployment/front"), "resumed")
	w.rolledOut("deployment/front")
	if sets := strings.Fields(w.do("get", "rs", "-o", "name")); len(sets) != 3 {
		w.Errorf("two changes made %d sets: %v", len(sets), sets)
	}
	lines := strings.Split(seen(), "\n")
	first := slices.IndexFunc(lines, func(line string) bool { return strings.Contains(line, " two ") })
	late := slices.ContainsFunc(lines[max(0, first):], func(line string) bool { return strings.Contains(line, " one Running") })
	if first < 0 || late {
		w.Errorf("old pods ran beside new ones:\n%s", strings.Join(lines, "\n"))
	}
}

// proportionPage: one that is scaled in the midst of a roll-out gives each of its sets its part.
func proportionPage(w *work) {
	w.apply(replicated("Deployment", "front", 10, "strategy: {rollingUpdate: {maxSurge: 3, maxUnavailable: 2}},", withApp("")))
	w.rolledOut("deployment/front")
	w.do("set", "image", "deployment/front", "app=podvine.io/sample:none")
	sizes := []string{"get", "rs", "--sort-by=.metadata.creationTimestamp", "-o", "jsonpath={.items[*].spec.replicas}"}
	w.until("8 5", sizes...)
	w.do("scale", "deployment/front", "--replicas=15")
	w.until("11 7", sizes...)
	w.do("delete", "deployment", "front", "--cascade=foreground", "--timeout=60s")
}

// replicaSetPage: it takes pods on, replaces those that are gone or taken away, and leaves them behind.
func replicaSetPage(w *work) {
	for _, name := range []string{"one", "two"} {
		w.do("run", name, "--image="+appImage, "--labels=app=front")
	}
	w.apply(replicated("ReplicaSet", "front", 3, "", withApp("")))
	w.untilPods("three", "app=front", ready(3))
	w.wants(w.do("get", "pods", "one", "two", "-o", "jsonpath={.items[*].metadata.ownerReferences[0].name}"), "front front")
	w.wants(w.do("get", "rs", "front"), "DESIRED", "CURRENT", "READY", "3 ")
	w.do("run", "late", "--image="+appImage, "--labels=app=front")
	eventually(w, workloadLimit, "the fourth to go", func() (string, bool) {
		pods := w.pods("app=front")
		return told(pods), len(pods) == 3 && !strings.Contains(told(pods), "late")
	})
	w.do("label", "pod", "one", "app=debug", "--overwrite")
	w.untilPods("the one that was taken away to be replaced", "app=front", ready(3))
	w.until("", "get", "pod", "one", "-o", "jsonpath={.metadata.ownerReferences}")
	kept := w.pods("app=front")
	w.do("annotate", "pod", kept[0].Name, "controller.kubernetes.io/pod-deletion-cost=-1")
	w.do("annotate", "pod", kept[1].Name, "controller.kubernetes.io/pod-deletion-cost=10")
	w.do("scale", "rs/front", "--replicas=2")
	w.untilPods("the cheapest to go", "app=front", func(pods []corev1.Pod) bool { return len(pods) == 2 && !strings.Contains(told(pods), kept[0].Name+" ") })
	w.untilHas([]string{"describe", "rs", "front"}, "SuccessfulCreate", "Created pod: front-", "SuccessfulDelete", "Deleted pod: "+kept[0].Name, "2 current / 2 desired")
	w.do("delete", "rs", "front", "--cascade=orphan")
	eventually(w, workloadLimit, "the pods to be nobody's", func() (string, bool) {
		pods := w.pods("app=front")
		return told(pods), len(pods) == 2 && pods[0].OwnerReferences == nil && pods[1].OwnerReferences == nil
	})
	before := w.pods("app=front")
	w.apply(strings.ReplaceAll(replicated("ReplicaSet", "front", 2, "", withApp("")), "name: front", "name: heir"))
	eventually(w, workloadLimit, "the next set to take them on", func() (string, bool) {
		pods := w.pods("app=front")
		same := len(pods) == 2 && pods[0].UID == before[0].UID && pods[1].UID == before[1].UID
		return told(pods), same && metav1.GetControllerOf(&pods[0]) != nil && metav1.GetControllerOf(&pods[0]).Name == "heir"
	})
}

// replicationControllerPage: as before there were sets.
func replicationControllerPage(w *work) {
	w.apply(`
apiVersion: v1
kind: ReplicationController
metadata: {name: front}
spec: {replicas: 3, selector: {app: front}, template: {metadata: {labels: {app: front}}, spec: ` + withApp("") + `}}
`)
	w.untilPods("three", "app=front", ready(3))
	w.untilHas([]string{"describe", "replicationcontrollers/front"}, "Replicas:     3 current / 3 desired", "Pods Status:  3 Running / 0 Waiting / 0 Succeeded / 0 Failed", "SuccessfulCreate")
	w.do("delete", "pod", w.pods("app=front")[0].Name, "--wait=false")
	w.untilPods("three again", "app=front", ready(3))
	w.do("label", "pod", w.pods("app=front")[0].Name, "app=apart", "--overwrite")
	w.untilPods("the one apart to be replaced", "app=front", ready(3))
	w.do("delete", "rc", "front", "--cascade=orphan")
	w.untilPods("pods to outlive it", "app=front", func(pods []corev1.Pod) bool { return ready(3)(pods) && pods[0].OwnerReferences == nil })
}

// statefulSet is the manifest of a StatefulSet with its service.
func statefulSet(name string, replicas int, fields string) string {
	return `
apiVersion: v1
kind: Service
metadata: {name: ` + name + `}
spec: {clusterIP: None, selector: {app: ` + name + `}, ports: [{port: 8080, name: web}]}
---` + replicated("StatefulSet", name, replicas, "serviceName: "+name+", "+fields, `{terminationGracePeriodSeconds: 1,
  containers: [{name: app, image: "`+appImage+`", readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}}]}`)
}

// statefulSetPage: names, labels, addresses, one after the other and back, and all at once where that is asked for.
func statefulSetPage(w *work) {
	created := w.watched("get", "pods", "--watch-only", "--output-watch-events", "-o", "jsonpath={.type} {.object.metadata.name} {.object.status.conditions[?(@.type==\"Ready\")].status}{\"\\n\"}")
	w.apply(statefulSet("web", 3, "ordinals: {start: 5},"))
	w.rolledOut("statefulset/web")
	w.wants(w.do("get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.name} {.spec.hostname} {.metadata.labels.apps\.kubernetes\.io/pod-index} {.metadata.labels.statefulset\.kubernetes\.io/pod-name};{end}`),
		"web-5 web-5 5 web-5;web-6 web-6 6 web-6;web-7 web-7 7 web-7;")
	w.untilHas([]string{"exec", "web-5", "--", "/app", "get", "http://web-7.web." + w.namespace + ".svc.cluster.local:8080/"}, "hello from web-7")
	w.do("scale", "sts/web", "--replicas=1")
	w.untilPods("the first to be alone", "app=web", func(pods []corev1.Pod) bool { return len(pods) == 1 && pods[0].Name == "web-5" })
	w.until("pod/web-5", "get", "pods", "-o", "name")
	lines := strings.Fields(strings.ReplaceAll(created(), " ", "_"))
	at := func(start string) int {
		return slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, start) })
	}
	for _, order := range [][2]string{{"MODIFIED_web-5_True", "ADDED_web-6"}, {"MODIFIED_web-6_True", "ADDED_web-7"}, {"DELETED_web-7", "DELETED_web-6"}} {
		if first, then := at(order[0]), at(order[1]); first < 0 || then < first {
			w.Errorf("%s is not before %s:\n%s", order[0], order[1], strings.Join(lines, "\n"))
		}
	}
	w.do("delete", "sts", "web", "--cascade=orphan")
	w.until("pod/web-5", "get", "pods", "-o", "name")
	w.apply(statefulSet("web", 2, "ordinals: {start: 5}, podManagementPolicy: Parallel,"))
	w.untilPods("the pod to be taken on and another made", "app=web", func(pods []corev1.Pod) bool {
		return ready(2)(pods) && metav1.GetControllerOf(&pods[0]) != nil && metav1.GetControllerOf(&pods[1]) != nil
	})
	w.wants(w.fails("patch", "sts", "web", "-p", `{"spec": {"podManagementPolicy": "OrderedReady"}}`), "field is immutable")
}

// partitionPage: only ordinals from the partition on are updated, also when others are made anew; and only what is deleted with OnDelete.
func partitionPage(w *work) {
	w.apply(statefulSet("web", 3, "podManagementPolicy: Parallel, updateStrategy: {rollingUpdate: {partition: 2}},"))
	w.rolledOut("statefulset/web")
	w.do("set", "env", "statefulset/web", "STEP=two")
	w.wants(w.do("rollout", "status", "statefulset/web", "--timeout=80s"), "partitioned roll out complete: 1 new pods have been updated")
	steps := []string{"get", "pods", "-o", "jsonpath={range .items[*]}{.metadata.name}={.spec.containers[0].env[0].value};{end}"}
	w.until("web-0=;web-1=;web-2=two;", steps...)
	w.do("delete", "pod", "web-1")
	w.untilPods("three again", "app=web", ready(3))
	w.until("web-0=;web-1=;web-2=two;", steps...)
	w.do("patch", "sts", "web", "-p", `{"spec": {"updateStrategy": {"rollingUpdate": {"partition": 1}}}}`)
	w.until("web-0=;web-1=two;web-2=two;", steps...)
	w.do("patch", "sts", "web", "-p", `{"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}}`)
	w.do("set", "env", "statefulset/web", "STEP=three")
	w.untilPods("three", "app=web", ready(3))
	w.do("delete", "pod", "web-2")
	w.until("web-0=;web-1=two;web-2=three;", steps...)
	w.wants(w.do("rollout", "history", "statefulset/web"), "REVISION", "1", "2", "3")
}

// daemonSetPage: a pod on each node that fits, also on those that others may not use, and one after the other when it changes.
func daemonSetPage(w *work) {
	w.labelled("work-daemon=yes", "h1", "h2", "h3")
	w.tainted("h1", "work-daemon=kept:NoSchedule")
	w.apply(strings.Replace(replicated("DaemonSet", "agent", 0, "", withApp("nodeSelector: {work-daemon: \"yes\"}, ")), "replicas: 0, ", "", 1))
	w.rolledOut("daemonset/agent")
	w.wants(fmt.Sprint(onNodes(w.pods("app=agent"))), "map[h2:1 h3:1]")
	w.wants(w.do("get", "pods", "-o", "jsonpath={.items[0].spec.tolerations[*].key} {.items[0].spec.affinity}"),
		"node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable", "node.kubernetes.io/disk-pressure", "node.kubernetes.io/memory-pressure",
		"node.kubernetes.io/pid-pressure", "node.kubernetes.io/unschedulable", "matchFields", "metadata.name")
	w.do("patch", "ds", "agent", "-p", `{"spec": {"template": {"spec": {"tolerations": [{"key": "work-daemon", "operator": "Exists"}]}}}}`)
	w.rolledOut("daemonset/agent")
	w.wants(fmt.Sprint(onNodes(w.pods("app=agent"))), "map[h1:1 h2:1 h3:1]")
	w.wants(w.do("get", "ds", "agent"), "DESIRED", "CURRENT", "READY", "UP-TO-DATE", "AVAILABLE", "NODE SELECTOR", "work-daemon=yes")
	w.do("label", "node", "h3", "work-daemon=no", "--overwrite")
	w.untilPods("it to leave a node that fits no more", "app=agent", func(pods []corev1.Pod) bool { return fmt.Sprint(onNodes(pods)) == "map[h1:1 h2:1]" })
	w.do("patch", "ds", "agent", "-p", `{"spec": {"updateStrategy": {"type": "OnDelete", "rollingUpdate": null}}}`)
	w.do("set", "env", "ds/agent", "STEP=two")
	w.do("delete", "pod", "--field-selector=spec.nodeName=h1", "-l", "app=agent")
	w.untilPods("the deleted one to be new, the other not", "app=agent", func(pods []corev1.Pod) bool {
		updated := map[string]bool{}
		for _, p := range pods {
			updated[p.Spec.NodeName] = len(p.Spec.Containers[0].Env) > 0
		}
		return len(pods) == 2 && updated["h1"] && !updated["h2"]
	})
	w.wants(w.do("rollout", "history", "ds/agent"), "REVISION", "1", "2", "3")
}
