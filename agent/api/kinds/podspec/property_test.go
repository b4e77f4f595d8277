package podspec

import (
	"encoding/json"
	"math/rand/v2"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/randfill"
)

// randomSpecs is how many random specifications each property sees.
const randomSpecs = 300

// randomSpec fills a specification with what comes, nil pointers and odd texts included.
func randomSpec(seed int64) *corev1.PodSpec {
	fill := randfill.NewWithSeed(seed).NilChance(0.4).NumElements(0, 3).MaxDepth(12).Funcs(
		func(q *resource.Quantity, c randfill.Continue) {
			*q = *resource.NewMilliQuantity(c.Int63()%5000-100, resource.DecimalSI)
		},
		func(v *intstr.IntOrString, c randfill.Continue) {
			if c.Bool() {
				*v = intstr.FromInt32(c.Int31n(70000))
			} else {
				*v = intstr.FromString(c.String(5))
			}
		},
		func(m *metav1.ObjectMeta, c randfill.Continue) {
			m.Name = c.String(8)
			m.Labels = map[string]string{c.String(3): c.String(3)}
		},
		func(f *metav1.FieldsV1, _ randfill.Continue) { *f = metav1.FieldsV1{} },
	)
	spec := &corev1.PodSpec{}
	fill.Fill(spec)
	return spec
}

func TestDefaultingTwiceChangesNothing(t *testing.T) {
	for seed := range int64(randomSpecs) {
		once := randomSpec(seed)
		DefaultPod(once)
		twice := once.DeepCopy()
		DefaultPod(twice)
		if !equality.Semantic.DeepEqual(once, twice) {
			t.Fatalf("seed %d: defaults changed what they made", seed)
		}
	}
}

func TestNothingPanicsOnRandomSpecs(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for seed := range int64(randomSpecs) {
		spec := randomSpec(seed)
		if rng.IntN(2) == 0 {
			DefaultPod(spec)
		}
		meta := &metav1.ObjectMeta{Name: "p", Labels: map[string]string{"a": "b"}, Annotations: map[string]string{tolerationsAnnotation: "[", deletionCostAnnotation: "x"}}
		path := field.NewPath("spec")
		for _, opts := range []Options{{}, {Pod: true}, OptionsFor(spec, meta)} {
			for _, err := range Validate(spec, meta, path, opts) {
				if err.Error() == "" {
					t.Fatalf("seed %d: an error without words", seed)
				}
			}
		}
		Warnings(spec, meta, nil, path)
		ValidateAnnotations(meta.Annotations, spec, field.NewPath("metadata", "annotations"), Options{})
		ValidateTemplate(&corev1.PodTemplateSpec{ObjectMeta: *meta, Spec: *spec}, path, Options{})
		MergeLabelKeys(meta.Labels, spec)
		LimitPodHugePages(spec)
		DropDisabled(spec)
		if _, err := json.Marshal(InternalView(spec)); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
}

func TestWhatIsAcceptedStaysAccepted(t *testing.T) {
	// An object that breaks rules which may be broken can still be changed: its own options accept it.
	spec := &corev1.PodSpec{HostNetwork: true, Containers: []corev1.Container{{Name: "c", Image: "i", Ports: []corev1.ContainerPort{{ContainerPort: 1, HostPort: 2}}}},
		SecurityContext: &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net.core.somaxconn", Value: "1"}}}}
	DefaultPod(spec)
	path := field.NewPath("spec")
	if errs := Validate(spec, nil, path, Options{Pod: true}); len(errs) != 2 {
		t.Errorf("strictly: %v", errs)
	}
	opts := OptionsFor(spec, &metav1.ObjectMeta{})
	opts.Pod = true
	if errs := Validate(spec, nil, path, opts); len(errs) != 0 {
		t.Errorf("with its own options: %v", errs)
	}
}
