package gc

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// kinds are what discovery told: where owners of a kind are found, and what is watched.
type kinds struct {
	byKind  map[schema.GroupVersionKind]kind
	watched map[schema.GroupVersionResource]bool
	// failed are groups that did not answer; what was known of them stays.
	failed map[schema.GroupVersion]bool
}

type kind struct {
	resource   schema.GroupVersionResource
	namespaced bool
}

// ignored are resources without owners worth watching.
func ignored(resource schema.GroupResource) bool {
	return resource.Resource == "events" && (resource.Group == "" || resource.Group == "events.k8s.io")
}

// discover asks what kinds there are. Groups that do not answer are left out and named.
func discover(client discovery.DiscoveryInterface) (kinds, error) {
	found := kinds{byKind: map[schema.GroupVersionKind]kind{}, watched: map[schema.GroupVersionResource]bool{},
		failed: map[schema.GroupVersion]bool{}}
	_, all, err := client.ServerGroupsAndResources()
	if groups, ok := discovery.GroupDiscoveryFailedErrorGroups(err); ok {
		for version := range groups {
			found.failed[version] = true
		}
	} else if err != nil {
		return kinds{}, err
	}
	seen := map[schema.GroupResource]bool{}
	for _, list := range all { // the preferred version of a group comes first
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue // of a group that nobody could call either
		}
		for _, r := range list.APIResources {
			if strings.Contains(r.Name, "/") {
				continue
			}
			resource := version.WithResource(r.Name)
			found.byKind[version.WithKind(r.Kind)] = kind{resource, r.Namespaced}
			deletable := slices.Contains(r.Verbs, "delete") && slices.Contains(r.Verbs, "list") && slices.Contains(r.Verbs, "watch")
			if group := resource.GroupResource(); deletable && !seen[group] && !ignored(group) {
				seen[group] = true
				found.watched[resource] = true
			}
		}
	}
	return found, nil
}
