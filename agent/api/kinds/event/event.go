// Package event is the kind Event in its two groups, v1 and events.k8s.io/v1. Both are stored as the v1 type under the
// same keys; conversion between them is written out in this package. It holds no state.
package event

import (
	"context"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/agent/api/kinds"
)

// lifetimeSeconds is how long an event is kept after its last write, as on Kubernetes by default.
const lifetimeSeconds = 3600

// Resources returns the kind Event of both groups.
func Resources() []kinds.Resource {
	core := newKind(corev1.SchemeGroupVersion)
	core.FieldLabels = selectable()

	events := newKind(eventsv1.SchemeGroupVersion)
	events.StoredAs = schema.GroupResource{Resource: "events"}
	events.ExtraTypes = addTypes
	events.FieldLabelAliases = aliases()
	return []kinds.Resource{core, events}
}

func newKind(version schema.GroupVersion) *kinds.Kind[*corev1.Event] {
	return &kinds.Kind[*corev1.Event]{
		GroupVersion: version,
		Kind:         "Event", Resource: "events", Singular: "event", ShortNames: []string{"ev"},
		Namespaced: true,
		New:        func() *corev1.Event { return &corev1.Event{} },
		NewList:    func() runtime.Object { return &corev1.EventList{} },

		Validate: func(_ context.Context, e *corev1.Event) field.ErrorList { return validateCreate(e, version) },
		ValidateUpdate: func(_ context.Context, e, old *corev1.Event) field.ErrorList {
			return validateUpdate(e, old, version)
		},
		AllowCreateOnUpdate:      true,
		TTLSeconds:               func(*corev1.Event) uint64 { return lifetimeSeconds },
		DefaultGarbageCollection: rest.Unsupported,
		Fields:                   fieldsOf,
		Columns:                  columns(),
	}
}

// selectable are the stored fields that v1 selectors may name.
func selectable() []string {
	return []string{"involvedObject.kind", "involvedObject.namespace", "involvedObject.name", "involvedObject.uid",
		"involvedObject.apiVersion", "involvedObject.resourceVersion", "involvedObject.fieldPath",
		"reason", "reportingComponent", "source", "type"}
}

// aliases are the labels of events.k8s.io/v1.
func aliases() map[string]string {
	m := map[string]string{"reason": "reason", "type": "type", "reportingController": "reportingComponent"}
	for _, label := range selectable() {
		if name, ok := strings.CutPrefix(label, "involvedObject."); ok {
			m["regarding."+name] = label
		}
	}
	return m
}

func fieldsOf(e *corev1.Event) fields.Set {
	source := e.Source.Component
	if source == "" {
		source = e.ReportingController
	}
	o := e.InvolvedObject
	return fields.Set{
		"involvedObject.kind": o.Kind, "involvedObject.namespace": o.Namespace, "involvedObject.name": o.Name,
		"involvedObject.uid": string(o.UID), "involvedObject.apiVersion": o.APIVersion,
		"involvedObject.resourceVersion": o.ResourceVersion, "involvedObject.fieldPath": o.FieldPath,
		"reason": e.Reason, "reportingComponent": e.ReportingController, "source": source, "type": e.Type,
	}
}

func columns() []kinds.Column[*corev1.Event] {
	doc := corev1.Event{}.SwaggerDoc()
	name := kinds.NameColumn[*corev1.Event]()
	name.Priority = 1
	return []kinds.Column[*corev1.Event]{
		{Name: "Last Seen", Description: doc["lastTimestamp"], Cell: func(e *corev1.Event) any { return lastSeen(e) }},
		{Name: "Type", Description: doc["type"], Cell: func(e *corev1.Event) any { return e.Type }},
		{Name: "Reason", Description: doc["reason"], Cell: func(e *corev1.Event) any { return e.Reason }},
		{Name: "Object", Description: doc["involvedObject"], Cell: object},
		{Name: "Subobject", Priority: 1, Description: doc["involvedObject"], Cell: func(e *corev1.Event) any { return e.InvolvedObject.FieldPath }},
		{Name: "Source", Priority: 1, Description: doc["source"], Cell: source},
		{Name: "Message", Description: doc["message"], Cell: func(e *corev1.Event) any { return strings.TrimSpace(e.Message) }},
		{Name: "First Seen", Priority: 1, Description: doc["firstTimestamp"], Cell: func(e *corev1.Event) any { return firstSeen(e) }},
		{Name: "Count", Priority: 1, Description: doc["count"], Cell: count},
		name,
	}
}

func firstSeen(e *corev1.Event) string {
	if e.FirstTimestamp.IsZero() {
		return kinds.Age(metav1.NewTime(e.EventTime.Time))
	}
	return kinds.Age(e.FirstTimestamp)
}

func lastSeen(e *corev1.Event) string {
	switch {
	case e.Series != nil:
		return kinds.Age(metav1.NewTime(e.Series.LastObservedTime.Time))
	case e.LastTimestamp.IsZero():
		return firstSeen(e)
	}
	return kinds.Age(e.LastTimestamp)
}

func object(e *corev1.Event) any {
	kind := strings.ToLower(e.InvolvedObject.Kind)
	if e.InvolvedObject.Name == "" {
		return kind
	}
	return kind + "/" + e.InvolvedObject.Name
}

func source(e *corev1.Event) any {
	component, instance := e.Source.Component, e.Source.Host
	if component == "" {
		component = e.ReportingController
	}
	if instance == "" {
		instance = e.ReportingInstance
	}
	if instance == "" {
		return component
	}
	return component + ", " + instance
}

func count(e *corev1.Event) any {
	switch {
	case e.Series != nil:
		return int64(e.Series.Count)
	case e.Count == 0:
		return int64(1) // an event that happened once does not count itself
	}
	return int64(e.Count)
}

// truncated is a time at the precision that clients can write.
func truncated(t metav1.MicroTime) time.Time { return t.Truncate(time.Microsecond) }
