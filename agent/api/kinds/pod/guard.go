package pod

import (
	"context"

	corev1 "k8s.io/api/core/v1"
)

// DisruptionGuard decides whether a pod may be evicted now: disruption budgets stand behind it.
type DisruptionGuard interface {
	// Disrupt books the disruption of the pod, or returns an API status error (429 with a Retry-After) when a
	// budget forbids it. With dryRun nothing is booked.
	Disrupt(ctx context.Context, pod *corev1.Pod, dryRun bool) error
}
