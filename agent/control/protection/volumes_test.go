package protection

import (
	"slices"
	"testing"
	"testing/synctest"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/loop/looptest"
)

func metaOf(name, finalizer string, deleted bool) metav1.ObjectMeta {
	meta := metav1.ObjectMeta{Name: name, Finalizers: []string{finalizer, "other.example.com/f"}}
	if deleted {
		meta.DeletionTimestamp = ptr.To(metav1.Now())
	}
	return meta
}

// A deleted volume goes unless a claim has it.
func TestVolumesGoUnlessBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		volume := func(name string, deleted bool, phase v1.PersistentVolumePhase) *v1.PersistentVolume {
			return &v1.PersistentVolume{ObjectMeta: metaOf(name, VolumeFinalizer, deleted), Status: v1.PersistentVolumeStatus{Phase: phase}}
		}
		c := looptest.New(t, volume("kept", false, v1.VolumeAvailable), volume("gone", true, v1.VolumeReleased), volume("bound", true, v1.VolumeBound))
		defer c.Stop()
		l, err := NewVolumes(loop.Wiring{Client: c.Client, Informers: c.Informers, Logger: c.Logger()})
		c.Must(err)
		c.Start(l)
		for name, want := range map[string]bool{"kept": true, "gone": false, "bound": true} {
			v, err := c.Client.CoreV1().PersistentVolumes().Get(t.Context(), name, metav1.GetOptions{})
			c.Must(err)
			if slices.Contains(v.Finalizers, VolumeFinalizer) != want || !slices.Contains(v.Finalizers, "other.example.com/f") {
				t.Errorf("%s has %v", name, v.Finalizers)
			}
		}
	})
}

// A deleted class goes when the last claim that names it does.
func TestClassesGoAfterTheirUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		class := func(name string, deleted bool) *storagev1.VolumeAttributesClass {
			return &storagev1.VolumeAttributesClass{ObjectMeta: metaOf(name, ClassFinalizer, deleted)}
		}
		user := &v1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"},
			Status: v1.PersistentVolumeClaimStatus{CurrentVolumeAttributesClassName: ptr.To("used")}}
		volume := &v1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Spec: v1.PersistentVolumeSpec{VolumeAttributesClassName: ptr.To("volume")}}
		c := looptest.New(t, class("kept", false), class("gone", true), class("used", true), class("volume", true), user, volume)
		defer c.Stop()
		l, err := NewClasses(loop.Wiring{Client: c.Client, Informers: c.Informers, Logger: c.Logger()})
		c.Must(err)
		c.Start(l)
		check := func(want map[string]bool) {
			for name, want := range want {
				v, err := c.Client.StorageV1().VolumeAttributesClasses().Get(t.Context(), name, metav1.GetOptions{})
				c.Must(err)
				if slices.Contains(v.Finalizers, ClassFinalizer) != want {
					t.Errorf("%s has %v", name, v.Finalizers)
				}
			}
		}
		check(map[string]bool{"kept": true, "gone": false, "used": true, "volume": true})
		c.Must(c.Client.CoreV1().PersistentVolumeClaims("default").Delete(t.Context(), "c", metav1.DeleteOptions{}))
		c.Settle()
		check(map[string]bool{"kept": true, "used": false, "volume": true})
	})
}
