package event

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/podvine/podvine/agent/api/kinds"
)

// Limits of what an event that carries an eventTime may say.
const (
	maxReportingInstanceBytes = 128
	maxActionBytes            = 128
	maxReasonBytes            = 128
	maxNoteBytes              = 1024
)

func validateCreate(e *corev1.Event, version schema.GroupVersion) field.ErrorList {
	errs := validateCommon(e, version)
	if version == corev1.SchemeGroupVersion {
		return errs
	}
	errs = append(errs, kinds.ValidateObjectMeta(&e.ObjectMeta, true, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))...)
	errs = append(errs, validateSeries(e)...)
	if e.EventTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("eventTime"), ""))
	}
	if e.Type != corev1.EventTypeNormal && e.Type != corev1.EventTypeWarning {
		errs = append(errs, field.Invalid(field.NewPath("type"), "", fmt.Sprintf("has invalid value: %v", e.Type)))
	}
	unset := func(name string, set bool) {
		if set {
			errs = append(errs, field.Invalid(field.NewPath(name), "", "needs to be unset"))
		}
	}
	unset("firstTimestamp", !e.FirstTimestamp.IsZero())
	unset("lastTimestamp", !e.LastTimestamp.IsZero())
	unset("count", e.Count != 0)
	unset("source", e.Source.Component != "" || e.Source.Host != "")
	return errs
}

func validateUpdate(e, old *corev1.Event, version schema.GroupVersion) field.ErrorList {
	errs := validateCommon(e, version)
	if version == corev1.SchemeGroupVersion {
		return errs
	}
	errs = append(errs, kinds.ValidateObjectMetaUpdate(&e.ObjectMeta, &old.ObjectMeta, field.NewPath("metadata"))...)
	if (e.Series == nil) != (old.Series == nil) || e.Series != nil && *e.Series != *old.Series {
		errs = append(errs, validateSeries(e)...)
	}
	immutable := func(name string, now, was any) {
		errs = append(errs, apivalidation.ValidateImmutableField(now, was, field.NewPath(name))...)
	}
	immutable("involvedObject", e.InvolvedObject, old.InvolvedObject)
	immutable("reason", e.Reason, old.Reason)
	immutable("message", e.Message, old.Message)
	immutable("source", e.Source, old.Source)
	immutable("firstTimestamp", e.FirstTimestamp, old.FirstTimestamp)
	immutable("lastTimestamp", e.LastTimestamp, old.LastTimestamp)
	immutable("count", e.Count, old.Count)
	immutable("type", e.Type, old.Type)
	if !truncated(e.EventTime).Equal(truncated(old.EventTime)) {
		immutable("eventTime", e.EventTime, old.EventTime)
	}
	immutable("action", e.Action, old.Action)
	immutable("related", e.Related, old.Related)
	immutable("reportingController", e.ReportingController, old.ReportingController)
	immutable("reportingInstance", e.ReportingInstance, old.ReportingInstance)
	return errs
}

func validateSeries(e *corev1.Event) (errs field.ErrorList) {
	if e.Series == nil {
		return nil
	}
	if e.Series.Count < 2 {
		errs = append(errs, field.Invalid(field.NewPath("series.count"), "", "should be at least 2"))
	}
	if e.Series.LastObservedTime.IsZero() {
		errs = append(errs, field.Required(field.NewPath("series.lastObservedTime"), ""))
	}
	return errs
}

// validateCommon holds for both groups. An event without an eventTime is of the old style, which promises little.
func validateCommon(e *corev1.Event, version schema.GroupVersion) (errs field.ErrorList) {
	if e.EventTime.IsZero() {
		errs = validateNamespaces(e)
	} else {
		errs = validateNew(e, version)
	}
	for _, message := range validation.IsDNS1123Subdomain(e.Namespace) {
		errs = append(errs, field.Invalid(field.NewPath("namespace"), e.Namespace, message))
	}
	return errs
}

func mismatch(e *corev1.Event) field.ErrorList {
	return field.ErrorList{field.Invalid(field.NewPath("involvedObject", "namespace"), e.InvolvedObject.Namespace, "does not match event.namespace")}
}

func validateNamespaces(e *corev1.Event) field.ErrorList {
	if e.InvolvedObject.Namespace != "" {
		if e.Namespace != e.InvolvedObject.Namespace {
			return mismatch(e)
		}
		return nil
	}
	if e.Namespace != metav1.NamespaceNone && e.Namespace != metav1.NamespaceDefault {
		return mismatch(e) // events of cluster-wide objects are in the default namespace
	}
	return nil
}

func validateNew(e *corev1.Event, version schema.GroupVersion) (errs field.ErrorList) {
	if e.InvolvedObject.Namespace == "" && e.Namespace != metav1.NamespaceDefault && e.Namespace != metav1.NamespaceSystem {
		errs = append(errs, mismatch(e)...)
	}
	controller := field.NewPath("reportingController")
	if version == corev1.SchemeGroupVersion {
		controller = field.NewPath("reportingComponent")
	}
	if e.ReportingController == "" {
		errs = append(errs, field.Required(controller, ""))
	}
	for _, message := range validation.IsQualifiedName(e.ReportingController) {
		errs = append(errs, field.Invalid(controller, e.ReportingController, message))
	}
	text := func(name, value string, required bool, limit int) {
		if required && value == "" {
			errs = append(errs, field.Required(field.NewPath(name), ""))
		}
		if len(value) > limit {
			errs = append(errs, field.Invalid(field.NewPath(name), "", fmt.Sprintf("can have at most %v characters", limit)))
		}
	}
	text("reportingInstance", e.ReportingInstance, true, maxReportingInstanceBytes)
	text("action", e.Action, true, maxActionBytes)
	text("reason", e.Reason, true, maxReasonBytes)
	text("message", e.Message, false, maxNoteBytes)
	return errs
}
