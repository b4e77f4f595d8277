// Package podsecuritypolicy is the kind PodSecurityPolicy of policy/v1beta1 as Kubernetes had it until 1.24, for clusters that turn
// it on: its types, which no published module has beside those of today, and what is checked of an object. What a policy does
// to a pod is the business of agent/api/admission.
//
// It holds no state.
//
// +k8s:openapi-gen=true
// +k8s:openapi-model-package=io.k8s.api.policy.v1beta1
package podsecuritypolicy
