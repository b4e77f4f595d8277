// Package flowcontrol is the kinds FlowSchema and PriorityLevelConfiguration, with which priority and fairness is
// configured. It holds no state.
package flowcontrol

import (
	"context"
	"fmt"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/util/shufflesharding"

	"github.com/podvine/podvine/agent/api/kinds"
)

// Defaults and limits of priority levels, Kubernetes' own.
const (
	defaultShares           = 30
	defaultQueues           = 64
	defaultHandSize         = 8
	defaultQueueLengthLimit = 50
	maxQueues               = 10_000_000
	maxPercent              = 100
	maxHandEntropyBits      = 60
)

// Levels returns the kind PriorityLevelConfiguration.
func Levels() kinds.Resource {
	type T = *flowcontrolv1.PriorityLevelConfiguration
	limited := func(f func(*flowcontrolv1.LimitedPriorityLevelConfiguration) any) func(T) any {
		return func(l T) any {
			if l.Spec.Limited == nil {
				return "<none>"
			}
			return f(l.Spec.Limited)
		}
	}
	queuing := func(f func(*flowcontrolv1.QueuingConfiguration) int32) func(T) any {
		return limited(func(l *flowcontrolv1.LimitedPriorityLevelConfiguration) any {
			if l.LimitResponse.Queuing == nil {
				return "<none>"
			}
			return int64(f(l.LimitResponse.Queuing))
		})
	}
	return &kinds.Kind[T]{
		GroupVersion: flowcontrolv1.SchemeGroupVersion,
		Kind:         "PriorityLevelConfiguration", Resource: "prioritylevelconfigurations", Singular: "prioritylevelconfiguration",
		New:     func() T { return &flowcontrolv1.PriorityLevelConfiguration{} },
		NewList: func() runtime.Object { return &flowcontrolv1.PriorityLevelConfigurationList{} },

		Default:          setLevelDefaults,
		HasGeneration:    true,
		PrepareForCreate: func(_ context.Context, l T) { l.Status = flowcontrolv1.PriorityLevelConfigurationStatus{} },
		Validate:         func(_ context.Context, l T) field.ErrorList { return validateLevel(l) },
		ValidateUpdate:   func(_ context.Context, l, _ T) field.ErrorList { return validateLevel(l) },

		Columns: []kinds.Column[T]{
			kinds.NameColumn[T](),
			{Name: "Type", Cell: func(l T) any { return string(l.Spec.Type) }},
			{Name: "NominalConcurrencyShares", Cell: limited(func(l *flowcontrolv1.LimitedPriorityLevelConfiguration) any {
				if l.NominalConcurrencyShares == nil {
					return "<none>"
				}
				return int64(*l.NominalConcurrencyShares)
			})},
			{Name: "Queues", Cell: queuing(func(q *flowcontrolv1.QueuingConfiguration) int32 { return q.Queues })},
			{Name: "HandSize", Cell: queuing(func(q *flowcontrolv1.QueuingConfiguration) int32 { return q.HandSize })},
			{Name: "QueueLengthLimit", Cell: queuing(func(q *flowcontrolv1.QueuingConfiguration) int32 { return q.QueueLengthLimit })},
			kinds.AgeColumn[T](),
		},
		Status: &kinds.Status[T]{
			PrepareForUpdate: func(_ context.Context, l, old T) {
				managed := l.ManagedFields
				l.Spec, l.ObjectMeta = old.Spec, withVersion(old.ObjectMeta, l.ObjectMeta)
				l.ManagedFields = managed
			},
			ValidateUpdate: func(_ context.Context, l, _ T) field.ErrorList {
				types := make([]string, len(l.Status.Conditions))
				for i, c := range l.Status.Conditions {
					types[i] = string(c.Type)
				}
				return validateConditions(types, field.NewPath("status", "conditions"))
			},
			ResetFields: []string{"spec", "metadata"},
		},
	}
}

func setDefault[V any](p **V, value V) {
	if *p == nil {
		*p = &value
	}
}

func setLevelDefaults(l *flowcontrolv1.PriorityLevelConfiguration) {
	if e := l.Spec.Exempt; e != nil {
		setDefault(&e.NominalConcurrencyShares, 0)
		setDefault(&e.LendablePercent, 0)
	}
	if l.Spec.Limited == nil {
		return
	}
	setDefault(&l.Spec.Limited.NominalConcurrencyShares, defaultShares)
	setDefault(&l.Spec.Limited.LendablePercent, 0)
	if q := l.Spec.Limited.LimitResponse.Queuing; q != nil {
		if q.Queues == 0 {
			q.Queues = defaultQueues
		}
		if q.HandSize == 0 {
			q.HandSize = defaultHandSize
		}
		if q.QueueLengthLimit == 0 {
			q.QueueLengthLimit = defaultQueueLengthLimit
		}
	}
}

func validateLevel(l *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	errs := kinds.ValidateObjectMeta(&l.ObjectMeta, false, apivalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	path := field.NewPath("spec")
	spec := &l.Spec
	isExempt, isLimited := spec.Type == flowcontrolv1.PriorityLevelEnablementExempt, spec.Type == flowcontrolv1.PriorityLevelEnablementLimited
	switch {
	case spec.Type == "":
		errs = append(errs, field.Required(path.Child("type"), ""))
	case !isExempt && !isLimited:
		errs = append(errs, field.NotSupported(path.Child("type"), spec.Type,
			[]flowcontrolv1.PriorityLevelEnablement{flowcontrolv1.PriorityLevelEnablementExempt, flowcontrolv1.PriorityLevelEnablementLimited}))
	case isExempt != (l.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt):
		errs = append(errs, field.Invalid(path.Child("type"), spec.Type, "type must be 'Exempt' if and only if `name` is 'exempt'"))
	}
	switch {
	case spec.Limited == nil && isLimited:
		errs = append(errs, field.Required(path.Child("limited"), ""))
	case spec.Limited != nil && !isLimited:
		errs = append(errs, field.Forbidden(path.Child("limited"), ""))
	case spec.Limited != nil:
		errs = append(errs, validateLimited(spec.Limited, path.Child("limited"))...)
	}
	if spec.Exempt != nil {
		if isLimited {
			errs = append(errs, field.Forbidden(path.Child("exempt"), ""))
		}
		errs = append(errs, validateShares(spec.Exempt.NominalConcurrencyShares, spec.Exempt.LendablePercent, path.Child("exempt"))...)
	}
	return errs
}

func validateShares(shares, lendable *int32, path *field.Path) (errs field.ErrorList) {
	if shares != nil && *shares < 0 {
		errs = append(errs, field.Invalid(path.Child("nominalConcurrencyShares"), *shares, "must be a non-negative integer"))
	}
	if lendable != nil && (*lendable < 0 || *lendable > maxPercent) {
		errs = append(errs, field.Invalid(path.Child("lendablePercent"), *lendable, "must be between 0 and 100, inclusive"))
	}
	return errs
}

func validateLimited(l *flowcontrolv1.LimitedPriorityLevelConfiguration, path *field.Path) field.ErrorList {
	errs := validateShares(l.NominalConcurrencyShares, l.LendablePercent, path)
	if b := l.BorrowingLimitPercent; b != nil && *b < 0 {
		errs = append(errs, field.Invalid(path.Child("borrowingLimitPercent"), *b, "if specified, must be a non-negative integer"))
	}
	path = path.Child("limitResponse")
	switch response := l.LimitResponse; response.Type {
	case flowcontrolv1.LimitResponseTypeReject:
		if response.Queuing != nil {
			errs = append(errs, field.Forbidden(path.Child("queuing"), ""))
		}
	case flowcontrolv1.LimitResponseTypeQueue:
		if response.Queuing == nil {
			return append(errs, field.Required(path.Child("queuing"), ""))
		}
		errs = append(errs, validateQueuing(response.Queuing, path.Child("queuing"))...)
	case "":
		errs = append(errs, field.Required(path.Child("type"), ""))
	default:
		errs = append(errs, field.NotSupported(path.Child("type"), response.Type,
			[]flowcontrolv1.LimitResponseType{flowcontrolv1.LimitResponseTypeQueue, flowcontrolv1.LimitResponseTypeReject}))
	}
	return errs
}

func validateQueuing(q *flowcontrolv1.QueuingConfiguration, path *field.Path) (errs field.ErrorList) {
	positive := func(name string, value int32) {
		if value <= 0 {
			errs = append(errs, field.Invalid(path.Child(name), value, "must be positive"))
		}
	}
	positive("queueLengthLimit", q.QueueLengthLimit)
	positive("queues", q.Queues)
	if q.Queues > maxQueues {
		errs = append(errs, field.Invalid(path.Child("queues"), q.Queues, fmt.Sprintf("must not be greater than %d", maxQueues)))
	}
	positive("handSize", q.HandSize)
	if q.HandSize > q.Queues {
		errs = append(errs, field.Invalid(path.Child("handSize"), q.HandSize, fmt.Sprintf("should not be greater than queues (%d)", q.Queues)))
	} else if q.HandSize > 0 && shufflesharding.RequiredEntropyBits(int(q.Queues), int(q.HandSize)) > maxHandEntropyBits {
		errs = append(errs, field.Invalid(path.Child("handSize"), q.HandSize, fmt.Sprintf(
			"required entropy bits of deckSize %d and handSize %d should not be greater than %d", q.Queues, q.HandSize, maxHandEntropyBits)))
	}
	return errs
}
