package api_test

import (
	"testing"

	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/api/apitest/kubectl"
)

// testAdminAccess: devices that others use may be asked for, and given, in namespaces alone that are marked for it.
func testAdminAccess(t *testing.T, _ *apitest.Cluster, k *kubectl.Kubectl) {
	const refused = "adminAccess: Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace"
	const requests = `{devices: {requests: [{name: a, exactly: {deviceClassName: c}}, {name: b, exactly: {deviceClassName: c, adminAccess: true}}]}}`
	ns := namespace(t, k, "monitors")
	claim := "apiVersion: resource.k8s.io/v1\nkind: ResourceClaim\nmetadata: {name: c}\nspec: " + requests
	template := "apiVersion: resource.k8s.io/v1\nkind: ResourceClaimTemplate\nmetadata: {name: c}\nspec: {spec: " + requests + "}"
	for _, object := range []string{claim, template} {
		k.Fail(t, object, []string{"create", ns, "-f", "-"}, "spec.devices.requests[1]."+refused)
	}
	plain := "apiVersion: resource.k8s.io/v1\nkind: ResourceClaim\nmetadata: {name: plain}\nspec: {devices: {requests: [{name: a, exactly: {deviceClassName: c}}]}}"
	k.Run(t, plain, "create", ns, "-f", "-")
	granted := []string{"patch", ns, "resourceclaim", "plain", "--subresource", "status", "--type", "merge", "--patch",
		`{"status": {"allocation": {"devices": {"results": [{"request": "a", "driver": "d", "pool": "p", "device": "x", "adminAccess": true}]}}}}`}
	k.Fail(t, "", granted, "status.allocation.devices.results[0]."+refused)
	k.Run(t, "", "label", "namespace", "monitors", "resource.kubernetes.io/admin-access=true")
	for _, object := range []string{claim, template} {
		k.Run(t, object, "create", ns, "-f", "-")
	}
	k.Run(t, "", granted...)
	k.Run(t, "", "label", "namespace", "monitors", "resource.kubernetes.io/admin-access-", "--overwrite")
	k.Run(t, "", "patch", ns, "resourceclaim", "plain", "--subresource", "status", "--type", "merge", "--patch",
		`{"status": {"reservedFor": [{"resource": "pods", "name": "p", "uid": "u"}]}}`)
	k.Run(t, "", "delete", "namespace", "monitors", "--wait=false")
}
