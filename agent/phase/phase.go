// Package phase says what a pod's phase means, for all that look at pods.
package phase

import v1 "k8s.io/api/core/v1"

// Ended tells whether a pod of the phase is over for good: its containers run no more and are not started again.
func Ended(phase v1.PodPhase) bool { return phase == v1.PodSucceeded || phase == v1.PodFailed }
