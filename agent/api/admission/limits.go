package admission

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/admission"
	corelisters "k8s.io/client-go/listers/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

// limitsAnnotation says on a pod what was filled in.
const limitsAnnotation = "kubernetes.io/limit-ranger"

// limitRanger fills in what containers do not ask for, and refuses what the limit ranges of the namespace do not allow.
type limitRanger struct {
	*admission.Handler
	lister corelisters.LimitRangeLister
}

var (
	_ admission.MutationInterface   = (*limitRanger)(nil)
	_ admission.ValidationInterface = (*limitRanger)(nil)
)

func newLimitRanger(config Config) *limitRanger {
	informer := config.Informers.Core().V1().LimitRanges()
	l := &limitRanger{Handler: admission.NewHandler(admission.Create, admission.Update), lister: informer.Lister()}
	l.SetReadyFunc(informer.Informer().HasSynced)
	return l
}

func claims() schema.GroupResource { return schema.GroupResource{Resource: "persistentvolumeclaims"} }

// limits are the limit ranges that hold for a request, in the order of their names.
func (l *limitRanger) limits(a admission.Attributes) ([]*corev1.LimitRange, error) {
	created := a.GetOperation() == admission.Create && concerns(a, pods(), "")
	resized := a.GetOperation() == admission.Update && concerns(a, pods(), "resize")
	if !created && !resized && !concerns(a, claims(), "") {
		return nil, nil
	}
	if !l.WaitForReady() {
		return nil, forbidden(a, "not yet ready to handle request")
	}
	found, err := l.lister.LimitRanges(a.GetNamespace()).List(labels.Everything())
	if err != nil {
		return nil, forbidden(a, "unable to %s %v at this time because there was an error enforcing limit ranges: %w", a.GetOperation(), a.GetResource(), err)
	}
	found = slices.DeleteFunc(slices.Clone(found), func(r *corev1.LimitRange) bool { return r.DeletionTimestamp != nil })
	slices.SortFunc(found, func(a, b *corev1.LimitRange) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}

// Admit fills in a new pod's requests and limits.
func (l *limitRanger) Admit(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	if !concerns(a, pods(), "") {
		return nil
	}
	ranges, err := l.limits(a)
	if err != nil || len(ranges) == 0 {
		return err
	}
	pod, err := object[*corev1.Pod](a)
	if err != nil {
		return err
	}
	for _, r := range ranges {
		fillPod(pod, r)
	}
	return nil
}

// fillPod gives containers the defaults of a limit range.
func fillPod(pod *corev1.Pod, r *corev1.LimitRange) {
	requests, limits := corev1.ResourceList{}, corev1.ResourceList{}
	for i := range r.Spec.Limits {
		if item := &r.Spec.Limits[i]; item.Type == corev1.LimitTypeContainer {
			maps.Copy(requests, item.DefaultRequest)
			maps.Copy(limits, item.Default)
		}
	}
	var said []string
	fill := func(containers []corev1.Container, what string) {
		for i := range containers {
			c := &containers[i]
			if names := fillList(&c.Resources.Requests, requests); len(names) > 0 {
				said = append(said, strings.Join(names, ", ")+" request for "+what+" "+c.Name)
			}
			if names := fillList(&c.Resources.Limits, limits); len(names) > 0 {
				said = append(said, strings.Join(names, ", ")+" limit for "+what+" "+c.Name)
			}
		}
	}
	fill(pod.Spec.Containers, "container")
	fill(pod.Spec.InitContainers, "init container")
	if len(said) > 0 {
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations[limitsAnnotation] = "LimitRanger plugin set: " + strings.Join(said, "; ")
	}
}

// fillList adds what a list lacks, and returns the names of that.
func fillList(list *corev1.ResourceList, defaults corev1.ResourceList) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(defaults)) {
		if _, ok := (*list)[name]; ok {
			continue
		}
		if *list == nil {
			*list = corev1.ResourceList{}
		}
		(*list)[name] = defaults[name].DeepCopy()
		names = append(names, string(name))
	}
	return names
}

// Validate refuses what is out of a limit range.
func (l *limitRanger) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	ranges, err := l.limits(a)
	if err != nil || len(ranges) == 0 {
		return err
	}
	var errs []error
	for _, r := range ranges {
		for i := range r.Spec.Limits {
			item := &r.Spec.Limits[i]
			switch o := a.GetObject().(type) {
			case *corev1.Pod:
				if o.DeletionTimestamp == nil {
					errs = append(errs, checkPod(o, item)...)
				}
			case *corev1.PersistentVolumeClaim:
				if o.DeletionTimestamp == nil && item.Type == corev1.LimitTypePersistentVolumeClaim {
					errs = append(errs, checkClaim(o, item)...)
				}
			default:
				return unexpected(o)
			}
		}
	}
	if err := utilerrors.NewAggregate(errs); err != nil {
		return admission.NewForbidden(a, err)
	}
	return nil
}

func checkPod(pod *corev1.Pod, item *corev1.LimitRangeItem) (errs []error) {
	switch item.Type {
	case corev1.LimitTypeContainer:
		for _, c := range slices.Concat(pod.Spec.Containers, pod.Spec.InitContainers) {
			errs = append(errs, checkItem(item, c.Resources.Requests, c.Resources.Limits)...)
		}
	case corev1.LimitTypePod:
		options := resourcehelper.PodResourcesOptions{}
		errs = checkItem(item, resourcehelper.PodRequests(pod, options), resourcehelper.PodLimits(pod, options))
	}
	return errs
}

func checkItem(item *corev1.LimitRangeItem, requests, limits corev1.ResourceList) (errs []error) {
	for _, name := range slices.Sorted(maps.Keys(item.Min)) {
		errs = append(errs, checkMin(item.Type, name, item.Min[name], requests, limits))
	}
	for _, name := range slices.Sorted(maps.Keys(item.Max)) {
		errs = append(errs, checkMax(item.Type, name, item.Max[name], requests, limits))
	}
	for _, name := range slices.Sorted(maps.Keys(item.MaxLimitRequestRatio)) {
		errs = append(errs, checkRatio(item.Type, name, item.MaxLimitRequestRatio[name], requests, limits))
	}
	return errs
}

func checkClaim(claim *corev1.PersistentVolumeClaim, item *corev1.LimitRangeItem) (errs []error) {
	requests := claim.Spec.Resources.Requests
	for _, name := range slices.Sorted(maps.Keys(item.Min)) {
		errs = append(errs, checkMin(item.Type, name, item.Min[name], requests, nil))
	}
	for _, name := range slices.Sorted(maps.Keys(item.Max)) {
		most := item.Max[name]
		head := fmt.Sprintf("maximum %s usage per %s is %s", name, item.Type, most.String())
		if asked, ok := requests[name]; !ok {
			errs = append(errs, fmt.Errorf("%s.  No request is specified", head))
		} else if asked.Cmp(most) > 0 {
			errs = append(errs, fmt.Errorf("%s, but request is %s", head, asked.String()))
		}
	}
	return errs
}
