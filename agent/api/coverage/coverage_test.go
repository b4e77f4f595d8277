package coverage

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// A gap in a field that does not exist, or said twice, would never be noticed.
func TestEveryGapIsAField(t *testing.T) {
	types := map[string]reflect.Type{}
	for kind, typ := range scheme.Scheme.AllKnownTypes() {
		if kind.Version == "v1" {
			types[kind.Kind] = typ
		}
	}
	seen := map[string]bool{}
	for _, gap := range Gaps() {
		if gap.Effect == "" {
			t.Errorf("%s %s does not say what happens instead", gap.Kind, gap.Field)
		}
		typ, ok := types[gap.Kind]
		if !ok {
			t.Errorf("there is no kind %s", gap.Kind)
			continue
		}
		if _, err := compile(typ, gap.Field); err != nil {
			t.Errorf("%s: %v", gap.Kind, err)
		}
		name := gap.Kind + " " + gap.Subresource + " " + gap.Field
		if seen[name] {
			t.Errorf("%s is there twice", name)
		}
		seen[name] = true
	}
}

func TestWarnings(t *testing.T) {
	for name, c := range map[string]struct {
		object      runtime.Object
		subresource string
		manifest    string
		want        []string
	}{
		"nothing asked": {&corev1.Pod{}, "", `{spec: {hostUsers: true, containers: [{name: c}], volumes: [{name: v, emptyDir: {medium: Memory}}]}}`, nil},
		"value":         {&corev1.Pod{}, "", `{spec: {securityContext: {appArmorProfile: {type: Localhost}}}}`, []string{"spec.securityContext.appArmorProfile.type"}},
		"in lists": {&corev1.Pod{}, "", `{spec: {volumes: [{name: a, emptyDir: {}}, {name: b, csi: {driver: d}}], containers: [{name: c, env: [{name: e, valueFrom: {fileKeyRef: {key: k}}}]}]}}`,
			[]string{"spec.containers[0].env[0].valueFrom.fileKeyRef", "spec.volumes[1].csi"}},
		"empty struct":  {&corev1.Pod{}, "", `{spec: {volumes: [{name: b, projected: {sources: [{podCertificate: {}}]}}]}}`, []string{"spec.volumes[0].projected.sources[0].podCertificate"}},
		"in a template": {&appsv1.Deployment{}, "", `{spec: {template: {spec: {resourceClaims: [{name: gpu}]}}}}`, []string{"spec.template.spec.resourceClaims"}},
		"pod template":  {&corev1.PodTemplate{}, "", `{template: {spec: {resourceClaims: [{name: gpu}]}}}`, []string{"template.spec.resourceClaims"}},
		"map key":       {&corev1.Secret{}, "", `{data: {usage-bootstrap-signing: dHJ1ZQ==, other: dHJ1ZQ==}}`, []string{"data[usage-bootstrap-signing]"}},
		"other map key": {&corev1.Secret{}, "", `{data: {other: dHJ1ZQ==}}`, nil},
		"sub-resource": {&corev1.Pod{}, "ephemeralcontainers", `{spec: {resourceClaims: [{name: gpu}], ephemeralContainers: [{name: c, securityContext: {appArmorProfile: {type: Localhost}}}]}}`,
			[]string{"spec.ephemeralContainers[0].securityContext.appArmorProfile.type"}},
		"sub-resource without any": {&corev1.Pod{}, "resize", `{spec: {containers: [{name: c, resources: {limits: {cpu: "1"}}}]}}`, nil},
		"empty list":               {&corev1.Service{}, "", `{spec: {loadBalancerSourceRanges: []}}`, nil},
		"a kind without any":       {&corev1.ConfigMap{}, "", `{data: {a: b}}`, nil},
	} {
		if err := yaml.UnmarshalStrict([]byte(c.manifest), c.object); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var got []string
		for _, warning := range For(c.object, c.subresource).Warnings(c.object) {
			path, rest, _ := strings.Cut(warning, ": ")
			if !strings.HasPrefix(rest, Phrase+": ") {
				t.Errorf("%s: warning %q", name, warning)
			}
			got = append(got, path)
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: warnings for %q, want %q", name, got, c.want)
		}
	}
}

func TestPage(t *testing.T) {
	page := Page([]schema.GroupVersionKind{{Version: "v1", Kind: "Pod"}, {Group: "x.io", Version: "v1", Kind: "Odd"}}, scheme.Scheme)
	for _, want := range []string{
		"| v1 | Pod | ComponentStatus, ConfigMap, ", "| x.io/v1 | Odd |  |\n", "| batch/v1 |  | CronJob, Job |\n",
		"| Pod | `spec.resourceClaims` | any | the pod stays Pending", "`spec.volumes[].persistentVolumeClaim`, `ephemeral`, `csi`, ",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	if strings.Contains(page, "TokenReview") || strings.Contains(page, "alpha") {
		t.Errorf("the page lists what is not stored, or not stable:\n%s", page)
	}
}

// The check runs in every write.
func BenchmarkWarnings(b *testing.B) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: make([]corev1.Container, 2), Volumes: make([]corev1.Volume, 2)}}
	checker := For(pod, "")
	b.ReportAllocs()
	for b.Loop() {
		checker.Warnings(pod)
	}
}
