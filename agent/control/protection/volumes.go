package protection

import (
	"context"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/podvine/podvine/agent/control/loop"
	"github.com/podvine/podvine/agent/control/workloads/dependents"
)

// Finalizers of volumes and of classes of their attributes, which the API sets.
const (
	VolumeFinalizer = "kubernetes.io/pv-protection"
	ClassFinalizer  = "kubernetes.io/vac-protection"
)

// VolumeInUse tells whether a claim has the volume. It is pure.
func VolumeInUse(volume *v1.PersistentVolume) bool { return volume.Status.Phase == v1.VolumeBound }

// ClassInUse tells whether one of the volumes or claims has, or is to get, the attributes of the class. It is pure.
func ClassInUse(class string, volumes []*v1.PersistentVolume, claims []*v1.PersistentVolumeClaim) bool {
	return slices.ContainsFunc(volumes, func(v *v1.PersistentVolume) bool { return slices.Contains(classesOfVolume(v), class) }) ||
		slices.ContainsFunc(claims, func(c *v1.PersistentVolumeClaim) bool { return slices.Contains(classesOfClaim(c), class) })
}

func classesOfVolume(v *v1.PersistentVolume) []string {
	if v == nil || v.Spec.VolumeAttributesClassName == nil {
		return nil
	}
	return []string{*v.Spec.VolumeAttributesClassName}
}

func classesOfClaim(c *v1.PersistentVolumeClaim) []string {
	if c == nil {
		return nil
	}
	classes := []string{ptr.Deref(c.Spec.VolumeAttributesClassName, ""), ptr.Deref(c.Status.CurrentVolumeAttributesClassName, "")}
	if m := c.Status.ModifyVolumeStatus; m != nil {
		classes = append(classes, m.TargetVolumeAttributesClassName)
	}
	return slices.DeleteFunc(classes, func(name string) bool { return name == "" })
}

// deleted is the key of an object that is on its way out.
func deleted(object metav1.Object) []string {
	if object.GetDeletionTimestamp() == nil {
		return nil
	}
	return []string{loop.Key(object)}
}

// without returns an object's finalizers but for one, and whether it is on its way out and has that one.
func without(object metav1.Object, finalizer string) ([]string, bool) {
	if object.GetDeletionTimestamp() == nil || !slices.Contains(object.GetFinalizers(), finalizer) {
		return nil, false
	}
	return slices.DeleteFunc(slices.Clone(object.GetFinalizers()), func(f string) bool { return f == finalizer }), true
}

// NewVolumes makes the loop that keeps volumes from going while a claim has them. Its client acts as the
// pv-protection-controller.
func NewVolumes(w loop.Wiring) (*loop.Controller, error) {
	if err := w.Check("volume protection"); err != nil {
		return nil, err
	}
	c := loop.NewController(w, "")
	volumes := w.Informers.Core().V1().PersistentVolumes()
	lister := volumes.Lister()
	return &c, c.Drive(loop.Config{
		Name: "pvprotection",
		Sources: []loop.Source{loop.On(volumes.Informer(), func(_, new *v1.PersistentVolume) []string {
			if new == nil {
				return nil
			}
			return deleted(new)
		})},
		All: volumes.Informer().GetIndexer().ListKeys,
		Reconcile: func(ctx context.Context, name string) (time.Duration, error) {
			volume, err := lister.Get(name)
			if err != nil {
				return 0, dependents.Gone(err)
			}
			rest, ok := without(volume, VolumeFinalizer)
			if !ok || VolumeInUse(volume) {
				return 0, nil
			}
			// An update of a volume that was bound meanwhile conflicts, and is tried again on what it is then.
			next := volume.DeepCopy()
			next.Finalizers = rest
			_, err = w.Client.CoreV1().PersistentVolumes().Update(ctx, next, metav1.UpdateOptions{})
			return 0, dependents.Gone(err)
		},
	})
}

// NewClasses makes the loop that keeps classes of volume attributes from going while a volume or a claim names them. Its
// client acts as the volumeattributesclass-protection-controller.
func NewClasses(w loop.Wiring) (*loop.Controller, error) {
	if err := w.Check("attributes class protection"); err != nil {
		return nil, err
	}
	c := loop.NewController(w, "")
	core, classes := w.Informers.Core().V1(), w.Informers.Storage().V1().VolumeAttributesClasses()
	lister := classes.Lister()
	return &c, c.Drive(loop.Config{
		Name: "vacprotection",
		Sources: []loop.Source{
			loop.On(classes.Informer(), func(_, new *storagev1.VolumeAttributesClass) []string {
				if new == nil {
					return nil
				}
				return deleted(new)
			}),
			loop.On(core.PersistentVolumes().Informer(), func(old, new *v1.PersistentVolume) []string { return lost(classesOfVolume(old), classesOfVolume(new)) }),
			loop.On(core.PersistentVolumeClaims().Informer(), func(old, new *v1.PersistentVolumeClaim) []string {
				return lost(classesOfClaim(old), classesOfClaim(new))
			}),
		},
		All: classes.Informer().GetIndexer().ListKeys,
		Reconcile: func(ctx context.Context, name string) (time.Duration, error) {
			class, err := lister.Get(name)
			if err != nil {
				return 0, dependents.Gone(err)
			}
			rest, ok := without(class, ClassFinalizer)
			if !ok {
				return 0, nil
			}
			used, err := classUsed(ctx, w.Client, core.PersistentVolumes().Informer().GetIndexer(), core.PersistentVolumeClaims().Informer().GetIndexer(), name)
			if err != nil || used {
				return 0, err
			}
			next := class.DeepCopy()
			next.Finalizers = rest
			_, err = w.Client.StorageV1().VolumeAttributesClasses().Update(ctx, next, metav1.UpdateOptions{})
			return 0, dependents.Gone(err)
		},
	})
}

// lost are the classes that were named and are no longer.
func lost(before, after []string) []string {
	return slices.DeleteFunc(before, func(name string) bool { return slices.Contains(after, name) })
}

// classUsed looks at the informers' objects, and lists those of the API only when these do not use the class.
func classUsed(ctx context.Context, client kubernetes.Interface, volumes, claims cache.Store, name string) (bool, error) {
	if ClassInUse(name, typed[*v1.PersistentVolume](volumes.List()), typed[*v1.PersistentVolumeClaim](claims.List())) {
		return true, nil
	}
	liveVolumes, err := client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, fmt.Errorf("list volumes: %w", err)
	}
	liveClaims, err := client.CoreV1().PersistentVolumeClaims(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, fmt.Errorf("list claims: %w", err)
	}
	return ClassInUse(name, pointers(liveVolumes.Items), pointers(liveClaims.Items)), nil
}

func typed[T any](objects []any) []T {
	out := make([]T, 0, len(objects))
	for _, object := range objects {
		if o, ok := object.(T); ok {
			out = append(out, o)
		}
	}
	return out
}

func pointers[T any](items []T) []*T {
	out := make([]*T, len(items))
	for i := range items {
		out[i] = &items[i]
	}
	return out
}
