package event_test

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"sigs.k8s.io/randfill"

	"github.com/podvine/podvine/agent/api/kinds"
	"github.com/podvine/podvine/agent/api/kinds/event"
	. "github.com/podvine/podvine/agent/api/kinds/kindtest"
)

const (
	old    = `{metadata: {name: e, namespace: ns}, involvedObject: {kind: Pod, namespace: ns, name: p}, reason: R, type: Normal}`
	recent = `{metadata: {name: e, namespace: ns}, eventTime: "2030-01-02T03:04:05.000006Z", reportingController: example.com/c,
		reportingInstance: i, action: A, reason: R, type: Normal, regarding: {kind: Pod, namespace: ns, name: p}}`
	recentCore = `{metadata: {name: e, namespace: ns}, eventTime: "2030-01-02T03:04:05.000006Z", reportingComponent: example.com/c,
		reportingInstance: i, action: A, reason: R, type: Normal, involvedObject: {kind: Pod, namespace: ns, name: p}}`
	long = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
)

func TestFieldsOfCoreEvents(t *testing.T) {
	const related = `{related: {kind: Pod, namespace: ns, name: q, uid: u, apiVersion: v1, resourceVersion: "1", fieldPath: f}}`
	const involved = `{involvedObject: {uid: u, apiVersion: v1, resourceVersion: "1", fieldPath: f}}`
	Run(t, Table{
		Resource: event.Resources()[0],
		Base:     old,
		Rows: []Row{
			{Field: "involvedObject.kind", Class: Mutable, Patch: `{involvedObject: {kind: Node}}`},
			{Field: "involvedObject.namespace", Class: Invalid, Patch: `{involvedObject: {namespace: other}}`, Error: "Invalid involvedObject.namespace"},
			{Field: "involvedObject.namespace", Class: Invalid, Patch: `{involvedObject: {namespace: null}}`, Error: "Invalid involvedObject.namespace"},
			{Field: "involvedObject.name", Class: Mutable, Patch: `{involvedObject: {name: q}}`},
			{Field: "involvedObject.uid", Class: Mutable, Patch: involved},
			{Field: "involvedObject.apiVersion", Class: Mutable, Patch: involved},
			{Field: "involvedObject.resourceVersion", Class: Mutable, Patch: involved},
			{Field: "involvedObject.fieldPath", Class: Mutable, Patch: involved},
			{Field: "reason", Class: Mutable, Patch: `{reason: Other}`},
			{Field: "reason", Class: Invalid, Base: recentCore, Patch: `{reason: ` + long + `}`, Error: "Invalid reason"},
			{Field: "message", Class: Mutable, Patch: `{message: text}`},
			{Field: "source.component", Class: Mutable, Patch: `{source: {component: c}}`},
			{Field: "source.host", Class: Mutable, Patch: `{source: {host: h}}`},
			{Field: "firstTimestamp", Class: Mutable, Patch: `{firstTimestamp: "2030-01-02T03:04:05Z"}`},
			{Field: "lastTimestamp", Class: Mutable, Patch: `{lastTimestamp: "2030-01-02T03:04:05Z"}`},
			{Field: "count", Class: Mutable, Patch: `{count: 2}`},
			{Field: "type", Class: Mutable, Patch: `{type: Anything}`},
			{Field: "eventTime", Class: Invalid, Patch: `{eventTime: "2030-01-02T03:04:05.000006Z"}`,
				Error: "Required action; Required reportingComponent; Invalid reportingComponent; Required reportingInstance"},
			{Field: "series.count", Class: Mutable, Patch: `{series: {count: 1, lastObservedTime: "2030-01-02T03:04:05.000006Z"}}`},
			{Field: "series.lastObservedTime", Class: Mutable, Patch: `{series: {lastObservedTime: "2030-01-02T03:04:05.000006Z"}}`},
			{Field: "action", Class: Invalid, Base: recentCore, Patch: `{action: ""}`, Error: "Required action"},
			{Field: "related.kind", Class: Mutable, Patch: related},
			{Field: "related.namespace", Class: Mutable, Patch: related},
			{Field: "related.name", Class: Mutable, Patch: related},
			{Field: "related.uid", Class: Mutable, Patch: related},
			{Field: "related.apiVersion", Class: Mutable, Patch: related},
			{Field: "related.resourceVersion", Class: Mutable, Patch: related},
			{Field: "related.fieldPath", Class: Mutable, Patch: related},
			{Field: "reportingComponent", Class: Invalid, Base: recentCore, Patch: `{reportingComponent: "bad name!"}`, Error: "Invalid reportingComponent"},
			{Field: "reportingInstance", Class: Invalid, Base: recentCore, Patch: `{reportingInstance: ` + long + `}`, Error: "Invalid reportingInstance"},
		},
	})
}

// Rows of this group run on the stored type, so they name its fields.
func TestRulesOfNewEvents(t *testing.T) {
	table := Table{Resource: event.Resources()[1], Base: recent, Rows: []Row{
		{Field: "involvedObject.name", Class: Immutable, Patch: `{regarding: {name: q}}`, Error: "Invalid involvedObject"},
		{Field: "reason", Class: Immutable, Patch: `{reason: Other}`, Error: "Invalid reason"},
		{Field: "message", Class: Immutable, Patch: `{note: text}`, Error: "Invalid message"},
		{Field: "action", Class: Immutable, Patch: `{action: Other}`, Error: "Invalid action"},
		{Field: "type", Class: Invalid, Patch: `{type: Odd}`, Error: "Invalid type"},
		{Field: "type", Class: Immutable, Patch: `{type: Warning}`, Error: "Invalid type"},
		{Field: "eventTime", Class: Invalid, Patch: `{eventTime: null}`, Error: "Required eventTime"},
		{Field: "eventTime", Class: Immutable, Patch: `{eventTime: "2030-01-02T03:04:06.000006Z"}`, Error: "Invalid eventTime"},
		{Field: "series.count", Class: Invalid, Patch: `{series: {count: 1, lastObservedTime: "2030-01-02T03:04:05.000006Z"}}`, Error: "Invalid series.count"},
		{Field: "series.lastObservedTime", Class: Invalid, Patch: `{series: {count: 2}}`, Error: "Required series.lastObservedTime"},
		{Field: "series.count", Class: Mutable, Patch: `{series: {count: 3, lastObservedTime: "2030-01-02T03:04:05.000006Z"}}`},
		{Field: "firstTimestamp", Class: Invalid, Patch: `{deprecatedFirstTimestamp: "2030-01-02T03:04:05Z"}`, Error: "Invalid firstTimestamp"},
		{Field: "lastTimestamp", Class: Invalid, Patch: `{deprecatedLastTimestamp: "2030-01-02T03:04:05Z"}`, Error: "Invalid lastTimestamp"},
		{Field: "count", Class: Invalid, Patch: `{deprecatedCount: 1}`, Error: "Invalid count"},
		{Field: "source.component", Class: Invalid, Patch: `{deprecatedSource: {component: c}}`, Error: "Invalid source"},
		{Field: "source.host", Class: Invalid, Patch: `{deprecatedSource: {host: h}}`, Error: "Invalid source"},
		{Field: "reportingComponent", Class: Invalid, Patch: `{reportingController: ""}`, Error: "Required reportingController; Invalid reportingController"},
		{Field: "reportingInstance", Class: Immutable, Patch: `{reportingInstance: j}`, Error: "Invalid reportingInstance"},
		{Field: "related.name", Class: Immutable, Patch: `{related: {name: r}}`, Error: "Invalid related"},
	}, Elsewhere: map[string]string{"involvedObject": "TestFieldsOfCoreEvents", "related": "TestFieldsOfCoreEvents"}}
	Run(t, table)
}

// Every field of both types survives the way through the other.
func TestConversionKeepsEverything(t *testing.T) {
	scheme, err := kinds.NewScheme(event.Resources())
	if err != nil {
		t.Fatal(err)
	}
	fill := randfill.NewWithSeed(1).NilChance(0).NumElements(1, 2)
	for range 20 {
		var in, out eventsv1.Event
		var between corev1.Event
		fill.Fill(&in)
		in.TypeMeta = eventsv1.Event{}.TypeMeta
		if err := scheme.Convert(&in, &between, nil); err != nil {
			t.Fatal(err)
		}
		if err := scheme.Convert(&between, &out, nil); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(in, out) {
			t.Fatalf("converted to and fro:\n%+v\nbecame\n%+v", in, out)
		}
	}
}
