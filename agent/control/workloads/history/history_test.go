package history

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func template(image string) *v1.PodTemplateSpec {
	return &v1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "x"}},
		Spec: v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: image}}}}
}

func made(t *testing.T, image string, number int64, collisions *int32) *appsv1.ControllerRevision {
	t.Helper()
	owner := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "x", UID: "u"}}
	r, err := New(owner, appsv1.SchemeGroupVersion.WithKind("StatefulSet"), template(image), number, collisions)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestDataIsWhatKubectlApplies: a strategic merge patch that puts the whole template back.
func TestDataIsWhatKubectlApplies(t *testing.T) {
	data, err := Data(template("i"))
	if err != nil {
		t.Fatal(err)
	}
	want := `{"spec":{"template":{"$patch":"replace","metadata":{"labels":{"app":"x"}},"spec":{"containers":[{"image":"i","name":"c","resources":{}}]}}}}`
	if string(data) != want {
		t.Errorf("%s\nwant %s", data, want)
	}
	back, err := Template(made(t, "i", 1, nil))
	if err != nil || back.Spec.Containers[0].Image != "i" || back.Labels["app"] != "x" {
		t.Errorf("%+v, %v", back, err)
	}
}

func TestNames(t *testing.T) {
	one := int32(1)
	a, again, other, collided := made(t, "a", 1, nil), made(t, "a", 2, nil), made(t, "b", 1, nil), made(t, "a", 1, &one)
	if a.Name != again.Name || a.Name == other.Name || a.Name == collided.Name || !strings.HasPrefix(a.Name, "x-") {
		t.Errorf("names %s, %s, %s, %s", a.Name, again.Name, other.Name, collided.Name)
	}
}

func TestFind(t *testing.T) {
	a, b := made(t, "a", 1, nil), made(t, "b", 2, nil)
	sorted := []*appsv1.ControllerRevision{a, b}
	if found, renumbered := Find(sorted, made(t, "b", 3, nil)); found != b || renumbered {
		t.Errorf("the newest: %+v, %v", found, renumbered)
	}
	if found, renumbered := Find(sorted, made(t, "a", 3, nil)); found.Name != a.Name || found.Revision != 3 || !renumbered || a.Revision != 1 {
		t.Errorf("an older one: %+v, %v", found, renumbered)
	}
	if found, _ := Find(sorted, made(t, "c", 3, nil)); found != nil {
		t.Errorf("none: %+v", found)
	}
}

func TestSurplus(t *testing.T) {
	var all []*appsv1.ControllerRevision
	for i, image := range []string{"a", "b", "c", "d"} {
		all = append(all, made(t, image, int64(i+1), nil))
	}
	lives := func(r *appsv1.ControllerRevision) bool { return r == all[0] }
	if got := Surplus(all, lives, 1); len(got) != 2 || got[0] != all[1] || got[1] != all[2] {
		t.Errorf("%d, want the two oldest that nothing lives by", len(got))
	}
	if got := Surplus(all, lives, -1); got != nil {
		t.Errorf("without a limit %d", len(got))
	}
}
