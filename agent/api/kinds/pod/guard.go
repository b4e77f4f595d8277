package pod

import (
	"context"

	corev1 "k8s.io/api/core/v1"
)

// DisruptionGuard decides whether a pod may be evicted now: disruption budgets stand behind it.
type DisruptionGuard interface {
	// Disrupt books the disruption of the pod, or returns an API status error (429) when a budget forbids it. Where it
	// may go for the state that it is in, unlessChanged is what to answer if it was changed before it is deleted. With
	// dryRun nothing is booked.
	Disrupt(ctx context.Context, pod *corev1.Pod, dryRun bool) (unlessChanged, err error)
}
