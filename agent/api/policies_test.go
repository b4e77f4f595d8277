package api_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"

	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/agent/api/apitest/kubectl"
)

const policies = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: small}
spec:
  paramKind: {apiVersion: v1, kind: ConfigMap}
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [secrets]}]}
  variables: [{name: most, expression: "int(params.data.most)"}]
  validations:
  - {expression: "size(object.data) <= variables.most", reason: Invalid, messageExpression: "'more than ' + string(variables.most)"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: small}
spec:
  policyName: small
  validationActions: [Deny]
  paramRef: {name: limits, namespace: policies, parameterNotFoundAction: Deny}
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: policies}}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: named}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [secrets]}]}
  validations: [{expression: "!object.metadata.name.startsWith('odd')", message: an odd name}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: named}
spec:
  policyName: named
  validationActions: [Warn]
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: policies}}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: marked}
spec:
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [secrets]}]}
  reinvocationPolicy: Never
  mutations:
  - patchType: ApplyConfiguration
    applyConfiguration: {expression: "Object{metadata: Object.metadata{labels: {'marked': 'yes'}}}"}
  - patchType: JSONPatch
    jsonPatch: {expression: "[JSONPatch{op: 'add', path: '/metadata/annotations', value: {'by': request.userInfo.username}}]"}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: marked}
spec:
  policyName: marked
  matchResources: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: policies}}}
`

func testPolicies(t *testing.T, c *apitest.Cluster, k *kubectl.Kubectl) {
	ns := namespace(t, k, "policies")
	client := c.Client(t)
	k.Run(t, "", "create", ns, "configmap", "limits", "--from-literal=most=1")
	k.Run(t, policies, "apply", "-f", "-")
	defer k.Run(t, policies, "delete", "-f", "-")
	has(t, k.Run(t, "", "get", "validatingadmissionpolicies,mutatingadmissionpolicies"), "v1/ConfigMap", "<unset>", "marked")
	create := func(name string, keys ...string) (*corev1.Secret, error) {
		data := map[string]string{}
		for _, key := range keys {
			data[key] = "v"
		}
		return client.CoreV1().Secrets("policies").Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, StringData: data},
			metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	}
	apitest.Eventually(t, "the policies count", func() error {
		marked, err := create("one", "a")
		if err == nil && (marked.Labels["marked"] != "yes" || !strings.Contains(marked.Annotations["by"], "admin")) {
			err = fmt.Errorf("not marked: %v %v", marked.Labels, marked.Annotations)
		}
		_, refused := create("two", "a", "b")
		if refused == nil {
			err = errors.Join(err, errors.New("two keys are accepted"))
		}
		return err
	})
	_, err := create("two", "a", "b")
	if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "more than 1") {
		t.Errorf("%v", err)
	}
	apitest.Eventually(t, "a warning", func() error {
		_, err := k.Try(t, "", "create", ns, "secret", "generic", "odd", "--from-literal=a=b", "--dry-run=server", "--warnings-as-errors")
		if err == nil || !strings.Contains(err.Error(), "an odd name") {
			return fmt.Errorf("kubectl says %w", err)
		}
		return nil
	})
	t.Run("parameters are followed", func(t *testing.T) {
		k.Run(t, "", "patch", ns, "configmap", "limits", "-p", `{"data":{"most":"2"}}`)
		apitest.Eventually(t, "two keys are accepted", func() error {
			_, err := create("two", "a", "b")
			return err
		})
	})
	t.Run("who may not read parameters may not use them", func(t *testing.T) {
		k.Run(t, "", "create", "clusterrole", "policy-author", "--verb=*", "--resource=validatingadmissionpolicies.admissionregistration.k8s.io,validatingadmissionpolicybindings.admissionregistration.k8s.io")
		k.Run(t, "", "create", "clusterrolebinding", "policy-author", "--clusterrole=policy-author", "--user=author")
		author, err := kubernetes.NewForConfig(c.Server.ClientConfig(&user.DefaultInfo{Name: "author", Groups: []string{user.AllAuthenticated}}))
		if err != nil {
			t.Fatal(err)
		}
		apitest.Eventually(t, "the author may write, but not what he may not read", func() error {
			registrations := author.AdmissionregistrationV1()
			policy, err := registrations.ValidatingAdmissionPolicies().Get(t.Context(), "small", metav1.GetOptions{})
			if err != nil {
				return err
			}
			binding, err := registrations.ValidatingAdmissionPolicyBindings().Get(t.Context(), "small", metav1.GetOptions{})
			if err != nil {
				return err
			}
			policy.ObjectMeta, binding.ObjectMeta = metav1.ObjectMeta{Name: "mine"}, metav1.ObjectMeta{Name: "mine"}
			if _, err = registrations.ValidatingAdmissionPolicies().Create(t.Context(), policy, metav1.CreateOptions{}); !apierrors.IsInvalid(err) ||
				!strings.Contains(err.Error(), `spec.paramKind: Forbidden: user author does not have "get" permission on configmaps.`) {
				return fmt.Errorf("policy: %w", err)
			}
			if _, err = registrations.ValidatingAdmissionPolicyBindings().Create(t.Context(), binding, metav1.CreateOptions{}); !apierrors.IsInvalid(err) ||
				!strings.Contains(err.Error(), "spec.paramRef: Forbidden") {
				return fmt.Errorf("binding: %w", err)
			}
			return nil
		})
	})
}
