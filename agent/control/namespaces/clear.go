package namespaces

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
)

// pageObjects bounds one page of a list.
const pageObjects = 500

// resource is a namespaced kind and what can be done to it.
type resource struct {
	schema.GroupVersionResource
	collection bool // deletecollection is served
}

// clear deletes a namespace's content as far as its order allows, and counts what is left.
func (l *Loop) clear(ctx context.Context, namespace string) Census {
	var census Census
	resources, err := l.discover()
	if err != nil {
		census.Discovery = failures(err)
	}
	pods := slices.IndexFunc(resources, func(r resource) bool { return r.Group == "" && r.Resource == "pods" })
	if pods >= 0 {
		l.clearOne(ctx, namespace, resources[pods], &census)
		if len(census.Remaining) > 0 || len(census.Deletion) > 0 {
			return census // the rest protects what runs
		}
		resources = slices.Delete(resources, pods, pods+1)
	}
	for _, r := range resources {
		if ctx.Err() != nil {
			return census
		}
		l.clearOne(ctx, namespace, r, &census)
	}
	return census
}

func (l *Loop) clearOne(ctx context.Context, namespace string, r resource, census *Census) {
	remaining, err := l.delete(ctx, namespace, r)
	if err != nil {
		census.Deletion = append(census.Deletion, fmt.Errorf("%s: %w", r.GroupResource(), err))
	}
	if remaining.Count > 0 {
		census.Remaining = append(census.Remaining, remaining)
	}
}

// discover lists what can be deleted and listed, each resource once. It may return both resources and an error:
// a group that does not answer must not keep the others from being cleared.
func (l *Loop) discover() ([]resource, error) {
	lists, err := discovery.ServerPreferredNamespacedResources(l.Client.Discovery())
	var resources []resource
	for _, list := range lists {
		version, parseErr := schema.ParseGroupVersion(list.GroupVersion)
		if parseErr != nil {
			err = errors.Join(err, parseErr)
			continue
		}
		for _, r := range list.APIResources {
			if slices.Contains(r.Verbs, "delete") && slices.Contains(r.Verbs, "list") {
				resources = append(resources, resource{version.WithResource(r.Name), slices.Contains(r.Verbs, "deletecollection")})
			}
		}
	}
	return resources, err
}

// failures takes apart discovery's error by group.
func failures(err error) []error {
	var groups *discovery.ErrGroupDiscoveryFailed
	if !errors.As(err, &groups) {
		return []error{err}
	}
	var errs []error
	for group, err := range groups.Groups {
		errs = append(errs, fmt.Errorf("%s: %w", group, err))
	}
	return errs
}

// delete removes a resource's objects, together if it is served and else one by one, and counts what is left.
func (l *Loop) delete(ctx context.Context, namespace string, r resource) (Remaining, error) {
	client := l.metadata.Resource(r.GroupVersionResource).Namespace(namespace)
	background := metav1.DeletePropagationBackground
	options := metav1.DeleteOptions{PropagationPolicy: &background}
	if r.collection {
		err := client.DeleteCollection(ctx, options, metav1.ListOptions{})
		// An aggregated server that has no protobuf of its kinds deletes, and then cannot say what: the list tells.
		if apierrors.IsMethodNotSupported(err) || apierrors.IsNotFound(err) || apierrors.IsNotAcceptable(err) {
			r.collection = false
		} else if err != nil {
			return Remaining{}, err
		}
	}
	remaining := Remaining{Resource: r.GroupResource(), Finalizers: map[string]int{}}
	var errs []error
	page := metav1.ListOptions{Limit: pageObjects}
	for {
		list, err := client.List(ctx, page)
		if apierrors.IsMethodNotSupported(err) || apierrors.IsNotFound(err) {
			return Remaining{}, errors.Join(errs...) // a kind that has just gone
		}
		if err != nil {
			return remaining, errors.Join(append(errs, err)...)
		}
		for i := range list.Items {
			object := &list.Items[i]
			if !r.collection && object.DeletionTimestamp == nil {
				options.Preconditions = metav1.NewUIDPreconditions(string(object.UID))
				if err := client.Delete(ctx, object.Name, options); err != nil && !apierrors.IsNotFound(err) {
					errs = append(errs, err)
				}
			}
			remaining.add(object)
		}
		if page.Continue = list.Continue; page.Continue == "" {
			return remaining, errors.Join(errs...)
		}
	}
}

func (r *Remaining) add(object *metav1.PartialObjectMetadata) {
	r.Count++
	for _, finalizer := range object.Finalizers {
		r.Finalizers[finalizer]++
	}
	if object.DeletionGracePeriodSeconds != nil {
		r.Grace = max(r.Grace, time.Duration(*object.DeletionGracePeriodSeconds)*time.Second)
	}
}
