package namespaces

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	// raceSeconds is how long a namespace must have been terminating before it may end: a create that was
	// admitted just before must have reached the store, to be found.
	raceSeconds = 1
	// remainingSeconds is when to look again for content that waits for finalizers; their end makes no event here.
	remainingSeconds = 5
	// failureSeconds is when to look again after an error of discovery or deletion.
	failureSeconds = 10
)

// Census is what one round of deletion came to.
type Census struct {
	// Discovery and Deletion are the errors met.
	Discovery, Deletion []error
	// Remaining are the resources of which objects are left.
	Remaining []Remaining
}

// Remaining are the objects left of one resource.
type Remaining struct {
	Resource   schema.GroupResource
	Count      int
	Finalizers map[string]int
	// Grace is the longest grace period that an object still has.
	Grace time.Duration
}

// Plan says what to write.
type Plan struct {
	Conditions []v1.NamespaceCondition
	// Finalize: nothing is left, the namespace may go.
	Finalize bool
	// Again is when to look again; 0 only with Finalize.
	Again time.Duration
}

// Decide is pure.
func Decide(namespace *v1.Namespace, census Census, now time.Time) Plan {
	plan := Plan{Conditions: conditions(namespace.Status.Conditions, census, now)}
	age := now.Sub(namespace.DeletionTimestamp.Time)
	switch {
	case len(census.Discovery)+len(census.Deletion) > 0:
		plan.Again = failureSeconds * time.Second
	case len(census.Remaining) > 0:
		plan.Again = again(census.Remaining)
	case age < raceSeconds*time.Second:
		plan.Again = raceSeconds*time.Second - max(0, age)
	default:
		plan.Finalize = true
	}
	return plan
}

// again waits for grace periods, at least a moment and at most remainingSeconds: pods often end earlier.
func again(remaining []Remaining) time.Duration {
	wait := remainingSeconds * time.Second
	for _, r := range remaining {
		if len(r.Finalizers) == 0 && r.Grace < wait {
			wait = max(time.Second, r.Grace)
		}
	}
	return wait
}

// conditions words the census as Kubernetes does; kubectl shows them when a namespace hangs.
func conditions(old []v1.NamespaceCondition, census Census, now time.Time) []v1.NamespaceCondition {
	out := slices.Clone(old)
	set := func(kind v1.NamespaceConditionType, bad bool, badReason, badMessage, reason, message string) {
		next := v1.NamespaceCondition{Type: kind, Status: v1.ConditionFalse, Reason: reason, Message: message, LastTransitionTime: metav1.NewTime(now)}
		if bad {
			next.Status, next.Reason, next.Message = v1.ConditionTrue, badReason, badMessage
		}
		at := slices.IndexFunc(out, func(c v1.NamespaceCondition) bool { return c.Type == kind })
		if at < 0 {
			out = append(out, next)
			return
		}
		if out[at].Status == next.Status {
			next.LastTransitionTime = out[at].LastTransitionTime
		}
		out[at] = next
	}
	set(v1.NamespaceDeletionDiscoveryFailure, len(census.Discovery) > 0, "DiscoveryFailed",
		fmt.Sprintf("Discovery failed for some groups, %d failing: %s", len(census.Discovery), joined(census.Discovery)),
		"ResourcesDiscovered", "All resources successfully discovered")
	set(v1.NamespaceDeletionGVParsingFailure, false, "", "", "ParsedGroupVersions", "All legacy kube types successfully parsed")
	set(v1.NamespaceDeletionContentFailure, len(census.Deletion) > 0, "ContentDeletionFailed",
		fmt.Sprintf("Failed to delete all resource types, %d remaining: %s", len(census.Deletion), joined(census.Deletion)),
		"ContentDeleted", "All content successfully deleted, may be waiting on finalization")
	content, finalizers := words(census.Remaining)
	set(v1.NamespaceContentRemaining, content != "", "SomeResourcesRemain", "Some resources are remaining: "+content,
		"ContentRemoved", "All content successfully removed")
	set(v1.NamespaceFinalizersRemaining, finalizers != "", "SomeFinalizersRemain",
		"Some content in the namespace has finalizers remaining: "+finalizers,
		"ContentHasNoFinalizers", "All content-preserving finalizers finished")
	return out
}

func joined(errs []error) string {
	texts := make([]string, len(errs))
	for i, err := range errs {
		texts[i] = err.Error()
	}
	slices.Sort(texts)
	return strings.Join(texts, ", ")
}

func words(remaining []Remaining) (content, finalizers string) {
	var contents, waits []string
	by := map[string]int{}
	for _, r := range remaining {
		contents = append(contents, fmt.Sprintf("%s.%s has %d resource instances", r.Resource.Resource, r.Resource.Group, r.Count))
		for name, count := range r.Finalizers {
			by[name] += count
		}
	}
	slices.Sort(contents)
	for _, name := range slices.Sorted(maps.Keys(by)) {
		waits = append(waits, fmt.Sprintf("%s in %d resource instances", name, by[name]))
	}
	return strings.Join(contents, ", "), strings.Join(waits, ", ")
}
