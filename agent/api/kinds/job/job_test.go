package job

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/podvine/podvine/agent/api/kinds/kindtest"
)

const (
	// generated is a job whose selector the server makes.
	generated = `{metadata: {name: j, namespace: ns}, spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: example.com/app}]}}}}`
	base      = `{metadata: {name: j, namespace: ns}, spec: {manualSelector: true, selector: {matchLabels: {a: b}},
  template: {metadata: {labels: {a: b}}, spec: {restartPolicy: Never, containers: [{name: c, image: example.com/app}]}}}}`
	suspended = `{metadata: {name: j, namespace: ns}, spec: {suspend: true, manualSelector: true, selector: {matchLabels: {a: b}},
  template: {metadata: {labels: {a: b}}, spec: {restartPolicy: Never, containers: [{name: c, image: example.com/app}]}}}}`
	// whole has every policy.
	whole = `{metadata: {name: j, namespace: ns}, spec: {manualSelector: true, selector: {matchLabels: {a: b}}, completionMode: Indexed, completions: 4, parallelism: 4, backoffLimitPerIndex: 1, maxFailedIndexes: 2,
  podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {containerName: c, operator: In, values: [1, 2]}}, {action: Ignore, onPodConditions: [{type: DisruptionTarget}]}]},
  successPolicy: {rules: [{succeededIndexes: "0,2-3", succeededCount: 1}]},
  template: {metadata: {labels: {a: b}}, spec: {restartPolicy: Never, containers: [{name: c, image: example.com/app}]}}}}`
	// ended is a job that succeeded.
	ended = `{metadata: {name: j, namespace: ns}, spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: example.com/app}]}}},
  status: {startTime: "2026-01-01T00:00:00Z", completionTime: "2026-01-01T00:01:00Z", succeeded: 1, failed: 1,
    conditions: [{type: SuccessCriteriaMet, status: "True"}, {type: Complete, status: "True"}]}}`
)

func row(base, name string, class kindtest.Class, patch, err string) kindtest.Row {
	return kindtest.Row{Base: base, Field: "spec." + name, Class: class, Patch: `{"spec":` + patch + `}`, Error: err}
}

func status(base, name, patch, err string) kindtest.Row {
	class := kindtest.Immutable
	if err == "" {
		class = kindtest.Mutable
	}
	return kindtest.Row{Base: base, Field: "status." + name, Class: class, Patch: `{"status":` + patch + `}`, Error: err, Status: true}
}

// What a status said cannot be taken back.
func TestStatusGoesForward(t *testing.T) {
	truth := func(types ...batchv1.JobConditionType) (out []batchv1.JobCondition) {
		for _, name := range types {
			out = append(out, batchv1.JobCondition{Type: name, Status: corev1.ConditionTrue})
		}
		return out
	}
	at := func(minute int) *metav1.Time { return &metav1.Time{Time: time.Unix(1_000_000+60*int64(minute), 0)} }
	complete := truth(batchv1.JobSuccessCriteriaMet, batchv1.JobComplete)
	was := batchv1.JobStatus{StartTime: at(0), CompletionTime: at(1), Succeeded: 2, Failed: 1, Conditions: complete}
	for _, test := range []struct {
		name, want string
		change     func(*batchv1.JobStatus)
	}{
		{"nothing", "", func(*batchv1.JobStatus) {}},
		{"fewer succeeded", "status.succeeded", func(s *batchv1.JobStatus) { s.Succeeded = 1 }},
		{"fewer failed", "status.failed", func(s *batchv1.JobStatus) { s.Failed = 0 }},
		{"another end", "status.completionTime", func(s *batchv1.JobStatus) { s.CompletionTime = at(2) }},
		{"another start", "status.startTime", func(s *batchv1.JobStatus) { s.StartTime = at(-1) }},
		{"not complete any more", "status.completionTime status.conditions", func(s *batchv1.JobStatus) { s.Conditions = truth(batchv1.JobSuccessCriteriaMet) }},
		{"failed as well", "status.conditions", func(s *batchv1.JobStatus) {
			s.Conditions = append(s.Conditions, truth(batchv1.JobFailed, batchv1.JobFailureTarget)...)
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			old := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j", Namespace: "ns", ResourceVersion: "1"}, Status: was}
			next := old.DeepCopy()
			test.change(&next.Status)
			fields := map[string]bool{}
			for _, err := range validateStatusUpdate(t.Context(), next, old) {
				fields[err.Field] = true
			}
			if got := strings.Join(slices.Sorted(maps.Keys(fields)), " "); got != test.want {
				t.Errorf("errors are of %q, want %q", got, test.want)
			}
		})
	}
}

func TestFields(t *testing.T) {
	rows := append(specRows(), policyRows()...)
	rows = append(rows, statusRows()...)
	kindtest.Run(t, kindtest.Table{Resource: Resource(), Base: base, Rows: rows, Elsewhere: map[string]string{"spec.template": "package pod", "spec.scheduling": "dropped as a whole"}})
}

func specRows() []kindtest.Row {
	defaulted := func(base, name, want string) kindtest.Row {
		return kindtest.Row{Base: base, Field: "spec." + name, Class: kindtest.Defaulted, Want: `{"spec":` + want + `}`}
	}
	refused := func(name, patch, err string) kindtest.Row { return row("", name, kindtest.Invalid, patch, err) }
	return []kindtest.Row{
		defaulted("", "parallelism", `{"parallelism":1,"completions":1}`),
		refused("parallelism", `{"parallelism":-1}`, "Invalid spec.parallelism"),
		row(whole, "parallelism", kindtest.Invalid, `{"parallelism":100001}`, "Invalid spec.parallelism"),
		refused("completions", `{"completions":-1}`, "Invalid spec.completions"),
		row("", "completions", kindtest.Immutable, `{"completions":2}`, "Invalid spec.completions"),
		row(whole, "completions", kindtest.Mutable, `{"completions":5,"parallelism":5}`, ""),
		row(whole, "completions", kindtest.Immutable, `{"completions":5}`, "Invalid spec.completions"),
		row(whole, "completions", kindtest.Invalid, `{"completions":null}`, "Required spec.completions; Invalid spec.successPolicy.rules[0].succeededIndexes; Invalid spec.successPolicy.rules[0].succeededCount; Invalid spec.successPolicy.rules[0].succeededCount"),
		row(whole, "completions", kindtest.Invalid, `{"completions":100001,"maxFailedIndexes":null,"parallelism":10001}`, "Required spec.maxFailedIndexes; Invalid spec.parallelism"),
		refused("activeDeadlineSeconds", `{"activeDeadlineSeconds":-1}`, "Invalid spec.activeDeadlineSeconds"),
		defaulted("", "backoffLimit", `{"backoffLimit":6}`),
		defaulted(whole, "backoffLimit", `{"backoffLimit":2147483647}`),
		refused("backoffLimit", `{"backoffLimit":-1}`, "Invalid spec.backoffLimit"),
		refused("backoffLimitPerIndex", `{"backoffLimitPerIndex":1}`, "Invalid spec.backoffLimitPerIndex"),
		row(whole, "backoffLimitPerIndex", kindtest.Invalid, `{"backoffLimitPerIndex":-1}`, "Invalid spec.backoffLimitPerIndex"),
		row(whole, "backoffLimitPerIndex", kindtest.Immutable, `{"backoffLimitPerIndex":2}`, "Invalid spec.backoffLimitPerIndex"),
		refused("maxFailedIndexes", `{"maxFailedIndexes":1}`, "Invalid spec.maxFailedIndexes; Required spec.backoffLimitPerIndex"),
		row(whole, "maxFailedIndexes", kindtest.Invalid, `{"maxFailedIndexes":5}`, "Invalid spec.maxFailedIndexes"),
		row(whole, "maxFailedIndexes", kindtest.Invalid, `{"completions":200000,"maxFailedIndexes":100001}`, "Invalid spec.maxFailedIndexes; Invalid spec.maxFailedIndexes"),
		{Base: generated, Field: "spec.selector.matchLabels", Class: kindtest.Defaulted, Want: `{"spec":{"template":{"metadata":{"labels":{"job-name":"j","batch.kubernetes.io/job-name":"j"}}}}}`},
		row(generated, "selector", kindtest.Invalid, `{"selector":{"matchLabels":{"a":"b"}}}`, "Invalid spec.selector; Invalid spec.template.metadata.labels"),
		row(generated, "template.metadata.labels", kindtest.Invalid, `{"template":{"metadata":{"labels":{"job-name":"other"}}}}`,
			"Invalid spec.template.metadata.labels[job-name]; Required spec.template.metadata.labels[batch.kubernetes.io/job-name]"),
		refused("selector.matchExpressions[].key", `{"selector":{"matchExpressions":[{"key":"a b","operator":"DoesNotExist"}]}}`, "Invalid spec.selector.matchExpressions[0].key"),
		refused("selector.matchExpressions[].operator", `{"selector":{"matchExpressions":[{"key":"a","operator":"Like"}]}}`, "Invalid spec.selector.matchExpressions[0].operator"),
		refused("selector.matchExpressions[].values", `{"selector":{"matchExpressions":[{"key":"a","operator":"In"}]}}`, "Required spec.selector.matchExpressions[0].values"),
		defaulted(generated, "manualSelector", `{"manualSelector":false}`),
		row(generated, "manualSelector", kindtest.Invalid, `{"manualSelector":true}`, "Required spec.selector; Invalid spec.template.metadata.labels"),
		row("", "template", kindtest.Immutable, `{"template":{"spec":{"dnsPolicy":"Default"}}}`, "Invalid spec.template.spec"),
		row("", "template", kindtest.Immutable, `{"template":{"metadata":{"annotations":{"x":"y"}}}}`, "Invalid spec.template.metadata"),
		row(suspended, "suspend", kindtest.Mutable, `{"suspend":false}`, ""),
		row(suspended, "template", kindtest.Mutable, `{"template":{"metadata":{"annotations":{"x":"y"}}}}`, ""),
		row(suspended, "template", kindtest.Mutable, `{"template":{"spec":{"nodeSelector":{"x":"y"},"tolerations":[{"operator":"Exists"}]}}}`, ""),
		row(suspended, "template", kindtest.Mutable, `{"template":{"spec":{"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchExpressions":[{"key":"x","operator":"Exists"}]}]}}}}}}`, ""),
		row(suspended, "template", kindtest.Immutable, `{"template":{"spec":{"affinity":{"podAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":[{"topologyKey":"x"}]}}}}}`, "Invalid spec.template.spec"),
		row(suspended, "template", kindtest.Immutable, `{"template":{"spec":{"dnsPolicy":"Default"}}}`, "Invalid spec.template.spec"),
		row("", "template", kindtest.Invalid, `{"template":{"spec":{"restartPolicy":"Always"}}}`, "Required spec.template.spec.restartPolicy"),
		row(whole, "template", kindtest.Invalid, `{"template":{"spec":{"restartPolicy":"OnFailure"}}}`, "Invalid spec.template.spec.restartPolicy"),
		refused("ttlSecondsAfterFinished", `{"ttlSecondsAfterFinished":-1}`, "Invalid spec.ttlSecondsAfterFinished"),
		defaulted("", "completionMode", `{"completionMode":"NonIndexed"}`),
		refused("completionMode", `{"completionMode":"Some"}`, "NotSupported spec.completionMode"),
		row("", "completionMode", kindtest.Immutable, `{"completionMode":"Indexed"}`, "Invalid spec.completionMode"),
		defaulted("", "suspend", `{"suspend":false}`),
		row("", "suspend", kindtest.Mutable, `{"suspend":true}`, ""),
		defaulted("", "podReplacementPolicy", `{"podReplacementPolicy":"TerminatingOrFailed"}`),
		defaulted(whole, "podReplacementPolicy", `{"podReplacementPolicy":"Failed"}`),
		row(whole, "podReplacementPolicy", kindtest.Invalid, `{"podReplacementPolicy":"TerminatingOrFailed"}`, "NotSupported spec.podReplacementPolicy"),
		refused("managedBy", `{"managedBy":"no-domain"}`, "Invalid spec.managedBy"),
		{Field: "spec.scheduling", Class: kindtest.Dropped, Patch: `{"spec":{"scheduling":{"disruptionMode":{"single":{}}}}}`},
		row("", "managedBy", kindtest.Immutable, `{"managedBy":"example.com/c"}`, "Invalid spec.managedBy"),
	}
}

func policyRows() []kindtest.Row {
	const rules = "podFailurePolicy.rules[]"
	const list = "podFailurePolicy.rules"
	failure := func(name, rule, err string) kindtest.Row {
		return row(whole, name, kindtest.Invalid, `{"podFailurePolicy":{"rules":[`+rule+`]}}`, err)
	}
	success := func(name, rule, err string) kindtest.Row {
		return row(whole, name, kindtest.Invalid, `{"successPolicy":{"rules":[`+rule+`]}}`, err)
	}
	const at, ok = "spec.podFailurePolicy.rules[0]", "spec.successPolicy.rules[0]"
	return []kindtest.Row{
		row(whole, "podFailurePolicy", kindtest.Immutable, `{"podFailurePolicy":{"rules":[]}}`, "Invalid spec.podFailurePolicy"),
		failure(rules+".action", `{"action":"Never","onExitCodes":{"operator":"In","values":[1]}}`, "NotSupported "+at+".action"),
		failure(rules+".action", `{"onExitCodes":{"operator":"In","values":[1]}}`, "Required "+at+".action"),
		row("", rules+".action", kindtest.Invalid, `{"podFailurePolicy":{"rules":[{"action":"FailIndex","onExitCodes":{"operator":"In","values":[1]}}]}}`, "Invalid "+at+".action"),
		failure(list, `{"action":"Count"}`, "Invalid "+at),
		failure(list, `{"action":"Count","onExitCodes":{"operator":"In","values":[1]},"onPodConditions":[{"type":"A"}]}`, "Invalid "+at),
		failure(rules+".onExitCodes.containerName", `{"action":"Count","onExitCodes":{"containerName":"x","operator":"In","values":[1]}}`, "Invalid "+at+".onExitCodes.containerName"),
		failure(rules+".onExitCodes.operator", `{"action":"Count","onExitCodes":{"operator":"Like","values":[1]}}`, "NotSupported "+at+".onExitCodes.operator"),
		failure(rules+".onExitCodes.values", `{"action":"Count","onExitCodes":{"operator":"In"}}`, "Invalid "+at+".onExitCodes.values"),
		failure(rules+".onExitCodes.values", `{"action":"Count","onExitCodes":{"operator":"In","values":[0,2,1]}}`, "Invalid "+at+".onExitCodes.values[0]; Invalid "+at+".onExitCodes.values"),
		failure(rules+".onExitCodes.values", `{"action":"Count","onExitCodes":{"operator":"NotIn","values":[1,1]}}`, "Duplicate "+at+".onExitCodes.values"),
		failure(rules+".onPodConditions[].type", `{"action":"Count","onPodConditions":[{"type":"a b"}]}`, "Invalid "+at+".onPodConditions[0].type"),
		failure(rules+".onPodConditions[].status", `{"action":"Count","onPodConditions":[{"type":"A","status":"true"}]}`, "NotSupported "+at+".onPodConditions[0].status"),
		{Base: whole, Field: "spec." + rules + ".onPodConditions[].status", Class: kindtest.Defaulted,
			Want: `{"spec":{"podFailurePolicy":{"rules":[{"action":"FailJob"},{"onPodConditions":[{"status":"True"}]}]}}}`},
		row("", "successPolicy", kindtest.Invalid, `{"successPolicy":{"rules":[]}}`, "Invalid spec.successPolicy"),
		row(whole, "successPolicy", kindtest.Immutable, `{"successPolicy":{"rules":[{"succeededCount":2}]}}`, "Invalid spec.successPolicy"),
		row(whole, "successPolicy.rules", kindtest.Invalid, `{"successPolicy":{"rules":[]}}`, "Required spec.successPolicy.rules"),
		success("successPolicy.rules", `{}`, "Required "+ok),
		success("successPolicy.rules[].succeededIndexes", `{"succeededIndexes":"4"}`, "Invalid "+ok+".succeededIndexes"),
		success("successPolicy.rules[].succeededIndexes", `{"succeededIndexes":"1,1"}`, "Invalid "+ok+".succeededIndexes"),
		success("successPolicy.rules[].succeededIndexes", `{"succeededIndexes":"1-2-3"}`, "Invalid "+ok+".succeededIndexes"),
		success("successPolicy.rules[].succeededCount", `{"succeededCount":5}`, "Invalid "+ok+".succeededCount"),
		success("successPolicy.rules[].succeededCount", `{"succeededCount":2,"succeededIndexes":"1"}`, "Invalid "+ok+".succeededCount"),
	}
}

func statusRows() []kindtest.Row {
	condition := func(patch string) string { return `{"conditions":[{"type":"A","status":"True",` + patch + `}]}` }
	return []kindtest.Row{
		status("", "conditions[].type", `{"conditions":[{"type":"Complete","status":"True"}],"startTime":"2026-01-01T00:00:00Z","completionTime":"2026-01-01T00:00:00Z"}`, "Invalid status.conditions"),
		status("", "conditions[].type", `{"conditions":[{"type":"Failed","status":"True"}],"startTime":"2026-01-01T00:00:00Z"}`, "Invalid status.conditions"),
		status("", "conditions[].lastProbeTime", condition(`"lastProbeTime":"2026-01-01T00:00:00Z"`), ""),
		status("", "conditions[].lastTransitionTime", condition(`"lastTransitionTime":"2026-01-01T00:00:00Z"`), ""),
		status("", "conditions[].reason", condition(`"reason":"R"`), ""),
		status("", "conditions[].message", condition(`"message":"m"`), ""),
		status(ended, "startTime", `{"startTime":null}`, "Required status.startTime"),
		status(ended, "completionTime", `{"completionTime":null}`, "Required status.completionTime"),
		status("", "completionTime", `{"completionTime":"2026-01-01T00:02:00Z"}`, "Invalid status.completionTime"),
		status("", "active", `{"active":-1}`, "Invalid status.active"),
		status(ended, "active", `{"active":1}`, "Invalid status.active"),
		status(ended, "conditions[].status", `{"conditions":[{"type":"SuccessCriteriaMet","status":"False"},{"type":"Complete","status":"True"}]}`, "Invalid status.conditions"),
		status("", "succeeded", `{"succeeded":-1}`, "Invalid status.succeeded"),
		status("", "failed", `{"failed":-1}`, "Invalid status.failed"),
		status("", "terminating", `{"terminating":-1}`, "Invalid status.terminating"),
		status(ended, "terminating", `{"terminating":1}`, "Invalid status.terminating"),
		status("", "ready", `{"ready":1}`, "Invalid status.ready"),
		status("", "completedIndexes", `{"completedIndexes":"0"}`, "Invalid status.completedIndexes"),
		status(whole, "completedIndexes", `{"completedIndexes":"0,9"}`, "Invalid status.completedIndexes"),
		status(whole, "failedIndexes", `{"failedIndexes":"0-2","completedIndexes":"2"}`, "Invalid status.failedIndexes"),
		status("", "failedIndexes", `{"failedIndexes":"0"}`, "Invalid status.failedIndexes"),
		status("", "uncountedTerminatedPods.succeeded", `{"uncountedTerminatedPods":{"succeeded":["a",""]}}`, "Invalid status.uncountedTerminatedPods.succeeded[1]"),
		status("", "uncountedTerminatedPods.failed", `{"uncountedTerminatedPods":{"succeeded":["a"],"failed":["a"]}}`, "Duplicate status.uncountedTerminatedPods.failed[0]"),
		status(ended, "uncountedTerminatedPods", `{"uncountedTerminatedPods":{"failed":["a"]}}`, "Invalid status.uncountedTerminatedPods"),
	}
}
