package job

import (
	"fmt"
	"slices"

	batchv1 "k8s.io/api/batch/v1"
	v1 "k8s.io/api/core/v1"
)

// verdict is what a failed pod means to its job.
type verdict struct {
	action  batchv1.PodFailurePolicyAction
	message string // for FailJob
}

// judge applies the first rule of the failure policy that matches a failed pod. Without one the failure counts.
func judge(policy *batchv1.PodFailurePolicy, pod *v1.Pod) verdict {
	count := verdict{action: batchv1.PodFailurePolicyActionCount}
	if policy == nil {
		return count
	}
	for i := range policy.Rules {
		rule := &policy.Rules[i]
		if what := matched(rule, pod); what != "" {
			return verdict{rule.Action, fmt.Sprintf("%s matching %s rule at index %d", what, rule.Action, i)}
		}
	}
	return count
}

// matched says by what a rule matches a pod, in Kubernetes' words; empty when it does not.
func matched(rule *batchv1.PodFailurePolicyRule, pod *v1.Pod) string {
	name := pod.Namespace + "/" + pod.Name
	if rule.OnExitCodes != nil {
		for _, list := range [][]v1.ContainerStatus{pod.Status.ContainerStatuses, pod.Status.InitContainerStatuses} {
			for i := range list {
				if ended := list[i].State.Terminated; ended != nil && codeMatches(rule.OnExitCodes, &list[i]) {
					return fmt.Sprintf("Container %s for pod %s failed with exit code %d", list[i].Name, name, ended.ExitCode)
				}
			}
		}
		return ""
	}
	for _, pattern := range rule.OnPodConditions {
		for _, c := range pod.Status.Conditions {
			if c.Type == pattern.Type && c.Status == pattern.Status {
				return fmt.Sprintf("Pod %s has condition %s", name, c.Type)
			}
		}
	}
	return ""
}

func codeMatches(want *batchv1.PodFailurePolicyOnExitCodesRequirement, container *v1.ContainerStatus) bool {
	code := container.State.Terminated.ExitCode
	if code == 0 || want.ContainerName != nil && *want.ContainerName != container.Name {
		return false
	}
	return slices.Contains(want.Values, code) == (want.Operator == batchv1.PodFailurePolicyOnExitCodesOpIn)
}

// succeededEnough says which rule of the success policy is met by the indexes that succeeded.
func succeededEnough(policy *batchv1.SuccessPolicy, done indexSet, limit int) (message string, met bool) {
	if policy == nil {
		return "", false
	}
	for i, rule := range policy.Rules {
		matching, wanted := len(done), 0
		if rule.SucceededIndexes != nil {
			among := parseIndexes(*rule.SucceededIndexes, limit)
			matching, wanted = 0, len(among)
			for n := range among {
				if done[n] {
					matching++
				}
			}
		}
		if rule.SucceededCount != nil {
			wanted = int(*rule.SucceededCount)
		}
		if matching >= wanted {
			return fmt.Sprintf("Matched rules at index %d", i), true
		}
	}
	return "", false
}
