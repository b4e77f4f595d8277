package e2e

import (
	"strings"
	"testing"
	"time"
)

// jobOf is the manifest of a Job whose pods run the script; spec is further fields of its specification.
func jobOf(name, spec, script string) string {
	return `
apiVersion: batch/v1
kind: Job
metadata: {name: ` + name + `}
spec: {` + spec + `, template: {spec: {restartPolicy: Never, terminationGracePeriodSeconds: 1,
  containers: [{name: c, image: "` + shellImage + `", command: [sh, -c, '` + script + `']}]}}}
---`
}

// jobEnds waits until a Job says of its end what is wanted.
func jobEnds(t *testing.T, ns, name, fields, want string) {
	t.Helper()
	eventually(t, 90*time.Second, "job "+name+" to end", func() (string, bool) {
		out := kubectl(t, ns, "get", "job", name, "-o", "jsonpath="+fields)
		return out + "\n" + kubectl(t, ns, "get", "pods", "-l", "job-name="+name), out == want
	})
}

func TestJobs(t *testing.T) {
	ns := newNamespace(t)
	out := apply(t, ns, strings.Join([]string{
		jobOf("parallel", "completions: 4, parallelism: 2", "true"),
		jobOf("indexed", "completions: 3, parallelism: 3, completionMode: Indexed", "echo I am $JOB_COMPLETION_INDEX of $(hostname)"),
		jobOf("strict", "backoffLimit: 5, podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [3]}}]}", "exit 3"),
		jobOf("picky", "completions: 2, parallelism: 2, completionMode: Indexed, backoffLimitPerIndex: 0", "exit $JOB_COMPLETION_INDEX"),
		jobOf("enough", "completions: 3, parallelism: 3, completionMode: Indexed, successPolicy: {rules: [{succeededIndexes: \"0\"}]}",
			"test $JOB_COMPLETION_INDEX = 0 || sleep 300"),
		jobOf("paused", "suspend: true", "true"),
		jobOf("short", "ttlSecondsAfterFinished: 1", "true"),
	}, ""))
	if strings.Contains(out, "Warning") {
		t.Errorf("warns of what works:\n%s", out)
	}
	const conditions = "{.status.conditions[?(@.status==\"True\")].type}"
	jobEnds(t, ns, "parallel", conditions+" {.status.succeeded}", "SuccessCriteriaMet Complete 4")
	jobEnds(t, ns, "indexed", conditions+" {.status.completedIndexes}", "SuccessCriteriaMet Complete 0-2")
	wants(t, kubectl(t, ns, "logs", "-l", "job-name=indexed", "--prefix=false"), "I am 0 of indexed-0", "I am 1 of indexed-1", "I am 2 of indexed-2")
	jobEnds(t, ns, "strict", conditions+" {.status.failed}", "FailureTarget Failed 1")
	wants(t, kubectl(t, ns, "describe", "job", "strict"), "PodFailurePolicy", "failed with exit code 3 matching FailJob rule at index 0")
	jobEnds(t, ns, "picky", conditions+" {.status.completedIndexes} {.status.failedIndexes}", "FailureTarget Failed 0 1")
	jobEnds(t, ns, "enough", conditions+" {.status.completedIndexes} {.status.terminating}", "SuccessCriteriaMet Complete 0 0")

	jobEnds(t, ns, "paused", conditions, "Suspended")
	kubectl(t, ns, "patch", "job", "paused", "-p", `{"spec": {"suspend": false}}`)
	jobEnds(t, ns, "paused", conditions, "SuccessCriteriaMet Complete")
	wants(t, kubectl(t, ns, "describe", "job", "paused"), "Suspended", "Resumed", "Completed")
	kubectl(t, ns, "wait", "--for=delete", "job/short", "--timeout=60s")
	if out := kubectl(t, ns, "get", "pods", "-l", "job-name=short"); !strings.Contains(out, "No resources found") {
		t.Errorf("pods outlived their job:\n%s", out)
	}
	eventually(t, 30*time.Second, "no pod to keep the finalizer", func() (string, bool) {
		out := kubectl(t, ns, "get", "pods", "-o", "jsonpath={.items[*].metadata.finalizers}")
		return out, out == ""
	})
}

// TestPodsOutliveTheirJob deletes a running Job without its pods: they can be deleted all the same.
func TestPodsOutliveTheirJob(t *testing.T) {
	ns := newNamespace(t)
	apply(t, ns, jobOf("left", "completions: 1", "sleep 300"))
	eventually(t, 60*time.Second, "the pod to run", func() (string, bool) {
		out := kubectl(t, ns, "get", "pods")
		return out, strings.Contains(out, "Running")
	})
	kubectl(t, ns, "delete", "job", "left", "--cascade=orphan")
	eventually(t, 30*time.Second, "the pod to be without owner and finalizer", func() (string, bool) {
		out := kubectl(t, ns, "get", "pods", "-o", "jsonpath={.items[*].metadata.ownerReferences}{.items[*].metadata.finalizers}{.items[*].status.phase}")
		return out, out == "Running"
	})
	kubectl(t, ns, "delete", "pods", "--all", "--timeout=60s")
}

// TestCronJobs starts real jobs, takes one from the template by hand, and lets them go with their CronJob.
func TestCronJobs(t *testing.T) {
	ns := newNamespace(t)
	out := apply(t, ns, `
apiVersion: batch/v1
kind: CronJob
metadata: {name: tick}
spec:
  schedule: "@every 2s"
  concurrencyPolicy: Forbid
  successfulJobsHistoryLimit: 2
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: c, image: "`+shellImage+`", command: [echo, tock]}]
`)
	if strings.Contains(out, "Warning") {
		t.Errorf("warns of what works:\n%s", out)
	}
	eventually(t, 80*time.Second, "a job to succeed", func() (string, bool) {
		out := kubectl(t, ns, "get", "cronjob", "tick", "-o", "jsonpath={.status.lastSuccessfulTime}")
		return kubectl(t, ns, "get", "cronjobs,jobs,pods"), out != ""
	})
	kubectl(t, ns, "patch", "cronjob", "tick", "-p", `{"spec": {"suspend": true}}`)
	wants(t, kubectl(t, ns, "describe", "cronjob", "tick"), "SuccessfulCreate", "Created job tick-", "SawCompletedJob")
	wants(t, kubectl(t, ns, "create", "job", "by-hand", "--from=cronjob/tick"), "job.batch/by-hand created")
	kubectl(t, ns, "wait", "--for=condition=complete", "job/by-hand", "--timeout=60s")
	wants(t, kubectl(t, ns, "logs", "job/by-hand"), "tock")
	kubectl(t, ns, "delete", "cronjob", "tick")
	eventually(t, 60*time.Second, "its jobs to go with it", func() (string, bool) {
		out := kubectl(t, ns, "get", "jobs,pods")
		return out, strings.Contains(out, "No resources found")
	})
}
