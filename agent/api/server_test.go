package api_test

import (
	"testing"

	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/api/apitest/kubectl"
)

func TestMain(m *testing.M) { kubectl.Main(m) }

// One server serves all of these stories; each uses a namespace of its own.
func TestServer(t *testing.T) {
	c := apitest.Start(t)
	k := kubectl.New(t, c.Kubeconfig)
	story := func(name string, f func(*testing.T, *apitest.Cluster, *kubectl.Kubectl)) {
		t.Run(name, func(t *testing.T) { f(t, c, k) })
	}
	story("ready, and says which Kubernetes it is", testHealthAndVersion)
	story("system namespaces", testSystemNamespaces)
	story("config map by kubectl", testConfigMapByKubectl)
	story("server-side apply", testServerSideApply)
	story("watch", testWatch)
	story("bad input", testBadInput)
	story("bad credentials", testBadCredentials)
	story("pages", testPages)
	story("namespace ends in two steps", testNamespaceDeletion)
	story("events in both groups", testEvents)
	story("custom resources", testCustomResources)
	story("client in process", testClientInProcess)
	story("informers share the store's objects", testInformers)
	story("every kind", testEveryKind)
	story("explain and discovery", testDiscovery)
	story("service account tokens", testTokens)
	story("webhooks", testWebhooks)
	story("metrics of admission", testAdmissionMetrics)
	story("encodings", testEncodings)
	story("paths", testPaths)
	story("bodies", testBodies)
	story("forged tokens", testForgedTokens)
	story("odd requests", testOddRequests)
	story("apply in several versions", testVersionedApply)
	story("schemas that explode", testExplodingSchemas)
	story("idle watches", testIdleWatches)
	story("policies", testPolicies)
	story("quotas", testQuotas)
	story("evictions", testEvictions)
	story("limit ranges", testLimitRanges)
	story("default classes", testDefaultClasses)
	story("administrators' access to devices", testAdminAccess)
}
