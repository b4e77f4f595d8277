package pod

import (
	"context"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/podvine/podvine/agent/isolation"
)

// newPod returns a pod as it is after its creation.
func newPod(t *testing.T, text string) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
		t.Fatal(err)
	}
	setDefaults(p)
	prepareForCreate(context.Background(), p)
	p.Generation, p.ResourceVersion, p.UID = 1, "1", "u"
	p.CreationTimestamp = metav1.Now()
	return p
}

// words are the errors as "TYPE PATH: text", without what follows the first line.
func words(errs field.ErrorList) string {
	var out []string
	for _, e := range errs {
		text, _, _ := strings.Cut(e.Error(), "\n")
		out = append(out, text)
	}
	return strings.Join(out, "; ")
}

func TestUpdate(t *testing.T) {
	base := `{metadata: {name: p, namespace: ns}, spec: {activeDeadlineSeconds: 10, tolerations: [{key: a, operator: Exists}], nodeSelector: {a: b},
		containers: [{name: c, image: i}], initContainers: [{name: d, image: i}]}}`
	gated := strings.Replace(base, "nodeSelector", "schedulingGates: [{name: g}], nodeSelector", 1)
	for _, tc := range []struct {
		name, base string
		change     func(*corev1.Pod)
		want       string // part of the only error; "" for none
	}{
		{"nothing", base, func(*corev1.Pod) {}, ""},
		{"image", base, func(p *corev1.Pod) { p.Spec.Containers[0].Image = "j" }, ""},
		{"image of init container", base, func(p *corev1.Pod) { p.Spec.InitContainers[0].Image = "j" }, ""},
		{"no image", base, func(p *corev1.Pod) { p.Spec.Containers[0].Image = "" }, "spec.containers[0].image: Required value"},
		{"another container", base, func(p *corev1.Pod) {
			p.Spec.Containers = append(p.Spec.Containers, *p.Spec.Containers[0].DeepCopy())
			p.Spec.Containers[1].Name = "e"
		}, "spec.containers: Forbidden: pod updates may not add or remove containers"},
		{"shorter deadline", base, func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To[int64](9) }, ""},
		{"longer deadline", base, func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = ptr.To[int64](11) }, "must be less than or equal to previous value"},
		{"no deadline", base, func(p *corev1.Pod) { p.Spec.ActiveDeadlineSeconds = nil }, "must not update from a positive integer to nil value"},
		{"another toleration", base, func(p *corev1.Pod) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: "b", Operator: "Exists"})
		}, ""},
		{"no toleration", base, func(p *corev1.Pod) { p.Spec.Tolerations = nil }, "existing toleration can not be modified except its tolerationSeconds"},
		{"gate", base, func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "x"}} }, "only deletion is allowed, but found new scheduling gate 'x'"},
		{"no gate", gated, func(p *corev1.Pod) { p.Spec.SchedulingGates = nil }, ""},
		{"selector", base, func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a": "b", "c": "d"} }, "pod updates may not change fields other than"},
		{"selector of gated pod", gated, func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a": "b", "c": "d"} }, ""},
		{"other selector of gated pod", gated, func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"a": "c"} }, "only additions to spec.nodeSelector are allowed (no mutations or deletions)"},
		{"command", base, func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"x"} }, "pod updates may not change fields other than"},
		{"labels", base, func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }, ""},
		{"stops on isolation", base, func(p *corev1.Pod) { p.Annotations = map[string]string{isolation.Annotation: isolation.Stop} },
			"metadata.annotations[podvine.io/on-isolation]: Forbidden: may not be added, removed or updated"},
		{"runs on in isolation", strings.Replace(base, "name: p,", `name: p, annotations: {podvine.io/on-isolation: "stop"},`, 1), func(p *corev1.Pod) { p.Annotations = nil },
			"metadata.annotations[podvine.io/on-isolation]: Forbidden: may not be added, removed or updated"},
		{"mirror", base, func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"} }, "must set spec.nodeName if mirror pod annotation is set"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			old := newPod(t, tc.base)
			p := old.DeepCopy()
			tc.change(p)
			prepareForUpdate(context.Background(), p, old)
			got := words(validateUpdate(context.Background(), p, old))
			if (tc.want == "") != (got == "") || !strings.Contains(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestWhatItDoesInIsolation(t *testing.T) {
	for value, want := range map[string]string{"stop": "", "run": `metadata.annotations[podvine.io/on-isolation]: Unsupported value: "run": supported values: "stop"`} {
		p := newPod(t, `{metadata: {name: p, namespace: ns, annotations: {podvine.io/on-isolation: `+value+`}}, spec: {containers: [{name: c, image: i}]}}`)
		if got := words(validate(t.Context(), p)); got != want {
			t.Errorf("%s: %q, want %q", value, got, want)
		}
	}
}

func TestUpdateShowsWhatChanged(t *testing.T) {
	old := newPod(t, smallYAML)
	p := old.DeepCopy()
	p.Spec.Hostname = "other"
	errs := validateUpdate(context.Background(), p, old)
	if len(errs) != 1 || !strings.Contains(errs[0].Detail, "- \"Hostname\": \"\",\n+ \"Hostname\": \"other\",") {
		t.Errorf("got %v", errs)
	}
}

func TestEphemeralContainers(t *testing.T) {
	old := newPod(t, smallYAML)
	added := func(c corev1.EphemeralContainer) string {
		p := old.DeepCopy()
		p.Spec.Containers[0].Image = "ignored"
		p.Spec.EphemeralContainers = []corev1.EphemeralContainer{c}
		setDefaults(p)
		s := ephemeralStrategy{}
		s.PrepareForUpdate(context.Background(), p, old)
		if p.Spec.Containers[0].Image == "ignored" || p.Generation != 2 {
			t.Errorf("image %s and generation %d after adding", p.Spec.Containers[0].Image, p.Generation)
		}
		return words(s.ValidateUpdate(context.Background(), p, old))
	}
	common := corev1.EphemeralContainerCommon{Name: "debug", Image: "i"}
	if got := added(corev1.EphemeralContainer{EphemeralContainerCommon: common, TargetContainerName: "c"}); got != "" {
		t.Error(got)
	}
	if got := added(corev1.EphemeralContainer{EphemeralContainerCommon: common, TargetContainerName: "x"}); !strings.Contains(got, "targetContainerName: Not found") {
		t.Error(got)
	}
	for name, change := range map[string]func(*corev1.EphemeralContainerCommon){
		"ports": func(c *corev1.EphemeralContainerCommon) { c.Ports = []corev1.ContainerPort{{ContainerPort: 1}} },
		"resources": func(c *corev1.EphemeralContainerCommon) {
			c.Resources.Limits = corev1.ResourceList{"cpu": resource.MustParse("1")}
		},
		"lifecycle":      func(c *corev1.EphemeralContainerCommon) { c.Lifecycle = &corev1.Lifecycle{} },
		"livenessProbe":  func(c *corev1.EphemeralContainerCommon) { c.LivenessProbe = &corev1.Probe{} },
		"readinessProbe": func(c *corev1.EphemeralContainerCommon) { c.ReadinessProbe = &corev1.Probe{} },
		"startupProbe":   func(c *corev1.EphemeralContainerCommon) { c.StartupProbe = &corev1.Probe{} },
		"resizePolicy": func(c *corev1.EphemeralContainerCommon) {
			c.ResizePolicy = []corev1.ContainerResizePolicy{{ResourceName: "cpu", RestartPolicy: "NotRequired"}}
		},
	} {
		c := *common.DeepCopy()
		change(&c)
		if got := added(corev1.EphemeralContainer{EphemeralContainerCommon: c}); !strings.Contains(got, "spec.ephemeralContainers[0]."+name+": Forbidden: cannot be set for an Ephemeral Container") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestEphemeralContainersStay(t *testing.T) {
	old := newPod(t, smallYAML)
	old.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "debug", Image: "i"}}}
	setDefaults(old)
	p := old.DeepCopy()
	p.Spec.EphemeralContainers = nil
	if got := words(ephemeralStrategy{}.ValidateUpdate(context.Background(), p, old)); !strings.Contains(got, `existing ephemeral containers "debug" may not be removed`) {
		t.Error(got)
	}
	p = old.DeepCopy()
	p.Spec.EphemeralContainers[0].Image = "j"
	if got := words(ephemeralStrategy{}.ValidateUpdate(context.Background(), p, old)); !strings.Contains(got, `existing ephemeral containers "debug" may not be changed`) {
		t.Error(got)
	}
}

func TestResize(t *testing.T) {
	base := `{metadata: {name: p, namespace: ns}, spec: {containers: [{name: c, image: i, resources: {requests: {cpu: 100m}, limits: {cpu: "1", example.com/gpu: "1"}}}]}}`
	for name, tc := range map[string]struct {
		change func(*corev1.ResourceRequirements)
		want   string
	}{
		"cpu":         {func(r *corev1.ResourceRequirements) { r.Requests["cpu"] = resource.MustParse("200m") }, ""},
		"above limit": {func(r *corev1.ResourceRequirements) { r.Requests["cpu"] = resource.MustParse("3") }, "must be less than or equal to cpu limit of 1"},
		"gpu": {func(r *corev1.ResourceRequirements) {
			r.Limits["example.com/gpu"], r.Requests["example.com/gpu"] = resource.MustParse("2"), resource.MustParse("2")
		}, "only cpu and memory resources are mutable"},
		"class":         {func(r *corev1.ResourceRequirements) { *r = corev1.ResourceRequirements{} }, "Pod QOS Class may not change as a result of resizing"},
		"limit removed": {func(r *corev1.ResourceRequirements) { delete(r.Limits, "cpu") }, "resource limits cannot be removed"},
	} {
		t.Run(name, func(t *testing.T) {
			old := newPod(t, base)
			p := old.DeepCopy()
			p.Spec.Containers[0].Image = "ignored"
			tc.change(&p.Spec.Containers[0].Resources)
			s := resizeStrategy{}
			s.PrepareForUpdate(context.Background(), p, old)
			got := words(s.ValidateUpdate(context.Background(), p, old))
			if (tc.want == "") != (got == "") || !strings.Contains(got, tc.want) {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestGracefulDelete(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*corev1.Pod)
		asked  *int64
		want   int64
	}{
		{"on a node", func(p *corev1.Pod) { p.Spec.NodeName = "n" }, nil, 30},
		{"on no node", func(*corev1.Pod) {}, nil, 0},
		{"asked for", func(p *corev1.Pod) { p.Spec.NodeName = "n" }, ptr.To[int64](5), 5},
		{"at once", func(p *corev1.Pod) { p.Spec.NodeName = "n" }, ptr.To[int64](0), 0},
		{"negative", func(p *corev1.Pod) { p.Spec.NodeName = "n" }, ptr.To[int64](-5), 1},
		{"ended", func(p *corev1.Pod) { p.Spec.NodeName, p.Status.Phase = "n", corev1.PodFailed }, nil, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := newPod(t, smallYAML)
			tc.change(p)
			options := &metav1.DeleteOptions{GracePeriodSeconds: tc.asked}
			if !gracefulDelete(context.Background(), p, options) || *options.GracePeriodSeconds != tc.want {
				t.Errorf("got %v, want %d", *options.GracePeriodSeconds, tc.want)
			}
		})
	}
}

func TestQOSClass(t *testing.T) {
	for text, want := range map[string]corev1.PodQOSClass{
		``:                                corev1.PodQOSBestEffort,
		`{limits: {cpu: 1, memory: 1Gi}}`: corev1.PodQOSGuaranteed,
		`{limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 1, memory: 512Mi}}`: corev1.PodQOSBurstable,
		`{requests: {cpu: 1}}`:           corev1.PodQOSBurstable,
		`{limits: {cpu: 1}}`:             corev1.PodQOSBurstable,
		`{limits: {example.com/gpu: 1}}`: corev1.PodQOSBestEffort,
		`{limits: {cpu: 0, memory: 0}}`:  corev1.PodQOSBestEffort,
	} {
		if text == "" {
			text = "{}"
		}
		p := newPod(t, `{metadata: {name: p}, spec: {containers: [{name: c, image: i, resources: `+text+`}]}}`)
		if p.Status.QOSClass != want {
			t.Errorf("%s: got %s, want %s", text, p.Status.QOSClass, want)
		}
	}
}

func TestBind(t *testing.T) {
	binding := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "small", Annotations: map[string]string{"a": "b"}}, Target: corev1.ObjectReference{Name: "n"}}
	p := newPod(t, smallYAML)
	if err := bind(p, binding); err != nil || p.Spec.NodeName != "n" || p.Annotations["a"] != "b" || !hasCondition(p, corev1.PodScheduled) {
		t.Errorf("bound to %q with %v: %v", p.Spec.NodeName, p.Annotations, err)
	}
	if err := bind(p, binding); err == nil || err.Error() != `pod small is already assigned to node "n"` {
		t.Error(err)
	}
	p = newPod(t, smallYAML)
	p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "g"}}
	if err := bind(p, binding); err == nil || err.Error() != "pod small has non-empty .spec.schedulingGates" {
		t.Error(err)
	}
	p = newPod(t, smallYAML)
	p.DeletionTimestamp = &metav1.Time{Time: time.Now()}
	if err := bind(p, binding); err == nil || err.Error() != "pod small is being deleted, cannot be assigned to a host" {
		t.Error(err)
	}
	if got := words(validateBinding(&corev1.Binding{Target: corev1.ObjectReference{Kind: "Pod"}})); got != `target.kind: Unsupported value: "Pod": supported values: "<empty>", "Node"; target.name: Required value` && !strings.Contains(got, "target.name: Required value") {
		t.Error(got)
	}
}

func TestEvictionDeletion(t *testing.T) {
	all := []string{metav1.DryRunAll}
	how, err := deletion(&policyv1.Eviction{}, &metav1.CreateOptions{DryRun: all})
	if err != nil || len(how.DryRun) != 1 {
		t.Errorf("dry run %v, %v", how, err)
	}
	if _, err := deletion(&policyv1.Eviction{DeleteOptions: &metav1.DeleteOptions{DryRun: []string{"X"}}}, &metav1.CreateOptions{}); err == nil ||
		!strings.Contains(err.Error(), `dryRun: Unsupported value: ["X"]: supported values: "All"`) {
		t.Error(err)
	}
	if _, err := deletion(&policyv1.Eviction{DeleteOptions: &metav1.DeleteOptions{DryRun: []string{"X"}}}, &metav1.CreateOptions{DryRun: all}); err == nil ||
		!strings.Contains(err.Error(), "Non-matching dry-run options") {
		t.Error(err)
	}
}

func TestChooseContainer(t *testing.T) {
	one := newPod(t, smallYAML)
	if name, err := chooseContainer("", one); err != nil || name != "c" {
		t.Error(name, err)
	}
	two := newPod(t, `{metadata: {name: two}, spec: {containers: [{name: a, image: i}, {name: b, image: i}], initContainers: [{name: d, image: i}]}}`)
	if _, err := chooseContainer("", two); err == nil || err.Error() != "a container name must be specified for pod two, choose one of: [a b] or one of the init containers: [d]" {
		t.Error(err)
	}
	if name, err := chooseContainer("d", two); err != nil || name != "d" {
		t.Error(name, err)
	}
	if _, err := chooseContainer("x", two); err == nil || err.Error() != "container x is not valid for pod two" {
		t.Error(err)
	}
}

func TestLogOptions(t *testing.T) {
	for want, o := range map[string]corev1.PodLogOptions{
		"": {TailLines: ptr.To[int64](0), LimitBytes: ptr.To[int64](1)},
		"tailLines: Invalid value: -1: must be greater than or equal to 0": {TailLines: ptr.To[int64](-1)},
		"limitBytes: Invalid value: 0: must be greater than 0":             {LimitBytes: ptr.To[int64](0)},
		"sinceSeconds: Invalid value: 0: must be greater than 0":           {SinceSeconds: ptr.To[int64](0)},
		"at most one of `sinceTime` or `sinceSeconds` may be specified":    {SinceSeconds: ptr.To[int64](1), SinceTime: &metav1.Time{}},
		`stream: Unsupported value: "x"`:                                   {Stream: ptr.To("x")},
		"`tailLines` and specific `stream` are mutually exclusive for now": {Stream: ptr.To(corev1.LogStreamStderr), TailLines: ptr.To[int64](1)},
	} {
		if got := words(validateLogOptions(&o)); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	query := logQuery(&corev1.PodLogOptions{Follow: true, TailLines: ptr.To[int64](3), SinceTime: &metav1.Time{Time: time.Unix(0, 0).UTC()}, Stream: ptr.To(corev1.LogStreamAll)})
	want := url.Values{"follow": {"true"}, "tailLines": {"3"}, "sinceTime": {"1970-01-01T00:00:00Z"}}
	if query.Encode() != want.Encode() {
		t.Errorf("got %s, want %s", query.Encode(), want.Encode())
	}
}
