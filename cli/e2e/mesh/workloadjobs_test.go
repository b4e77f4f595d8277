package mesh

import (
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// job is the manifest of a Job.
func job(name, fields, spec string) string {
	return `
apiVersion: batch/v1
kind: Job
metadata: {name: ` + name + `}
spec: {` + fields + ` template: {spec: ` + spec + `}}
---`
}

// ends waits until the Job says of its end what is wanted: the conditions that hold, and further fields.
func (w *work) ends(name, fields, want string) {
	w.Helper()
	w.until(want, "get", "job", name, "-o", `jsonpath={.status.conditions[?(@.status=="True")].type} `+fields)
}

// jobPage: once, so many times, until the work is done, by index, held back, and gone by itself.
func jobPage(w *work) {
	get := `{restartPolicy: Never, containers: [{name: app, image: "` + appImage + `", command: [/app, get, "http://answer/$(JOB_COMPLETION_INDEX)"]}]}`
	w.do("run", "answer", "--image="+appImage, "--port=80", "--expose", "--overrides", `{"spec":{"containers":[{"name":"answer","image":"`+appImage+`","ports":[{"containerPort":8080}]}]}}`)
	w.do("patch", "service", "answer", "-p", `{"spec":{"ports":[{"port":80,"targetPort":8080}]}}`)
	w.do("wait", "--for=condition=Ready", "pod/answer", "--timeout=60s")
	w.untilHas([]string{"get", "endpointslices", "-l", "kubernetes.io/service-name=answer"}, "8080")
	w.apply(job("once", "", get) + job("five", "completions: 5, parallelism: 2,", withExit("0", "100ms", "")) +
		job("queue", "parallelism: 3,", withExit("0", "500ms", "")) +
		job("indexed", "completions: 3, parallelism: 3, completionMode: Indexed,", get) +
		job("elastic", "completions: 2, parallelism: 2, completionMode: Indexed,", withExit("0", "10s", "")) +
		job("held", "suspend: true, completions: 1,", withExit("0", "5m", "")) +
		job("short", "ttlSecondsAfterFinished: 1,", withExit("0", "0s", "")))
	w.do("patch", "job", "elastic", "-p", `{"spec": {"completions": 3, "parallelism": 3}}`)
	w.until("Suspended", "get", "job", "held", "-o", `jsonpath={.status.conditions[?(@.status=="True")].type}{.status.active}{.status.startTime}`)
	w.do("patch", "job", "held", "-p", `{"spec": {"suspend": false}}`)
	w.untilPods("it to be resumed", "job-name=held", ready(1))
	w.do("patch", "job", "held", "-p", `{"spec": {"suspend": true}}`)
	w.untilPods("its pod to go", "job-name=held", ready(0))
	w.untilHas([]string{"describe", "job", "held"}, "Suspended", "Resumed", "SuccessfulDelete")

	w.ends("once", "{.status.succeeded}", "SuccessCriteriaMet Complete 1")
	w.wants(w.do("logs", "jobs/once"), "hello from answer")
	w.wants(w.do("get", "pods", "--selector=batch.kubernetes.io/job-name=once", "--output=jsonpath={.items[*].metadata.name}"), "once-")
	w.wants(w.do("get", "job", "once"), "NAME", "STATUS", "COMPLETIONS", "DURATION", "Complete", "1/1")
	w.wants(w.do("describe", "job", "once"), "Parallelism:", "Completions:", "Pods Statuses:", "0 Active (0 Ready) / 1 Succeeded / 0 Failed", "SuccessfulCreate", "Created pod: once-", "Completed")
	w.ends("five", "{.status.succeeded}", "SuccessCriteriaMet Complete 5")
	w.ends("queue", "{.status.succeeded}", "SuccessCriteriaMet Complete 3")
	w.ends("indexed", "{.status.completedIndexes}", "SuccessCriteriaMet Complete 0-2")
	w.wants(w.do("logs", "-l", "job-name=indexed", "--prefix"), "for /0", "for /1", "for /2")
	w.ends("elastic", "{.status.completedIndexes}", "SuccessCriteriaMet Complete 0-2")
	w.do("wait", "--for=delete", "job/short", "--timeout=60s")
	w.untilPods("its pods to go with it", "job-name=short", ready(0))
	w.wants(w.fails("patch", "job", "five", "-p", `{"spec": {"completions": 6}}`), "field is immutable")

	w.apply(job("old", "", withExit("0", "5m", "")))
	w.untilPods("its pod", "job-name=old", ready(1))
	before := w.pods("job-name=old")[0]
	w.do("delete", "job", "old", "--cascade=orphan")
	uid := before.Labels[batchv1.ControllerUidLabel]
	w.apply(strings.Replace(job("heir", `manualSelector: true, selector: {matchLabels: {batch.kubernetes.io/controller-uid: "`+uid+`"}},`, withExit("0", "5m", "")),
		"template: {", `template: {metadata: {labels: {batch.kubernetes.io/controller-uid: "`+uid+`"}}, `, 1))
	eventually(w, workloadLimit, "the pod to be taken on", func() (string, bool) {
		pods := w.pods(batchv1.ControllerUidLabel + "=" + uid)
		return told(pods), len(pods) == 1 && pods[0].UID == before.UID && metav1.GetControllerOf(&pods[0]) != nil
	})
}

// failingJobsPage: too many failures of all, within one pod, of one index, of indexes; and too long.
func failingJobsPage(w *work) {
	w.apply(job("limit", "backoffLimit: 1,", withExit("3", "0s", "")) +
		job("within", "backoffLimit: 1,", strings.Replace(withExit("3", "0s", ""), "Never", "OnFailure", 1)) +
		job("deadline", "activeDeadlineSeconds: 3, backoffLimit: 5,", withExit("0", "5m", "")) +
		job("index", "completions: 2, parallelism: 2, completionMode: Indexed, backoffLimitPerIndex: 1,", withExit("$(JOB_COMPLETION_INDEX)", "0s", "")) +
		job("indexes", "completions: 4, parallelism: 4, completionMode: Indexed, backoffLimitPerIndex: 0, maxFailedIndexes: 1,", withExit("$(JOB_COMPLETION_INDEX)", "0s", "")))
	const why = `{.status.conditions[?(@.type=="Failed")].reason}`
	w.ends("deadline", why, "FailureTarget Failed DeadlineExceeded")
	w.until("", "get", "job", "deadline", "-o", "jsonpath={.status.active}")
	w.ends("limit", "{.status.failed} "+why, "FailureTarget Failed 2 BackoffLimitExceeded")
	w.wants(w.do("get", "pods", "-l", "job-name=limit"), "Error")
	w.wants(w.do("describe", "job", "limit"), "BackoffLimitExceeded", "Job has reached the specified backoff limit", "0 Succeeded / 2 Failed")
	w.ends("within", why, "FailureTarget Failed BackoffLimitExceeded")
	w.ends("index", "{.status.completedIndexes} {.status.failedIndexes} {.status.failed} "+why, "FailureTarget Failed 0 1 2 FailedIndexes")
	w.ends("indexes", why, "FailureTarget Failed MaxFailedIndexesExceeded")
}

// jobPoliciesPage: failures that end all, end an index or count for nothing; successes that are enough.
func jobPoliciesPage(w *work) {
	rule := func(action, on string) string {
		return "podFailurePolicy: {rules: [{action: " + action + ", " + on + "}]},"
	}
	w.apply(job("fatal", "backoffLimit: 6, completions: 4, parallelism: 2,"+rule("FailJob", "onExitCodes: {containerName: app, operator: In, values: [42]}"), withExit("42", "0s", "")) +
		job("index", "completions: 2, parallelism: 2, completionMode: Indexed, backoffLimitPerIndex: 5,"+rule("FailIndex", "onExitCodes: {operator: NotIn, values: [0]}"), withExit("$(JOB_COMPLETION_INDEX)", "0s", "")) +
		job("disturbed", "backoffLimit: 0, "+rule("Ignore", "onPodConditions: [{type: DisruptionTarget}]"), withExit("0", "8s", "")) +
		job("enough", `completions: 3, parallelism: 3, completionMode: Indexed, successPolicy: {rules: [{succeededIndexes: "0,2", succeededCount: 1}]},`, withExit("0", "$(JOB_COMPLETION_INDEX)m", "")))
	w.untilPods("one to run", "job-name=disturbed", ready(1))
	pod := w.pods("job-name=disturbed")[0].Name
	if err := w.client.PolicyV1().Evictions(w.namespace).Evict(w.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: pod}}); err != nil {
		w.Fatal(err)
	}
	w.ends("fatal", `{.status.conditions[?(@.type=="Failed")].reason}`, "FailureTarget Failed PodFailurePolicy")
	w.wants(w.do("describe", "job", "fatal"), "Container app for pod "+w.namespace+"/fatal-", "failed with exit code 42 matching FailJob rule at index 0")
	w.ends("index", "{.status.completedIndexes} {.status.failedIndexes} {.status.failed}", "FailureTarget Failed 0 1 1")
	w.ends("enough", `{.status.completedIndexes} {.status.conditions[?(@.type=="Complete")].reason}`, "SuccessCriteriaMet Complete 0 SuccessPolicy")
	w.ends("disturbed", "{.status.succeeded} {.status.failed}", "SuccessCriteriaMet Complete 1")
}

// cronJobPage: by the clock, side by side, never twice, or the last one wins. A job is named after its minute, so there is one a minute.
func cronJobPage(w *work) {
	cron := func(name, fields, after string) string {
		return "\napiVersion: batch/v1\nkind: CronJob\nmetadata: {name: " + name + "}\nspec: {schedule: \"@every 2s\", " + fields +
			" jobTemplate: {spec: {template: {metadata: {labels: {app: " + name + "}}, spec: " + withExit("0", after, "") + "}}}}\n---"
	}
	w.apply(cron("allow", "", "5m") + cron("forbid", "concurrencyPolicy: Forbid,", "5m") + cron("replace", "concurrencyPolicy: Replace,", "5m") +
		cron("quick", "successfulJobsHistoryLimit: 0,", "0s") + cron("never", "suspend: true,", "0s"))
	active := func(name string) []string {
		return []string{"get", "cronjob", name, "-o", "jsonpath={.status.active[*].name}"}
	}
	var first string
	eventually(w, workloadLimit, "the first job", func() (string, bool) {
		first = w.do(active("replace")...)
		return first, len(strings.Fields(first)) == 1
	})
	eventually(w, workloadLimit, "another in its place", func() (string, bool) {
		out := w.do(active("replace")...)
		return out, len(strings.Fields(out)) == 1 && out != first
	})
	eventually(w, workloadLimit, "two at a time", func() (string, bool) {
		out := w.do(active("allow")...)
		return out, len(strings.Fields(out)) > 1
	})
	w.do("patch", "cronjob", "allow", "-p", `{"spec": {"suspend": true}}`)
	w.untilHas([]string{"describe", "cronjob", "forbid"}, "JobAlreadyActive", "SuccessfulCreate")
	if out := strings.Fields(w.do(active("forbid")...)); len(out) != 1 {
		w.Errorf("beside each other run %v", out)
	}
	w.untilHas([]string{"describe", "cronjob", "quick"}, "SawCompletedJob", "SuccessfulDelete", "Deleted job")
	w.wants(w.do("get", "cronjobs"), "NAME", "SCHEDULE", "TIMEZONE", "SUSPEND", "ACTIVE", "LAST SCHEDULE", "@every 2s", "<none>")
	w.wants(w.do("get", "jobs", "-o", `jsonpath={.items[0].metadata.annotations}`), "batch.kubernetes.io/cronjob-scheduled-timestamp")
	w.until("", append(active("never"), "--ignore-not-found")...)
	w.wants(w.fails("patch", "cronjob", "never", "-p", `{"spec": {"timeZone": "No/Where"}}`), "unknown time zone")
	w.wants(w.fails("patch", "cronjob", "never", "-p", `{"spec": {"schedule": "TZ=UTC 1 * * * *"}}`), "cannot use TZ or CRON_TZ in schedule")
	w.do("delete", "cronjobs", "--all")
	eventually(w, workloadLimit, "all to go with them", func() (string, bool) {
		out := w.do("get", "jobs,pods")
		return out, strings.Contains(out, "No resources found")
	})
}

// garbagePage: owners last, owners first, and dependents that stay; and what says that it is owned by nobody who is there.
func garbagePage(w *work) {
	const hold, free = `{"metadata": {"finalizers": ["example.com/hold"]}}`, `{"metadata": {"finalizers": null}}`
	for _, name := range []string{"last", "first", "stays"} {
		w.apply(replicated("Deployment", name, 1, "", withApp("")))
	}
	held := map[string]string{}
	for _, name := range []string{"last", "first", "stays"} {
		w.rolledOut("deployment/" + name)
		held[name] = w.pods("app=" + name)[0].Name
	}
	w.do("patch", "pod", held["last"], "-p", hold)
	w.do("delete", "deployment", "last", "--cascade=foreground", "--wait=false")
	w.until(`["foregroundDeletion"] ["foregroundDeletion"]`, "get", "deployment,rs", "-l", "app=last", "-o", "jsonpath={.items[*].metadata.finalizers}")
	w.do("patch", "pod", held["first"], "-p", hold)
	w.do("delete", "deployment", "first", "--cascade=background", "--timeout=60s")
	w.until("", "get", "rs", "-l", "app=first", "-o", "name")
	for _, name := range []string{"last", "first"} {
		w.until("true", "get", "pod", held[name], "-o", "go-template={{if .metadata.deletionTimestamp}}true{{end}}")
		w.do("patch", "pod", held[name], "-p", free)
		w.do("wait", "--for=delete", "pod/"+held[name], "--timeout=60s")
	}
	w.do("wait", "--for=delete", "deployment/last", "--timeout=60s")
	w.do("delete", "deployment", "stays", "--cascade=orphan")
	w.until("", "get", "rs", "-l", "app=stays", "-o", "jsonpath={.items[0].metadata.ownerReferences}")
	w.untilPods("the pod to stay", "app=stays", func(pods []corev1.Pod) bool { return ready(1)(pods) && pods[0].Name == held["stays"] })
	w.apply(`{apiVersion: v1, kind: ConfigMap, metadata: {name: lost, ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: nobody, uid: 00000000-0000-0000-0000-000000000001}]}}`)
	w.do("wait", "--for=delete", "configmap/lost", "--timeout=60s")
}
