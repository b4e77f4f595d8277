package autoscaler_test

import (
	"strings"
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	"k8s.io/apimachinery/pkg/api/equality"
	"sigs.k8s.io/yaml"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/autoscaler"
	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
)

func spec(text string) string { return `{spec: {` + text + `}}` }

func metric(text string) string { return spec(`metrics: [{` + text + `}]`) }

const at = "spec.metrics[0]."

// targetRows show the fields of a metric's target.
func targetRows(source, rest string) []Row {
	field := "spec.metrics[]." + strings.ToLower(source[:1]) + source[1:]
	name := strings.TrimPrefix(field, "spec.metrics[].")
	target := func(text string) string {
		return metric(`type: ` + source + `, ` + name + `: {` + rest + `, target: {` + text + `}}`)
	}
	const average = "averageValue: 1, "
	extra := ""
	if strings.HasSuffix(source, "esource") { // one of the two targets only
		extra = "; Forbidden " + at + name + ".target.averageValue"
	}
	more := func(e string) string { return e + extra }
	value := ""
	if source == "External" {
		value = "; Forbidden " + at + name + ".target.value"
	}
	return []Row{
		{Field: field + ".target.type", Class: Invalid, Patch: target(average), Error: "Invalid " + at + name + ".target.type; Required " + at + name + ".target.type"},
		{Field: field + ".target.value", Class: Invalid, Patch: target(average + `type: Value, value: "-1"`), Error: "Invalid " + at + name + ".target.value" + value},
		{Field: field + ".target.averageUtilization", Class: Invalid, Patch: target(average + "type: Value, averageUtilization: 0"), Error: more("Invalid " + at + name + ".target.averageUtilization")},
		{Field: field + ".target.averageValue", Class: Mutable, Patch: target(`type: AverageValue, averageValue: "1"`)},
	}
}

func TestFields(t *testing.T) {
	rules := func(text string) string { return spec(`behavior: {scaleUp: {` + text + `}}`) }
	policy := func(text string) string {
		return rules(`policies: [{type: Pods, value: 1, periodSeconds: 1, ` + text + `}]`)
	}
	const up, status = "spec.behavior.scaleUp.", `{status: {observedGeneration: 1, lastScaleTime: "2030-01-02T03:04:05Z", currentReplicas: 1, desiredReplicas: 2,
		currentMetrics: [{type: Resource, resource: {name: cpu, current: {averageUtilization: 4}}}],
		conditions: [{type: AbleToScale, status: "True", reason: R, message: m, lastTransitionTime: "2030-01-02T03:04:05Z", observedGeneration: 1}]}}`
	rows := []Row{
		{Field: "spec.scaleTargetRef.kind", Class: Invalid, Patch: spec("scaleTargetRef: {kind: a/b}"), Error: "Invalid spec.scaleTargetRef.kind"},
		{Field: "spec.scaleTargetRef.name", Class: Invalid, Patch: spec(`scaleTargetRef: {name: ""}`), Error: "Required spec.scaleTargetRef.name"},
		{Field: "spec.scaleTargetRef.apiVersion", Class: Invalid, Patch: spec("scaleTargetRef: {apiVersion: v1}"), Error: "Invalid spec.scaleTargetRef.apiVersion"},
		{Field: "spec.scaleTargetRef.apiVersion", Class: Valid, Patch: spec("scaleTargetRef: {apiVersion: v1, kind: ReplicationController}")},
		{Field: "spec.minReplicas", Class: Defaulted, Want: spec("minReplicas: 1")},
		{Field: "spec.minReplicas", Class: Invalid, Patch: spec("minReplicas: -1"), Error: "Invalid spec.minReplicas"},
		{Field: "spec.minReplicas", Class: Invalid, Patch: spec("minReplicas: 0"), Error: "Forbidden spec.metrics"},
		{Field: "spec.maxReplicas", Class: Invalid, Patch: spec("maxReplicas: null"), Error: "Invalid spec.maxReplicas; Required spec.maxReplicas"},
		{Field: "spec.maxReplicas", Class: Invalid, Patch: spec("minReplicas: 4"), Error: "Invalid spec.maxReplicas"},
		{Field: "spec.metrics", Class: Defaulted, Want: metric("type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}")},
		{Field: "spec.metrics[].type", Class: Invalid, Patch: metric("type: Odd, pods: null"), Error: "NotSupported " + at + "type"},
		{Field: "spec.metrics[].type", Class: Invalid, Patch: metric("type: Pods"), Error: "Required " + at + "pods"},
		{Field: "spec.metrics[].resource.name", Class: Invalid, Patch: metric("type: Resource, resource: {target: {type: Utilization, averageUtilization: 1}}"), Error: "Required " + at + "resource.name"},
		{Field: "spec.metrics[].resource", Class: Invalid, Patch: metric("type: Resource, resource: {name: cpu, target: {type: Utilization}}"), Error: "Required " + at + "resource.target.averageUtilization"},
		{Field: "spec.metrics[].containerResource.name", Class: Invalid, Patch: metric("type: ContainerResource, containerResource: {name: pods, container: c, target: {type: Utilization, averageUtilization: 1}}"),
			Error: "Invalid " + at + "containerResource.name"},
		{Field: "spec.metrics[].containerResource.container", Class: Invalid, Patch: metric("type: ContainerResource, containerResource: {name: cpu, container: A, target: {type: Utilization, averageUtilization: 1}}"),
			Error: "Invalid " + at + "containerResource.container"},
		{Field: "spec.metrics[].object.describedObject.kind", Class: Invalid, Patch: metric("type: Object, object: {metric: {name: m}, describedObject: {name: a, apiVersion: a/b/c}, target: {type: Value, value: 1}}"),
			Error: "Required " + at + "object.describedObject.kind; Invalid " + at + "object.describedObject.apiVersion"},
		{Field: up + "stabilizationWindowSeconds", Class: Defaulted, Patch: spec("behavior: {}"), Want: rules("stabilizationWindowSeconds: 0")},
		{Field: up + "stabilizationWindowSeconds", Class: Invalid, Patch: rules("stabilizationWindowSeconds: 3601"), Error: "Invalid " + up + "stabilizationWindowSeconds"},
		{Field: up + "selectPolicy", Class: Defaulted, Patch: spec("behavior: {}"), Want: rules("selectPolicy: Max")},
		{Field: up + "selectPolicy", Class: Invalid, Patch: rules("selectPolicy: Odd"), Error: "NotSupported " + up + "selectPolicy"},
		{Field: up + "policies", Class: Defaulted, Patch: spec("behavior: {}"), Want: rules("policies: [{type: Pods, value: 4, periodSeconds: 15}, {type: Percent, value: 100, periodSeconds: 15}]")},
		{Field: up + "policies", Class: Invalid, Patch: rules("policies: []"), Error: "Required " + up + "policies"},
		{Field: up + "policies[].type", Class: Invalid, Patch: policy("type: Odd"), Error: "NotSupported " + up + "policies[0].type"},
		{Field: up + "policies[].value", Class: Invalid, Patch: policy("value: 0"), Error: "Invalid " + up + "policies[0].value"},
		{Field: up + "policies[].periodSeconds", Class: Invalid, Patch: policy("periodSeconds: 1801"), Error: "Invalid " + up + "policies[0].periodSeconds"},
		{Field: up + "tolerance", Class: Invalid, Patch: rules(`tolerance: "-1"`), Error: "Invalid " + up + "tolerance"},
		{Field: "spec.behavior.scaleDown", Class: Defaulted, Patch: spec("behavior: {}"), Want: spec("behavior: {scaleDown: {selectPolicy: Max, policies: [{type: Percent, value: 100, periodSeconds: 15}]}}")},
		{Field: "status.currentReplicas", Class: Immutable, Status: true, Patch: `{status: {currentReplicas: -1}}`, Error: "Invalid status.currentReplicas"},
		{Field: "status.desiredReplicas", Class: Immutable, Status: true, Patch: `{status: {desiredReplicas: -1}}`, Error: "Invalid status.desiredReplicas"},
		{Field: "status.conditions", Class: Dropped, Patch: status},
	}
	for _, name := range []string{"observedGeneration", "lastScaleTime", "currentMetrics"} {
		rows = append(rows, Row{Field: "status." + name, Class: Mutable, Status: true, Patch: status})
	}
	for source, rest := range map[string]string{"Resource": "name: cpu", "ContainerResource": "name: cpu, container: c", "Pods": "metric: {name: m}", "External": "metric: {name: m}",
		"Object": "metric: {name: m}, describedObject: {kind: K, name: a}"} {
		rows = append(rows, targetRows(source, rest)...)
	}
	for source, rest := range map[string]string{"pods": "", "external": "", "object": ", describedObject: {kind: K, name: a}"} {
		rows = append(rows, Row{Field: "spec.metrics[]." + source + ".metric.name", Class: Invalid, Error: "Invalid " + at + source + ".metric.name",
			Patch: metric("type: " + strings.ToUpper(source[:1]) + source[1:] + ", " + source + ": {metric: {name: a/b}, target: {type: AverageValue, averageValue: 1}" + rest + "}")})
	}
	Run(t, Table{
		Resource: autoscaler.Resources()[0],
		Base:     `{metadata: {name: a, namespace: ns}, spec: {maxReplicas: 3, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}}}`,
		Rows:     rows,
		Elsewhere: map[string]string{
			"spec.metrics[].object.describedObject": "spec.scaleTargetRef, by the same code", "spec.metrics[].object.metric.selector": "has no rules",
			"spec.metrics[].pods.metric.selector": "has no rules", "spec.metrics[].external.metric.selector": "has no rules",
			"spec.behavior.scaleDown": "spec.behavior.scaleUp, by the same code", "status.currentMetrics[]": "has no rules", "status.conditions[]": "has no rules",
		},
	})
}

// What v2 says survives v1, but for what v1 has no place for.
func TestRoundTrip(t *testing.T) {
	const text = `
metadata: {name: a, annotations: {mine: "yes", autoscaling.alpha.kubernetes.io/metrics: spoof}}
spec:
  minReplicas: 2
  maxReplicas: 10
  scaleTargetRef: {apiVersion: apps/v1, kind: StatefulSet, name: d}
  metrics:
  - {type: ContainerResource, containerResource: {name: memory, container: app, target: {type: AverageValue, averageValue: 100Mi}}}
  - {type: Pods, pods: {metric: {name: rps, selector: {matchLabels: {a: b}}}, target: {type: AverageValue, averageValue: "10"}}}
  - {type: Object, object: {metric: {name: hits}, describedObject: {apiVersion: networking.k8s.io/v1, kind: Ingress, name: i}, target: {type: Value, value: 2k}}}
  - {type: External, external: {metric: {name: q, selector: {matchLabels: {a: b}}}, target: {type: AverageValue, averageValue: "30"}}}
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 60}}}
  behavior:
    scaleUp: {stabilizationWindowSeconds: 0, selectPolicy: Max, policies: [{type: Pods, value: 4, periodSeconds: 15}], tolerance: 10m}
    scaleDown: {selectPolicy: Disabled, policies: [{type: Percent, value: 10, periodSeconds: 60}]}
status:
  observedGeneration: 1
  currentReplicas: 1
  desiredReplicas: 2
  currentMetrics:
  - {type: Resource, resource: {name: cpu, current: {averageUtilization: 40, averageValue: 10m}}}
  - {type: Pods, pods: {metric: {name: rps}, current: {averageValue: "1"}}}
  - {type: Object, object: {metric: {name: hits}, describedObject: {kind: Ingress, name: i}, current: {value: "1"}}}
  - {type: External, external: {metric: {name: q}, current: {value: "1", averageValue: "2"}}}
  - {type: ContainerResource, containerResource: {name: cpu, container: app, current: {averageValue: "1"}}}
  conditions: [{type: AbleToScale, status: "True", reason: R}]
`
	var second autoscalingv2.HorizontalPodAutoscaler
	if err := yaml.UnmarshalStrict([]byte(text), &second); err != nil {
		t.Fatal(err)
	}
	scheme, err := kinds.NewScheme(autoscaler.Resources())
	if err != nil {
		t.Fatal(err)
	}
	var first autoscalingv1.HorizontalPodAutoscaler
	if err := scheme.Convert(&second, &first, nil); err != nil {
		t.Fatal(err)
	}
	if p := first.Spec.TargetCPUUtilizationPercentage; p == nil || *p != 60 {
		t.Errorf("target is %v", p)
	}
	if p := first.Status.CurrentCPUUtilizationPercentage; p == nil || *p != 40 {
		t.Errorf("use is %v", p)
	}
	if len(first.Annotations) != 5 || second.Annotations["autoscaling.alpha.kubernetes.io/metrics"] != "spoof" {
		t.Errorf("annotations are %v, and were changed to %v", first.Annotations, second.Annotations)
	}
	var back autoscalingv2.HorizontalPodAutoscaler
	if err := scheme.Convert(&first, &back, nil); err != nil {
		t.Fatal(err)
	}
	delete(second.Annotations, "autoscaling.alpha.kubernetes.io/metrics")
	if !equality.Semantic.DeepEqual(second, back) {
		t.Errorf("got\n%+v\nwant\n%+v", back, second)
	}
}

// Anybody may write the annotations; what cannot be read counts as not there.
func TestBadAnnotations(t *testing.T) {
	scheme, err := kinds.NewScheme(autoscaler.Resources())
	if err != nil {
		t.Fatal(err)
	}
	first := &autoscalingv1.HorizontalPodAutoscaler{}
	first.Annotations = map[string]string{"autoscaling.alpha.kubernetes.io/metrics": "{", "autoscaling.alpha.kubernetes.io/behavior": "[]", "autoscaling.alpha.kubernetes.io/conditions": "1"}
	var second autoscalingv2.HorizontalPodAutoscaler
	if err := scheme.Convert(first, &second, nil); err != nil {
		t.Fatal(err)
	}
	if len(second.Spec.Metrics) != 1 || second.Spec.Metrics[0].Resource == nil || second.Spec.Behavior != nil || len(second.Status.Conditions) > 0 || len(second.Annotations) > 0 {
		t.Errorf("got %+v", second)
	}
}
