package kinds

import (
	"fmt"
	"reflect"
	"strings"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	resourcev1 "k8s.io/api/resource/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// typesPackages is where published API types live; what else a group registers (ListOptions …) keeps to its version.
const typesPackages = "k8s.io/api/"

// NewScheme returns a scheme with the types, defaults, field labels and conversions of the resources. Each published
// type is also its group's internal version, so that there is one set of Go types and no conversion.
func NewScheme(resources []Resource) (*runtime.Scheme, error) {
	scheme := runtime.NewScheme()
	if err := addGroups(scheme); err != nil {
		return nil, err
	}
	if err := addQueryOptions(scheme); err != nil {
		return nil, fmt.Errorf("register query options: %w", err)
	}
	for _, r := range resources {
		if err := r.AddTypes(scheme); err != nil {
			return nil, fmt.Errorf("register types of %s: %w", r.GVK(), err)
		}
	}
	for _, r := range resources {
		if !scheme.Recognizes(r.GVK()) {
			return nil, fmt.Errorf("register %s: its group version has no types in the scheme", r.GVK())
		}
		r.AddDefaults(scheme)
		if err := r.AddFieldLabels(scheme); err != nil {
			return nil, fmt.Errorf("register field labels of %s: %w", r.GVK(), err)
		}
	}
	return scheme, nil
}

func addGroups(scheme *runtime.Scheme) error {
	groups := []struct {
		version schema.GroupVersion
		add     func(*runtime.Scheme) error
	}{
		{corev1.SchemeGroupVersion, corev1.AddToScheme},
		{admissionregistrationv1.SchemeGroupVersion, admissionregistrationv1.AddToScheme},
		{appsv1.SchemeGroupVersion, appsv1.AddToScheme},
		{authenticationv1.SchemeGroupVersion, authenticationv1.AddToScheme},
		{authorizationv1.SchemeGroupVersion, authorizationv1.AddToScheme},
		{autoscalingv2.SchemeGroupVersion, autoscalingv2.AddToScheme}, // before v1: what both have is stored as v2
		{autoscalingv1.SchemeGroupVersion, autoscalingv1.AddToScheme},
		{certificatesv1.SchemeGroupVersion, certificatesv1.AddToScheme},
		{batchv1.SchemeGroupVersion, batchv1.AddToScheme},
		{coordinationv1.SchemeGroupVersion, coordinationv1.AddToScheme},
		{discoveryv1.SchemeGroupVersion, discoveryv1.AddToScheme},
		{flowcontrolv1.SchemeGroupVersion, flowcontrolv1.AddToScheme},
		{networkingv1.SchemeGroupVersion, networkingv1.AddToScheme},
		{nodev1.SchemeGroupVersion, nodev1.AddToScheme},
		{policyv1.SchemeGroupVersion, policyv1.AddToScheme},
		{rbacv1.SchemeGroupVersion, rbacv1.AddToScheme},
		{resourcev1.SchemeGroupVersion, resourcev1.AddToScheme},
		{schedulingv1.SchemeGroupVersion, schedulingv1.AddToScheme},
		{storagev1.SchemeGroupVersion, storagev1.AddToScheme},
		{storagemigrationv1.SchemeGroupVersion, storagemigrationv1.AddToScheme},
	}
	versions := map[string][]schema.GroupVersion{}
	for _, g := range groups {
		if err := g.add(scheme); err != nil {
			return fmt.Errorf("register %s: %w", g.version, err)
		}
		AddInternal(scheme, g.version)
		versions[g.version.Group] = append(versions[g.version.Group], g.version)
		if err := scheme.SetVersionPriority(versions[g.version.Group]...); err != nil {
			return fmt.Errorf("register %s: %w", g.version, err)
		}
	}
	unversioned := schema.GroupVersion{Version: "v1"}
	metav1.AddToGroupVersion(scheme, unversioned)
	scheme.AddUnversionedTypes(unversioned, &metav1.Status{}, &metav1.APIVersions{}, &metav1.APIGroupList{}, &metav1.APIGroup{}, &metav1.APIResourceList{})
	return nil
}

// AddInternal registers the published types of a group version as the group's internal version too, but for kinds that
// it has from another version.
func AddInternal(scheme *runtime.Scheme, version schema.GroupVersion) {
	internal := schema.GroupVersion{Group: version.Group, Version: runtime.APIVersionInternal}
	for kind, t := range scheme.KnownTypes(version) {
		if strings.HasPrefix(t.PkgPath(), typesPackages) && !scheme.Recognizes(internal.WithKind(kind)) {
			scheme.AddKnownTypeWithName(internal.WithKind(kind), reflect.New(t).Interface().(runtime.Object))
		}
	}
}
