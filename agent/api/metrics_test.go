package api_test

import (
	"testing"

	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/api/apitest/kubectl"
)

// testAdmissionMetrics: what plug-ins and webhooks took, under Kubernetes' names. It follows the story of webhooks.
func testAdmissionMetrics(t *testing.T, _ *apitest.Cluster, k *kubectl.Kubectl) {
	k.Run(t, "", "create", "configmap", "measured")
	k.Fail(t, "", []string{"create", "configmap", "measured", "--namespace", "no-such"}, "not found")
	k.Run(t, "", "delete", "configmap", "measured")
	const plugin, step = "apiserver_admission_controller_admission_duration_seconds", "apiserver_admission_step_admission_duration_seconds"
	has(t, k.Run(t, "", "get", "--raw", "/metrics"),
		"# HELP "+plugin+" [STABLE] Admission controller latency", "# TYPE "+plugin+" histogram",
		plugin+`_bucket{name="NamespaceLifecycle",operation="CREATE",rejected="false",type="admit",le="0.005"} `,
		plugin+`_count{name="NamespaceLifecycle",operation="CREATE",rejected="true",type="admit"} `,
		plugin+`_count{name="NamespaceLifecycle",operation="DELETE",rejected="false",type="admit"} `,
		plugin+`_count{name="ResourceQuota",operation="CREATE",rejected="false",type="validate"} `,
		plugin+`_count{name="MutatingAdmissionWebhook",operation="CREATE",rejected="false",type="admit"} `,
		step+`_bucket{operation="CREATE",rejected="false",type="admit",le="2.5"} `, step+`_count{operation="CREATE",rejected="true",type="admit"} `,
		step+`_count{operation="CREATE",rejected="false",type="validate"} `, step+`_count{operation="UPDATE",rejected="false",type="validate"} `,
		step+`_summary_count{operation="CREATE",rejected="false",type="validate"} `,
		"apiserver_admission_webhook_admission_duration_seconds_bucket{name=", "apiserver_admission_webhook_request_total{code=", "apiserver_admission_webhook_rejection_count{error_type=",
	)
}
