package devices

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/podvine/podvine/agent/api/kinds"
)

// adminAccess refuses claims to devices that others use where the namespace is not marked for that. It is set while the kinds are
// installed and only read afterwards; before, it refuses nothing.
type adminAccess struct {
	namespace func(ctx context.Context, name string) (*corev1.Namespace, error)
}

func (a *adminAccess) extend(env kinds.Env, _, _ *genericregistry.Store, _ map[string]rest.Storage) error {
	a.namespace = env.Namespace
	return nil
}

// toRequests refuses what is asked for. Paths are Kubernetes', which are the same for claims and templates.
func (a *adminAccess) toRequests(ctx context.Context, namespace string, requests []resourcev1.DeviceRequest) field.ErrorList {
	for i, r := range requests {
		if r.Exactly != nil && r.Exactly.AdminAccess != nil && *r.Exactly.AdminAccess {
			return a.check(ctx, namespace, field.NewPath("spec", "devices", "requests").Index(i).Child("adminAccess"))
		}
	}
	return nil
}

// toResults refuses what is allocated, unless it was before.
func (a *adminAccess) toResults(ctx context.Context, namespace string, allocation, old *resourcev1.AllocationResult) field.ErrorList {
	if granted(old) >= 0 {
		return nil
	}
	if i := granted(allocation); i >= 0 {
		return a.check(ctx, namespace, field.NewPath("status", "allocation", "devices", "results").Index(i).Child("adminAccess"))
	}
	return nil
}

// granted is the first result of an allocation that has such access, -1 for none.
func granted(allocation *resourcev1.AllocationResult) int {
	if allocation != nil {
		for i, r := range allocation.Devices.Results {
			if r.AdminAccess != nil && *r.AdminAccess {
				return i
			}
		}
	}
	return -1
}

func (a *adminAccess) check(ctx context.Context, namespace string, path *field.Path) field.ErrorList {
	if a.namespace == nil {
		return nil
	}
	in, err := a.namespace(ctx, namespace)
	if err != nil {
		return field.ErrorList{field.InternalError(path, fmt.Errorf("could not retrieve namespace to verify admin access: %w", err))}
	}
	if in.Labels[resourcev1.DRAAdminNamespaceLabelKey] != "true" {
		return field.ErrorList{field.Forbidden(path, fmt.Sprintf("admin access to devices requires the `%s: true` label on the containing namespace",
			resourcev1.DRAAdminNamespaceLabelKey))}
	}
	return nil
}
