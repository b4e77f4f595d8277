package admission

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/yaml"

	psp "github.com/podvine/podvine/agent/api/kinds/podsecuritypolicy"
)

const freePolicy = `seLinux: {rule: RunAsAny}, runAsUser: {rule: RunAsAny}, supplementalGroups: {rule: RunAsAny}, fsGroup: {rule: RunAsAny}`

// merged reads YAML of which later texts change earlier ones.
func merged[T any](t *testing.T, texts ...string) *T {
	t.Helper()
	into := new(T)
	for _, text := range texts {
		if err := yaml.Unmarshal([]byte(text), into); err != nil {
			t.Fatalf("%s: %v", text, err)
		}
	}
	return into
}

// aPolicy makes one whose specification begins free.
func aPolicy(t *testing.T, name, spec string) *psp.PodSecurityPolicy {
	t.Helper()
	p := merged[psp.PodSecurityPolicy](t, "spec: {"+freePolicy+"}", spec)
	p.Name = name
	return p
}

// policies lets pods of the service account "default" use those whose names do not begin with "x", and alice those named "xa".
func policies(t *testing.T, list ...*psp.PodSecurityPolicy) *securityPolicies {
	t.Helper()
	store := cache.NewStore(cache.MetaNamespaceKeyFunc)
	for _, p := range list {
		if err := store.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	return &securityPolicies{admission.NewHandler(admission.Create, admission.Update), store, authorizer.AuthorizerFunc(
		func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
			account := a.GetUser().GetName() == "system:serviceaccount:ns:default" && !strings.HasPrefix(a.GetName(), "x")
			alice := a.GetUser().GetName() == "alice" && a.GetName() == "xa"
			if a.GetVerb() == "use" && a.GetResource() == "podsecuritypolicies" && a.GetNamespace() == "ns" && a.GetAPIGroup() == "policy" && (account || alice) {
				return authorizer.DecisionAllow, "", nil
			}
			return authorizer.DecisionNoOpinion, "", nil
		})}
}

const plainPod = `spec: {serviceAccountName: default, securityContext: {}, containers: [{name: c}]}`

// request is one of alice's for a pod.
func podRequest(pod, old *corev1.Pod, operation admission.Operation, subresource string) admission.Attributes {
	var before runtime.Object
	if old != nil {
		before = old
	}
	return admission.NewAttributesRecord(pod, before, corev1.SchemeGroupVersion.WithKind("Pod"), "ns", "p", corev1.SchemeGroupVersion.WithResource("pods"),
		subresource, operation, nil, false, &user.DefaultInfo{Name: "alice"})
}

// subset says that want has nothing that got has not.
func subset(want, got any) bool {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		for k, v := range w {
			ok = ok && subset(v, g[k])
		}
		return ok
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return false
		}
		for i := range w {
			ok = ok && subset(w[i], g[i])
		}
		return ok
	}
	return reflect.DeepEqual(want, got)
}

// TestPolicyGives: what a pod is given by a policy, with which it passes then.
func TestPolicyGives(t *testing.T) {
	for name, c := range map[string]struct{ policy, pod, want string }{
		"groups": {`spec: {fsGroup: {rule: MustRunAs, ranges: [{min: 5, max: 9}]}, supplementalGroups: {rule: MustRunAs, ranges: [{min: 7, max: 7}]}}`, plainPod,
			`spec: {securityContext: {fsGroup: 5, supplementalGroups: [7]}}`},
		"user and group": {`spec: {runAsUser: {rule: MustRunAs, ranges: [{min: 5, max: 9}]}, runAsGroup: {rule: MustRunAs, ranges: [{min: 6, max: 9}]}}`, plainPod,
			`spec: {containers: [{securityContext: {runAsUser: 5, runAsGroup: 6}}]}`},
		"a user of the pod's own": {`spec: {runAsUser: {rule: MustRunAs, ranges: [{min: 5, max: 9}]}}`,
			`spec: {serviceAccountName: default, securityContext: {runAsUser: 8}, containers: [{name: c}]}`, `spec: {containers: [{securityContext: null}]}`},
		"not root": {`spec: {runAsUser: {rule: MustRunAsNonRoot}}`, plainPod, `spec: {containers: [{securityContext: {runAsNonRoot: true}}]}`},
		"SELinux": {`spec: {seLinux: {rule: MustRunAs, seLinuxOptions: {level: 's0:c1,c0'}}}`, plainPod,
			`spec: {securityContext: {seLinuxOptions: {level: 's0:c1,c0'}}}`},
		"SELinux in another order": {`spec: {seLinux: {rule: MustRunAs, seLinuxOptions: {level: 's0:c1,c0'}}}`,
			`spec: {serviceAccountName: default, securityContext: {seLinuxOptions: {level: 's0:c0,c1'}}, containers: [{name: c}]}`, `{}`},
		"seccomp": {`metadata: {annotations: {` + psp.SeccompDefault + `: docker/default, ` + psp.SeccompAllowed + `: docker/default}}`, plainPod,
			`spec: {securityContext: {seccompProfile: {type: RuntimeDefault}}}`},
		"AppArmor": {`metadata: {annotations: {` + psp.AppArmorDefault + `: localhost/mine, ` + psp.AppArmorAllowed + `: localhost/mine}}`, plainPod,
			`spec: {containers: [{securityContext: {appArmorProfile: {type: Localhost, localhostProfile: mine}}}]}`},
		"capabilities": {`spec: {defaultAddCapabilities: [CHOWN, KILL], requiredDropCapabilities: [ALL], allowedCapabilities: [SYSLOG]}`,
			`spec: {serviceAccountName: default, securityContext: {}, containers: [{name: c, securityContext: {capabilities: {add: [SYSLOG], drop: [KILL]}}}]}`,
			`spec: {containers: [{securityContext: {capabilities: {add: [CHOWN, SYSLOG], drop: [ALL, KILL]}}}]}`},
		"read-only root": {`spec: {readOnlyRootFilesystem: true}`, plainPod, `spec: {containers: [{securityContext: {readOnlyRootFilesystem: true}}]}`},
		"escalation":     {`spec: {allowPrivilegeEscalation: false}`, plainPod, `spec: {containers: [{securityContext: {allowPrivilegeEscalation: false}}]}`},
		"escalation by default": {`spec: {defaultAllowPrivilegeEscalation: false}`, plainPod,
			`spec: {containers: [{securityContext: {allowPrivilegeEscalation: false}}]}`},
		"runtime class": {`spec: {runtimeClass: {allowedRuntimeClassNames: [a], defaultRuntimeClassName: a}}`, plainPod, `spec: {runtimeClassName: a}`},
		"initial containers too": {`spec: {readOnlyRootFilesystem: true}`,
			`spec: {serviceAccountName: default, securityContext: {}, containers: [{name: c}], initContainers: [{name: i}]}`,
			`spec: {initContainers: [{securityContext: {readOnlyRootFilesystem: true}}]}`},
	} {
		plugin, pod := policies(t, aPolicy(t, "p", c.policy)), merged[corev1.Pod](t, c.pod)
		if err := plugin.Admit(t.Context(), podRequest(pod, nil, admission.Create, ""), nil); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		encoded, err := json.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		got := merged[map[string]any](t, string(encoded))
		if want := merged[map[string]any](t, c.want); !subset(*want, *got) || pod.Annotations[policyAnnotation] != "p" {
			t.Errorf("%s: got %s, want %s", name, encoded, c.want)
		}
		if err := plugin.Validate(t.Context(), podRequest(pod, nil, admission.Create, ""), nil); err != nil {
			t.Errorf("%s: what it was given is refused: %v", name, err)
		}
	}
}

// TestPolicyRefuses: one row a rule, with the pod that it lets pass and the one that it does not.
func TestPolicyRefuses(t *testing.T) {
	pod := func(spec string) string { return "spec: {" + spec + "}" }
	container := func(c string) string { return pod("containers: [{name: c, " + c + "}]") }
	security := func(c string) string { return container("securityContext: {" + c + "}") }
	volume := func(v string) string { return pod("volumes: [{name: v, " + v + "}]") }
	for name, c := range map[string]struct{ policy, good, bad, want string }{
		"privileged":    {`{}`, security("privileged: false"), security("privileged: true"), "spec.containers[0].securityContext.privileged: Invalid value: true: Privileged containers are not allowed"},
		"host network":  {`{}`, pod("hostNetwork: false"), pod("hostNetwork: true"), "Host network is not allowed to be used"},
		"host PIDs":     {`{}`, `{}`, pod("hostPID: true"), "spec.securityContext.hostPID: Invalid value: true: Host PID"},
		"host IPC":      {`{}`, `{}`, pod("hostIPC: true"), "Host IPC is not allowed to be used"},
		"host ports":    {`spec: {hostPorts: [{min: 5, max: 6}, {min: 8, max: 8}]}`, container("ports: [{hostPort: 6}]"), container("ports: [{hostPort: 7}]"), "Host port 7 is not allowed to be used. Allowed ports: [5-6,8]"},
		"volumes":       {`spec: {volumes: [cephFS]}`, volume("cephfs: {}"), volume("emptyDir: {}"), "spec.volumes[0]: Invalid value: \"emptyDir\": emptyDir volumes are not allowed to be used"},
		"later volumes": {`spec: {volumes: [hostPath]}`, `{}`, volume("image: {}"), "image volumes are not allowed to be used"},
		"all volumes":   {`spec: {volumes: ['*'], allowedFlexVolumes: [{driver: a}]}`, volume("flexVolume: {driver: a}"), volume("flexVolume: {driver: b}"), "spec.volumes[0].driver: Invalid value: \"b\": Flexvolume driver"},
		"CSI drivers":   {`spec: {volumes: [csi], allowedCSIDrivers: [{name: a}]}`, volume("csi: {driver: a}"), volume("csi: {driver: b}"), "spec.volumes[0].csi.driver: Invalid value: \"b\""},
		"host paths":    {`spec: {volumes: [hostPath], allowedHostPaths: [{pathPrefix: /foo/}]}`, volume("hostPath: {path: /foo/bar}"), volume("hostPath: {path: /food}"), "spec.volumes[0].hostPath.pathPrefix: Invalid value: \"/food\": is not allowed to be used"},
		"read-only host paths": {`spec: {volumes: [hostPath], allowedHostPaths: [{pathPrefix: /foo, readOnly: true}]}`,
			pod("volumes: [{name: v, hostPath: {path: /foo}}], containers: [{name: c, volumeMounts: [{name: v, readOnly: true}]}]"),
			pod("volumes: [{name: v, hostPath: {path: /foo}}], containers: [{name: c, volumeMounts: [{name: v}]}]"), "spec.containers[0].volumeMounts[0].readOnly: Invalid value: false: must be read-only"},
		"the pod's token": {`spec: {volumes: [secret]}`, volume("projected: {sources: [{serviceAccountToken: {path: token}}, {configMap: {name: kube-root-ca.crt}}]}"),
			volume("projected: {sources: [{configMap: {name: other}}]}"), "projected volumes are not allowed"},
		"added capabilities":   {`spec: {allowedCapabilities: [CHOWN]}`, security("capabilities: {add: [CHOWN]}"), security("capabilities: {add: [KILL]}"), "capability may not be added"},
		"all capabilities":     {`spec: {allowedCapabilities: ['*']}`, security("capabilities: {add: [KILL]}"), security("privileged: true"), "Privileged"},
		"SELinux":              {`spec: {seLinux: {rule: MustRunAs, seLinuxOptions: {role: r}}}`, pod("securityContext: {seLinuxOptions: {role: r}}"), pod("securityContext: {seLinuxOptions: {role: q}}"), "seLinuxOptions.role: Invalid value: \"q\": must be r"},
		"users":                {`spec: {runAsUser: {rule: MustRunAs, ranges: [{min: 5, max: 6}]}}`, security("runAsUser: 5"), security("runAsUser: 7"), "runAsUser: Invalid value: 7: must be in the ranges: [{5 6}]"},
		"root":                 {`spec: {runAsUser: {rule: MustRunAsNonRoot}}`, security("runAsUser: 1"), security("runAsUser: 0"), "running with the root UID is forbidden"},
		"root by flag":         {`spec: {runAsUser: {rule: MustRunAsNonRoot}}`, `{}`, security("runAsNonRoot: false"), "runAsNonRoot: Invalid value: false: must be true"},
		"groups":               {`spec: {runAsGroup: {rule: MayRunAs, ranges: [{min: 5, max: 6}]}}`, security("runAsGroup: 5"), security("runAsGroup: 7"), "group 7 must be in the ranges"},
		"further groups":       {`spec: {supplementalGroups: {rule: MayRunAs, ranges: [{min: 5, max: 6}]}}`, `{}`, pod("securityContext: {supplementalGroups: [5, 7]}"), "group 7 must be in the ranges"},
		"file system groups":   {`spec: {fsGroup: {rule: MayRunAs, ranges: [{min: 5, max: 6}]}}`, `{}`, pod("securityContext: {fsGroup: 7}"), "spec.securityContext.fsGroup: Invalid value: [7]"},
		"writable root":        {`spec: {readOnlyRootFilesystem: true}`, `{}`, security("readOnlyRootFilesystem: false"), "ReadOnlyRootFilesystem must be set to true"},
		"escalation":           {`spec: {allowPrivilegeEscalation: false}`, `{}`, security("allowPrivilegeEscalation: true"), "Allowing privilege escalation for containers is not allowed"},
		"safe sysctls":         {`spec: {forbiddenSysctls: [net.*]}`, pod("securityContext: {sysctls: [{name: kernel.shm_rmid_forced}]}"), pod("securityContext: {sysctls: [{name: net/ipv4/tcp_syncookies}]}"), `sysctl "net/ipv4/tcp_syncookies" is not allowed`},
		"unsafe sysctls":       {`spec: {allowedUnsafeSysctls: [kernel.msg*]}`, pod("securityContext: {sysctls: [{name: kernel.msgmax}]}"), pod("securityContext: {sysctls: [{name: kernel.sem}]}"), `unsafe sysctl "kernel.sem" is not allowed`},
		"kinds of proc":        {`{}`, security("procMount: Default"), security("procMount: Unmasked"), "ProcMountType is not allowed"},
		"runtime classes":      {`spec: {runtimeClass: {allowedRuntimeClassNames: [a]}}`, pod("runtimeClassName: a"), pod("runtimeClassName: b"), "spec.runtimeClassName: Invalid value: \"b\""},
		"seccomp is not there": {`{}`, `{}`, pod("securityContext: {seccompProfile: {type: Unconfined}}"), "seccomp may not be set"},
		"seccomp": {`metadata: {annotations: {` + psp.SeccompAllowed + `: 'docker/default,localhost/a', ` + psp.SeccompDefault + `: runtime/default}}`,
			security("seccompProfile: {type: Localhost, localhostProfile: a}"), security("seccompProfile: {type: Unconfined}"), "unconfined is not an allowed seccomp profile. Valid values are docker/default,localhost/a"},
		"AppArmor":         {`metadata: {annotations: {` + psp.AppArmorAllowed + `: runtime/default}}`, security("appArmorProfile: {type: RuntimeDefault}"), security("appArmorProfile: {type: Unconfined}"), "unconfined is not an allowed profile"},
		"AppArmor is must": {`metadata: {annotations: {` + psp.AppArmorAllowed + `: runtime/default}}`, pod("securityContext: {appArmorProfile: {type: RuntimeDefault}}"), `{}`, "AppArmor profile must be set"},
	} {
		plugin := policies(t, aPolicy(t, "p", c.policy))
		good, bad := merged[corev1.Pod](t, plainPod, c.good), merged[corev1.Pod](t, plainPod, c.bad)
		if err := plugin.Admit(t.Context(), podRequest(good, nil, admission.Create, ""), nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		err := plugin.Admit(t.Context(), podRequest(bad, nil, admission.Create, ""), nil)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "PodSecurityPolicy: unable to admit pod: [") {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
		if err := plugin.Validate(t.Context(), podRequest(bad, nil, admission.Update, ""), nil); err == nil {
			t.Errorf("%s: an update passes", name)
		}
	}
}

// TestPolicyIsChosen: one that changes nothing before one that does, then by name, of those that may be used.
func TestPolicyIsChosen(t *testing.T) {
	changes, privileged := `spec: {readOnlyRootFilesystem: true}`, `spec: {privileged: true}`
	for name, c := range map[string]struct {
		policies []*psp.PodSecurityPolicy
		pod      string
		want     string
	}{
		"by name":               {[]*psp.PodSecurityPolicy{aPolicy(t, "b", `{}`), aPolicy(t, "a", `{}`)}, `{}`, "a"},
		"unchanged first":       {[]*psp.PodSecurityPolicy{aPolicy(t, "a", changes), aPolicy(t, "b", `{}`)}, `{}`, "b"},
		"changed by name":       {[]*psp.PodSecurityPolicy{aPolicy(t, "b", changes), aPolicy(t, "a", changes)}, `{}`, "a"},
		"only what may be used": {[]*psp.PodSecurityPolicy{aPolicy(t, "x", `{}`), aPolicy(t, "y", `{}`)}, `{}`, "y"},
		"by the maker's rights": {[]*psp.PodSecurityPolicy{aPolicy(t, "a", `{}`), aPolicy(t, "xa", privileged)}, `spec: {containers: [{name: c, securityContext: {privileged: true}}]}`, "xa"},
		"none that is unusable": {[]*psp.PodSecurityPolicy{aPolicy(t, "a", `spec: {fsGroup: {rule: MustRunAs}}`), aPolicy(t, "b", `{}`)}, `{}`, "b"},
		"none":                  {nil, `{}`, "!no providers available to validate pod request"},
		"none that may be used": {[]*psp.PodSecurityPolicy{aPolicy(t, "x", `{}`)}, `{}`, "!unable to admit pod: []"},
		"faults of those alone": {[]*psp.PodSecurityPolicy{aPolicy(t, "x", `{}`)}, `spec: {hostPID: true}`, "!unable to admit pod: []"},
	} {
		pod := merged[corev1.Pod](t, plainPod, c.pod)
		err := policies(t, c.policies...).Admit(t.Context(), podRequest(pod, nil, admission.Create, ""), nil)
		if want, refused := strings.CutPrefix(c.want, "!"); refused && (err == nil || !strings.HasSuffix(err.Error(), want)) || !refused && pod.Annotations[policyAnnotation] != want {
			t.Errorf("%s: got %q and %v, want %s", name, pod.Annotations[policyAnnotation], err, c.want)
		}
	}
}

// TestPolicyOfUpdates: what garbage collection does passes, and nothing is filled in.
func TestPolicyOfUpdates(t *testing.T) {
	plugin := policies(t, aPolicy(t, "a", `spec: {readOnlyRootFilesystem: true}`))
	old := merged[corev1.Pod](t, plainPod, `spec: {hostPID: true}`)
	collected := old.DeepCopy()
	collected.OwnerReferences = []metav1.OwnerReference{{Name: "o"}}
	if err := plugin.Validate(t.Context(), podRequest(collected, old, admission.Update, ""), nil); err != nil {
		t.Errorf("a change of owners: %v", err)
	}
	labelled := old.DeepCopy()
	labelled.Labels = map[string]string{"a": "b"}
	if err := plugin.Validate(t.Context(), podRequest(labelled, old, admission.Update, ""), nil); err == nil {
		t.Error("a change of labels passes although the pod is not allowed")
	}
	if err := plugin.Validate(t.Context(), podRequest(labelled, old, admission.Update, "status"), nil); err != nil {
		t.Errorf("a change of status: %v", err)
	}
	plain := merged[corev1.Pod](t, plainPod)
	if err := plugin.Admit(t.Context(), podRequest(plain, old, admission.Update, ""), nil); err != nil || plain.Spec.Containers[0].SecurityContext != nil {
		t.Errorf("an update is filled in: %v", err)
	}
	hinted := policies(t, aPolicy(t, "a", `{}`), aPolicy(t, "b", `{}`))
	if got := hinted.inOrder("b"); !slices.EqualFunc(got, []string{"b", "a"}, func(p *psp.PodSecurityPolicy, name string) bool { return p.Name == name }) {
		t.Errorf("the policy that admitted the pod is not asked first: %v", got)
	}
}
