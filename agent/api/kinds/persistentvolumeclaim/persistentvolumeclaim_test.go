package persistentvolumeclaim

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/api/kinds/kindtest"
)

const base = `{metadata: {name: c, namespace: ns}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, storageClassName: fast}}`

func TestFields(t *testing.T) {
	invalid := func(field, patch, err string) kindtest.Row {
		return kindtest.Row{Field: "spec." + field, Class: kindtest.Invalid, Patch: `{"spec":` + patch + `}`, Error: err}
	}
	status := func(field, patch string) kindtest.Row {
		return kindtest.Row{Field: "status." + field, Class: kindtest.Mutable, Patch: `{"status":` + patch + `}`, Status: true}
	}
	kindtest.Run(t, kindtest.Table{
		Resource:  Resource(),
		Base:      base,
		Elsewhere: map[string]string{"status.healthStatus": "dropped as a whole"},
		Rows: []kindtest.Row{
			{Field: "metadata.finalizers", Class: kindtest.Defaulted, Want: `{"metadata":{"finalizers":["kubernetes.io/pvc-protection"]}}`},
			invalid("accessModes", `{"accessModes":[]}`, "Required spec.accessModes"),
			invalid("accessModes", `{"accessModes":["ReadWriteOncePod","ReadWriteMany"]}`, "Forbidden spec.accessModes"),
			{Field: "spec.accessModes", Class: kindtest.Immutable, Patch: `{"spec":{"accessModes":["ReadWriteMany"]}}`, Error: "Forbidden spec"},
			invalid("selector.matchLabels", `{"selector":{"matchLabels":{"a b":"c"}}}`, "Invalid spec.selector.matchLabels"),
			invalid("selector.matchExpressions[].key", `{"selector":{"matchExpressions":[{"key":"a b","operator":"Exists"}]}}`, "Invalid spec.selector.matchExpressions[0].key"),
			invalid("selector.matchExpressions[].operator", `{"selector":{"matchExpressions":[{"key":"a","operator":"Like"}]}}`, "Invalid spec.selector.matchExpressions[0].operator"),
			invalid("selector.matchExpressions[].values", `{"selector":{"matchExpressions":[{"key":"a","operator":"In"}]}}`, "Required spec.selector.matchExpressions[0].values"),
			invalid("resources.requests", `{"resources":{"requests":null}}`, "Required spec.resources[storage]"),
			invalid("resources.requests", `{"resources":{"requests":{"storage":"0"}}}`, "Invalid spec.resources[storage]"),
			{Field: "spec.resources.requests", Class: kindtest.Immutable, Patch: `{"spec":{"resources":{"requests":{"storage":"3Gi"}}}}`, Error: "Forbidden spec"},
			{Field: "spec.volumeName", Class: kindtest.Mutable, Patch: `{"spec":{"volumeName":"v"}}`},
			invalid("storageClassName", `{"storageClassName":"A b"}`, "Invalid spec.storageClassName"),
			{Field: "spec.storageClassName", Class: kindtest.Immutable, Patch: `{"spec":{"storageClassName":"slow"}}`, Error: "Forbidden spec"},
			{Field: "spec.resources.limits", Class: kindtest.Immutable, Patch: `{"spec":{"resources":{"limits":{"storage":"4Gi"}}}}`, Error: "Forbidden spec"},
			{Field: "spec.volumeAttributesClassName", Class: kindtest.Immutable, Patch: `{"spec":{"volumeAttributesClassName":"gold"}}`, Error: "Forbidden spec"},
			{Field: "spec.volumeMode", Class: kindtest.Defaulted, Want: `{"spec":{"volumeMode":"Filesystem"}}`},
			invalid("volumeMode", `{"volumeMode":"Tape"}`, "NotSupported spec.volumeMode"),
			{Field: "spec.dataSource.kind", Class: kindtest.Valid, Patch: `{"spec":{"dataSource":{"kind":"PersistentVolumeClaim","name":"d"}}}`},
			{Field: "spec.dataSource.kind", Class: kindtest.Dropped, Patch: `{"spec":{"dataSource":{"apiGroup":"example.com","kind":"Else","name":"d"}}}`},
			{Field: "spec.dataSource.name", Class: kindtest.Defaulted, Patch: `{"spec":{"dataSource":{"kind":"PersistentVolumeClaim","name":"d"}}}`,
				Want: `{"spec":{"dataSourceRef":{"kind":"PersistentVolumeClaim","name":"d"}}}`},
			invalid("dataSource.apiGroup", `{"dataSource":{"apiGroup":"a","kind":"A","name":"a"},"dataSourceRef":{"apiGroup":"b","kind":"A","name":"a"}}`, "Invalid spec"),
			invalid("dataSourceRef.apiGroup", `{"dataSourceRef":{"apiGroup":"A b","kind":"A","name":"a"}}`, "Invalid spec.dataSource.apiGroup; Invalid spec.dataSourceRef.apiGroup"),
			invalid("dataSourceRef.kind", `{"dataSourceRef":{"apiGroup":"a","name":"a"}}`, "Required spec.dataSource.kind; Required spec.dataSourceRef.kind"),
			invalid("dataSourceRef.name", `{"dataSourceRef":{"apiGroup":"a","kind":"A"}}`, "Required spec.dataSource.name; Required spec.dataSourceRef.name"),
			{Field: "spec.dataSourceRef.namespace", Class: kindtest.Dropped, Patch: `{"spec":{"dataSourceRef":{"apiGroup":"a","kind":"A","name":"a","namespace":"other"}}}`},
			status("phase", `{"phase":"Bound"}`),
			status("accessModes", `{"accessModes":["ReadWriteOnce"]}`),
			status("capacity", `{"capacity":{"storage":"1Gi"}}`),
			{Field: "status.capacity", Class: kindtest.Immutable, Patch: `{"status":{"capacity":{"storage":"-1"}}}`, Status: true, Error: "Invalid status.capacity[storage]"},
			{Field: "status.allocatedResources", Class: kindtest.Immutable, Patch: `{"status":{"allocatedResources":{"cpu":"1"}}}`, Status: true, Error: "NotSupported status.allocatedResources"},
			status("allocatedResourceStatuses", `{"allocatedResourceStatuses":{"storage":"NodeResizePending"}}`),
			status("currentVolumeAttributesClassName", `{"currentVolumeAttributesClassName":"gold"}`),
			status("modifyVolumeStatus.targetVolumeAttributesClassName", `{"modifyVolumeStatus":{"status":"Pending","targetVolumeAttributesClassName":"gold"}}`),
			status("modifyVolumeStatus.status", `{"modifyVolumeStatus":{"status":"Pending"}}`),
			{Field: "status.healthStatus", Class: kindtest.Kept, Patch: `{"status":{"healthStatus":{"healthConditions":[{"status":"Inaccessible"}]}}}`, Status: true},
			status("conditions[].type", `{"conditions":[{"type":"Resizing","status":"True"}]}`),
			status("conditions[].status", `{"conditions":[{"type":"Resizing","status":"True"}]}`),
			status("conditions[].lastProbeTime", `{"conditions":[{"type":"Resizing","status":"True","lastProbeTime":"2026-01-01T00:00:00Z"}]}`),
			status("conditions[].lastTransitionTime", `{"conditions":[{"type":"Resizing","status":"True","lastTransitionTime":"2026-01-01T00:00:00Z"}]}`),
			status("conditions[].reason", `{"conditions":[{"type":"Resizing","status":"True","reason":"R"}]}`),
			status("conditions[].message", `{"conditions":[{"type":"Resizing","status":"True","message":"m"}]}`),
		},
	})
}

// TestABoundClaim: it may grow and change its class; everything else of it stays.
func TestABoundClaim(t *testing.T) {
	old := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "c", ResourceVersion: "1"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, VolumeName: "v", VolumeAttributesClassName: ptr.To("gold"),
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("2Gi")}}},
		Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound, Capacity: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}}}
	size := func(size string) func(*corev1.PersistentVolumeClaim) {
		return func(c *corev1.PersistentVolumeClaim) {
			c.Spec.Resources.Requests[corev1.ResourceStorage] = resource.MustParse(size)
		}
	}
	for name, test := range map[string]struct {
		change func(*corev1.PersistentVolumeClaim)
		errors string
	}{
		"grows":                      {size("3Gi"), ""},
		"shrinks to more than it is": {size("1500Mi"), ""},
		"shrinks to what it is":      {size("1Gi"), "spec.resources.requests.storage"},
		"another class":              {func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeAttributesClassName = ptr.To("silver") }, ""},
		"no class":                   {func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeAttributesClassName = nil }, "spec.volumeAttributesClassName"},
		"another volume":             {func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "w" }, "spec"},
		"a limit": {func(c *corev1.PersistentVolumeClaim) {
			c.Spec.Resources.Limits = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("9Gi")}
		}, "spec"},
	} {
		c := old.DeepCopy()
		test.change(c)
		var fields []string
		for _, e := range validateUpdate(t.Context(), c, old) {
			fields = append(fields, e.Field)
		}
		if got := strings.Join(fields, " "); got != test.errors {
			t.Errorf("%s: errors at %q, want %q", name, got, test.errors)
		}
	}
}
