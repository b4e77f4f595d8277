package admission

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/admission"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/component-helpers/storage/volume"

	"github.com/podvine/podvine/agent/api/kinds/storage"
)

// ingressClassAnnotation names an ingress's class the way before the field.
const ingressClassAnnotation = "kubernetes.io/ingress.class"

// defaultOf returns the name of the default class, nil where there is none, once all classes are known.
func defaultOf[T metav1.Object](h *admission.Handler, a admission.Attributes, list func(labels.Selector) ([]T, error), isDefault func(T) bool) (*string, error) {
	if !h.WaitForReady() {
		return nil, forbidden(a, "not yet ready to handle request")
	}
	classes, err := list(labels.Everything())
	if err != nil {
		return nil, forbidden(a, "%w", err)
	}
	class, ok := newest(classes, isDefault)
	if !ok {
		return nil, nil
	}
	name := class.GetName()
	return &name, nil
}

// newest returns the default class that was made last, of equals that with the least name; nil where there is none.
func newest[T metav1.Object](classes []T, isDefault func(T) bool) (found T, ok bool) {
	for _, c := range classes {
		if !isDefault(c) {
			continue
		}
		made, best := c.GetCreationTimestamp(), metav1.Time{}
		if ok {
			best = found.GetCreationTimestamp()
		}
		if !ok || best.Before(&made) || best.Equal(&made) && strings.Compare(c.GetName(), found.GetName()) < 0 {
			found, ok = c, true
		}
	}
	return found, ok
}

// storageClasses give each claim that names no class the default one, and let a claim grow only where its class allows it.
type storageClasses struct {
	*admission.Handler
	lister storagelisters.StorageClassLister
}

func newStorageClasses(config Config, operation admission.Operation) storageClasses {
	informer := config.Informers.Storage().V1().StorageClasses()
	p := storageClasses{Handler: admission.NewHandler(operation), lister: informer.Lister()}
	p.SetReadyFunc(informer.Informer().HasSynced)
	return p
}

// claimClasses is the plug-in DefaultStorageClass.
type claimClasses struct{ storageClasses }

var _ admission.MutationInterface = (*claimClasses)(nil)

// Admit gives a new claim its class.
func (p *claimClasses) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !concerns(a, claims(), "") {
		return nil
	}
	claim, err := object[*corev1.PersistentVolumeClaim](a)
	if err != nil {
		return err
	}
	if volume.PersistentVolumeClaimHasClass(claim) {
		return nil
	}
	claim.Spec.StorageClassName, err = defaultOf(p.Handler, a, p.lister.List, storage.IsDefault)
	return err
}

// claimGrowth is the plug-in PersistentVolumeClaimResize.
type claimGrowth struct{ storageClasses }

var _ admission.ValidationInterface = (*claimGrowth)(nil)

// Validate refuses to let a claim grow that cannot.
func (p *claimGrowth) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !concerns(a, claims(), "") {
		return nil
	}
	claim, err := object[*corev1.PersistentVolumeClaim](a)
	if err != nil {
		return err
	}
	old, err := oldObject[*corev1.PersistentVolumeClaim](a)
	if err != nil {
		return err
	}
	size, before := claim.Spec.Resources.Requests[corev1.ResourceStorage], old.Spec.Resources.Requests[corev1.ResourceStorage]
	if size.Cmp(before) <= 0 {
		return nil
	}
	if old.Status.Phase != corev1.ClaimBound {
		return forbidden(a, "Only bound persistent volume claims can be expanded")
	}
	if name := volume.GetPersistentVolumeClaimClass(claim); name != "" && name == volume.GetPersistentVolumeClaimClass(old) {
		if class, err := p.lister.Get(name); err == nil && class.AllowVolumeExpansion != nil && *class.AllowVolumeExpansion {
			return nil
		}
	}
	return forbidden(a, "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize")
}

// ingressClasses is the plug-in DefaultIngressClass.
type ingressClasses struct {
	*admission.Handler
	lister networkinglisters.IngressClassLister
}

var _ admission.MutationInterface = (*ingressClasses)(nil)

func newIngressClasses(config Config) *ingressClasses {
	informer := config.Informers.Networking().V1().IngressClasses()
	p := &ingressClasses{Handler: admission.NewHandler(admission.Create), lister: informer.Lister()}
	p.SetReadyFunc(informer.Informer().HasSynced)
	return p
}

func ingresses() schema.GroupResource {
	return schema.GroupResource{Group: "networking.k8s.io", Resource: "ingresses"}
}

// Admit gives a new ingress that names no class the default one.
func (p *ingressClasses) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !concerns(a, ingresses(), "") {
		return nil
	}
	ingress, err := object[*networkingv1.Ingress](a)
	if err != nil {
		return err
	}
	if _, named := ingress.Annotations[ingressClassAnnotation]; named || ingress.Spec.IngressClassName != nil {
		return nil
	}
	ingress.Spec.IngressClassName, err = defaultOf(p.Handler, a, p.lister.List, func(c *networkingv1.IngressClass) bool {
		return c.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true"
	})
	return err
}
