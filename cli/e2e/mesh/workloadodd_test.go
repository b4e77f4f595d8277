package mesh

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// lateCronPage: CronJobs that are years behind start one job, the latest, in their time zone; or none, when it is too late for it or
// they are suspended.
func lateCronPage(w *work) {
	cron := func(name, schedule, fields string) string {
		return "\napiVersion: batch/v1\nkind: CronJob\nmetadata: {name: " + name + "}\nspec: {schedule: \"" + schedule + "\", suspend: true, " + fields +
			" jobTemplate: {spec: {template: {spec: " + withExit("0", "5m", "") + "}}}}\n---"
	}
	const eachMinute, eachDay, leapDays = "* * * * *", "0 3 * * *", "0 3 29 2 *"
	w.apply(cron("minutes", eachMinute, "concurrencyPolicy: Forbid,") + cron("days", eachDay, "timeZone: Asia/Tokyo,") + cron("leap", leapDays, "") +
		cron("too-late", leapDays, "startingDeadlineSeconds: 10,") + cron("suspended", leapDays, ""))
	behind := `{"status": {"lastScheduleTime": "` + time.Now().AddDate(-5, 0, 0).UTC().Format(time.RFC3339) + `"}}`
	for _, name := range []string{"minutes", "days", "leap", "too-late", "suspended"} {
		w.do("patch", "cronjob", name, "--subresource=status", "--type=merge", "-p", behind)
		if name != "suspended" {
			w.do("patch", "cronjob", name, "-p", `{"spec": {"suspend": false}}`)
		}
	}
	jobs := func(name string) []string {
		return strings.Fields(w.do("get", "jobs", "-o", `jsonpath={range .items[?(@.metadata.ownerReferences[0].name=="`+name+`")]}{.metadata.annotations.batch\.kubernetes\.io/cronjob-scheduled-timestamp}{"\n"}{end}`))
	}
	for _, name := range []string{"minutes", "days", "leap"} {
		eventually(w, workloadLimit, "the job of "+name, func() (string, bool) {
			made := jobs(name)
			return strings.Join(made, " "), len(made) > 0
		})
		if made := jobs(name); len(made) > 1 {
			w.Errorf("%s started %v", name, made)
		}
	}
	if made := jobs("days"); !strings.HasSuffix(made[0], "T03:00:00+09:00") {
		w.Errorf("three o'clock in Tokyo is %v", made)
	}
	w.wants(jobs("leap")[0], "-02-29T03:00:00Z")
	for _, name := range []string{"minutes", "days"} {
		w.untilHas([]string{"describe", "cronjob", name}, "TooManyMissedTimes", "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew", "SuccessfulCreate", "Created job "+name+"-")
	}
	w.untilHas([]string{"describe", "cronjob", "too-late"}, "MissSchedule", "Missed scheduled time to start a job")
	for _, name := range []string{"too-late", "suspended"} {
		if made := jobs(name); len(made) > 0 {
			w.Errorf("%s started %v", name, made)
		}
	}
	w.wants(w.do("get", "cronjobs"), "Asia/Tokyo", "<none>", "True", "False")
	w.wants(w.do("describe", "cronjob", "too-late"), "Starting Deadline Seconds:     10s", "Concurrency Policy:            Allow")
}

// overlapPage: controllers with the same selector leave each other's pods alone; of budgets with the same pods none can be kept, and that
// is said.
func overlapPage(w *work) {
	same := func(kind, name string) string {
		return strings.Replace(replicated(kind, "front", 2, "", withApp("")), "name: front", "name: "+name, 1)
	}
	w.apply(same("Deployment", "one") + same("Deployment", "two"))
	w.rolledOut("deployment/one")
	w.rolledOut("deployment/two")
	w.untilPods("two of each", "app=front", ready(4))
	owners := func() map[string]int {
		count := map[string]int{}
		for _, p := range w.pods("app=front") {
			name, _, _ := strings.Cut(metav1.GetControllerOf(&p).Name, "-")
			count[name]++
		}
		return count
	}
	w.do("scale", "deployment/one", "--replicas=1")
	w.do("set", "env", "deployment/two", "STEP=two")
	w.rolledOut("deployment/two")
	w.untilPods("one less", "app=front", ready(3))
	if by := owners(); by["one"] != 1 || by["two"] != 2 {
		w.Errorf("pods by owner: %v", by)
	}
	w.until("1 2", "get", "deployments", "-o", "jsonpath={.items[*].status.availableReplicas}")
	w.do("create", "pdb", "all", "--selector=app=front", "--min-available=1")
	w.do("create", "pdb", "most", "--selector=app=front", "--max-unavailable=1")
	w.untilHas([]string{"get", "pdb"}, "all", "most")
	pods := w.pods("app=front")
	w.wants(w.fails("drain", pods[0].Spec.NodeName, "--dry-run=server", "--pod-selector=app=front"), "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.")
}

// neverPage: what never starts says why, where one would look.
func neverPage(w *work) {
	w.do("create", "quota", "one", "--hard=pods=1")
	w.until("1", "get", "quota", "one", "-o", "jsonpath={.status.hard.pods}")
	w.apply(replicated("Deployment", "many", 2, "", withApp("")))
	w.until("True FailedCreate", "get", "deployment", "many", "-o", `jsonpath={.status.conditions[?(@.type=="ReplicaFailure")]['status','reason']}`)
	w.untilHas([]string{"describe", "rs"}, "FailedCreate", "Error creating: pods \"many-", "is forbidden: exceeded quota: one, requested: pods=1, used: pods=1, limited: pods=1")
	w.apply(job("full", "", withExit("0", "0s", "")))
	w.untilHas([]string{"describe", "job", "full"}, "FailedCreate", "exceeded quota: one")
	w.do("delete", "quota", "one")
	w.do("delete", "deployment", "many")
	w.ends("full", "{.status.succeeded}", "SuccessCriteriaMet Complete 1")

	w.do("run", "nowhere", "--image=podvine.io/sample:none")
	w.untilHas([]string{"get", "pod", "nowhere"}, "0/1", "ImagePullBackOff")
	w.untilHas([]string{"describe", "pod", "nowhere"}, "Reason:       ImagePullBackOff", "Normal   Scheduled", "Successfully assigned "+w.namespace+"/nowhere to h", "Normal   Pulling",
		"Warning  Failed", "Error: ErrImagePull", "Normal   BackOff", `Back-off pulling image "podvine.io/sample:none"`, "Error: ImagePullBackOff")
	w.apply(bare("crashes", strings.Replace(withExit("3", "0s", ""), "Never", "Always", 1)))
	w.untilHas([]string{"get", "pod", "crashes"}, "CrashLoopBackOff")
	w.untilHas([]string{"describe", "pod", "crashes"}, "Reason:       CrashLoopBackOff", "Last State:     Terminated", "Exit Code:    3", "Warning  BackOff", "Back-off restarting failed container app in pod crashes_"+w.namespace)
}

// lyingPage: a node whose status was made to promise too much says the truth again, and takes no more than it has, whoever asks.
func lyingPage(w *work) {
	const lie = `{"status": {"capacity": {"cpu": "1000"}, "allocatable": {"cpu": "1000"}}}`
	cpus := []string{"get", "node", "h4", "-o", "jsonpath={.status.capacity.cpu} {.status.allocatable.cpu}"}
	truth := w.do(cpus...)
	w.do("patch", "node", "h4", "--subresource=status", "-p", lie)
	w.until(truth, cpus...)
	w.apply(bare("large", `{nodeName: h4, containers: [{name: app, image: "`+appImage+`", resources: {requests: {cpu: "900"}}}]}`))
	w.untilHas([]string{"get", "pod", "large"}, "0/1", "OutOfcpu")
	w.wants(w.do("describe", "pod", "large"), "Status:           Failed", "Reason:           OutOfcpu",
		"Pod was rejected: Node didn't have enough resource: cpu, requested: 900000, used: ")
	w.untilHas([]string{"get", "events"}, "Warning", "OutOfcpu", "pod/large", "Node didn't have enough resource: cpu, requested: 900000, used: ")
	if status := w.pods("app=large")[0].Status; len(status.ContainerStatuses) > 0 || slices.ContainsFunc(status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.ContainersReady && c.Status == corev1.ConditionTrue
	}) {
		w.Errorf("it did not run, but says %+v", status)
	}
}
