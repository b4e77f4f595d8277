package cronjob

import (
	"testing"

	"github.com/podvine/podvine/agent/api/kinds/kindtest"
)

const base = `{metadata: {name: c, namespace: ns}, spec: {schedule: "*/5 * * * *", jobTemplate: {spec: {
  template: {spec: {restartPolicy: Never, containers: [{name: c, image: example.com/app}]}}}}}}`

func TestFields(t *testing.T) {
	spec := func(name string, class kindtest.Class, patch, err string) kindtest.Row {
		return kindtest.Row{Field: "spec." + name, Class: class, Patch: `{"spec":` + patch + `}`, Error: err}
	}
	status := func(name, patch string) kindtest.Row {
		return kindtest.Row{Field: "status." + name, Class: kindtest.Mutable, Patch: `{"status":` + patch + `}`, Status: true}
	}
	active := func(patch string) string { return `{"active":[` + patch + `]}` }
	const template = "spec.jobTemplate.spec."
	kindtest.Run(t, kindtest.Table{
		Resource:  Resource(),
		Base:      base,
		Elsewhere: map[string]string{"spec.jobTemplate.spec": "package job", "spec.jobTemplate.metadata": "not validated, as in Kubernetes"},
		Rows: []kindtest.Row{
			spec("schedule", kindtest.Valid, `{"schedule":"@every 1s"}`, ""),
			spec("schedule", kindtest.Invalid, `{"schedule":""}`, "Required spec.schedule"),
			spec("schedule", kindtest.Invalid, `{"schedule":"61 * * * *"}`, "Invalid spec.schedule"),
			spec("schedule", kindtest.Invalid, `{"schedule":"TZ=UTC * * * * *"}`, "Invalid spec.schedule"),
			spec("timeZone", kindtest.Valid, `{"timeZone":"Europe/Berlin"}`, ""),
			spec("timeZone", kindtest.Invalid, `{"timeZone":""}`, "Invalid spec.timeZone"),
			spec("timeZone", kindtest.Invalid, `{"timeZone":"local"}`, "Invalid spec.timeZone"),
			spec("timeZone", kindtest.Invalid, `{"timeZone":"/etc/UTC"}`, "Invalid spec.timeZone"),
			spec("startingDeadlineSeconds", kindtest.Invalid, `{"startingDeadlineSeconds":-1}`, "Invalid spec.startingDeadlineSeconds"),
			{Field: "spec.concurrencyPolicy", Class: kindtest.Defaulted, Want: `{"spec":{"concurrencyPolicy":"Allow"}}`},
			spec("concurrencyPolicy", kindtest.Invalid, `{"concurrencyPolicy":"Never"}`, "NotSupported spec.concurrencyPolicy"),
			{Field: "spec.suspend", Class: kindtest.Defaulted, Want: `{"spec":{"suspend":false}}`},
			spec("suspend", kindtest.Mutable, `{"suspend":true}`, ""),
			{Field: "spec.successfulJobsHistoryLimit", Class: kindtest.Defaulted, Want: `{"spec":{"successfulJobsHistoryLimit":3}}`},
			spec("successfulJobsHistoryLimit", kindtest.Invalid, `{"successfulJobsHistoryLimit":-1}`, "Invalid spec.successfulJobsHistoryLimit"),
			{Field: "spec.failedJobsHistoryLimit", Class: kindtest.Defaulted, Want: `{"spec":{"failedJobsHistoryLimit":1}}`},
			spec("failedJobsHistoryLimit", kindtest.Invalid, `{"failedJobsHistoryLimit":-1}`, "Invalid spec.failedJobsHistoryLimit"),
			spec("jobTemplate.spec.selector", kindtest.Invalid, `{"jobTemplate":{"spec":{"selector":{"matchLabels":{"a":"b"}}}}}`, "Invalid "+template+"selector"),
			spec("jobTemplate.spec.manualSelector", kindtest.Invalid, `{"jobTemplate":{"spec":{"manualSelector":true}}}`, "NotSupported "+template+"manualSelector"),
			spec("jobTemplate.spec.parallelism", kindtest.Mutable, `{"jobTemplate":{"spec":{"parallelism":3}}}`, ""),
			spec("jobTemplate.spec.backoffLimit", kindtest.Invalid, `{"jobTemplate":{"spec":{"backoffLimit":-1}}}`, "Invalid "+template+"backoffLimit"),
			spec("jobTemplate.spec.template.spec.restartPolicy", kindtest.Invalid, `{"jobTemplate":{"spec":{"template":{"spec":{"restartPolicy":"Always"}}}}}`,
				"Required "+template+"template.spec.restartPolicy"),
			status("active[].apiVersion", active(`{"apiVersion":"batch/v1"}`)), status("active[].kind", active(`{"kind":"Job"}`)),
			status("active[].name", active(`{"name":"j"}`)), status("active[].namespace", active(`{"namespace":"ns"}`)),
			status("active[].uid", active(`{"uid":"u"}`)), status("active[].resourceVersion", active(`{"resourceVersion":"1"}`)),
			status("active[].fieldPath", active(`{"fieldPath":"spec"}`)),
			status("lastScheduleTime", `{"lastScheduleTime":"2026-01-01T00:00:00Z"}`),
			status("lastSuccessfulTime", `{"lastSuccessfulTime":"2026-01-01T00:00:00Z"}`),
		},
	})
}
