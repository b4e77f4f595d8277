package api_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/api/apitest/kubectl"
)

const restricted = `apiVersion: policy/v1beta1
kind: PodSecurityPolicy
metadata: {name: restricted}
spec:
  readOnlyRootFilesystem: true
  volumes: [configMap, secret, projected]
  seLinux: {rule: RunAsAny}
  runAsUser: {rule: MustRunAs, ranges: [{min: 1000, max: 2000}]}
  supplementalGroups: {rule: RunAsAny}
  fsGroup: {rule: RunAsAny}
`

// testSecurityPolicies: with the setting on, kubectl knows the kind, and pods need a policy that their maker may use.
func testSecurityPolicies(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl) {
	ns := namespace(t, k, "held")
	has(t, k.Run(t, "", "get", "--raw", "/apis/policy"), "policy/v1beta1", `"preferredVersion":{"groupVersion":"policy/v1"`)
	has(t, k.Run(t, "", "api-resources", "--api-group", "policy"), "podsecuritypolicies", "psp", "PodSecurityPolicy")
	apitest.Eventually(t, "the namespace has its account", func() error {
		_, err := k.Try(t, "", "create", ns, "serviceaccount", "default")
		if err != nil && strings.Contains(err.Error(), "already exists") {
			return nil
		}
		return err
	})
	pod := []string{"run", "p", ns, "--image", "i", "--as", "jane", "--as-group", "system:authenticated"}
	k.Run(t, "", "create", ns, "role", "makers", "--verb", "create,get,list", "--resource", "pods")
	k.Run(t, "", "create", ns, "rolebinding", "makers", "--role", "makers", "--user", "jane")
	k.Fail(t, "", pod, "forbidden", "PodSecurityPolicy: no providers available to validate pod request")

	k.Fail(t, strings.Replace(restricted, "rule: RunAsAny", "rule: Sometimes", 1), []string{"apply", "-f", "-"}, `spec.seLinux.rule: Unsupported value: "Sometimes"`)
	has(t, k.Run(t, restricted, "apply", "-f", "-"), "podsecuritypolicy.policy/restricted created")
	has(t, k.Run(t, restricted, "apply", "--server-side", "--force-conflicts", "-f", "-"), "serverside-applied")
	has(t, k.Run(t, "", "get", "psp"), "NAME", "PRIV", "CAPS", "SELINUX", "RUNASUSER", "FSGROUP", "SUPGROUP", "READONLYROOTFS", "VOLUMES",
		"restricted", "MustRunAs", "configMap,secret,projected")
	has(t, k.Run(t, "", "describe", "psp", "restricted"), "Read Only Root Filesystem:", "Kind:         PodSecurityPolicy")
	has(t, k.Run(t, "", "explain", "psp.spec.runAsUser"), "RunAsUserStrategyOptions", "ranges")
	readsPolicies(t, c)

	k.Fail(t, "", pod, "PodSecurityPolicy: unable to admit pod: []")
	k.Run(t, "", "create", ns, "role", "restricted", "--verb", "use", "--resource", "podsecuritypolicies.policy", "--resource-name", "restricted")
	k.Run(t, "", "create", ns, "rolebinding", "restricted", "--role", "restricted", "--serviceaccount", "held:default")
	apitest.Eventually(t, "the pod is made", func() error {
		_, err := k.Try(t, "", pod...)
		return err
	})
	has(t, k.Run(t, "", "get", ns, "pod", "p", "-o", "yaml"), "kubernetes.io/psp: restricted", "readOnlyRootFilesystem: true", "runAsUser: 1000")
	k.Fail(t, "", append(pod, "--overrides", `{"spec": {"hostNetwork": true}}`), "spec.securityContext.hostNetwork: Invalid value: true: Host network is not allowed to be used")
	k.Run(t, "", "delete", ns, "pod", "p", "--now", "--wait=false")
	k.Run(t, "", "delete", "psp", "restricted")
}

// readsPolicies reads them in protobuf, which clients of that time do, one and all.
func readsPolicies(t *testing.T, c *apitest.Cluster) {
	raw := c.Client(t).Discovery().RESTClient()
	for _, path := range []string{"/apis/policy/v1beta1/podsecuritypolicies/restricted", "/apis/policy/v1beta1/podsecuritypolicies"} {
		answer, err := raw.Get().AbsPath(path).SetHeader("Accept", "application/vnd.kubernetes.protobuf").DoRaw(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(answer, []byte("k8s\x00")) || !bytes.Contains(answer, []byte("restricted")) || !bytes.Contains(answer, []byte("MustRunAs")) {
			t.Errorf("%s: %q", path, answer)
		}
	}
}
