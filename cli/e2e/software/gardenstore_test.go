package software

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
)

const (
	// keptEvents are served to watches that begin in the past.
	keptEvents = 1000
	// watchBuffer is how many events a watcher may be behind before its watch ends.
	watchBuffer = 1000
)

// plants keeps Plants in memory. It implements what the library asks of a kind's storage.
type plants struct {
	rest.TableConvertor

	mu       sync.Mutex
	revision uint64
	objects  map[types.NamespacedName]*Plant // never changed in place
	events   []watch.Event                   // the last ones, with their objects
	watchers map[*plantWatch]bool
}

var (
	_ rest.Storage              = &plants{}
	_ rest.Scoper               = &plants{}
	_ rest.SingularNameProvider = &plants{}
	_ rest.CreaterUpdater       = &plants{}
	_ rest.Getter               = &plants{}
	_ rest.Lister               = &plants{}
	_ rest.Watcher              = &plants{}
	_ rest.GracefulDeleter      = &plants{}
	_ rest.CollectionDeleter    = &plants{}
)

func newPlants() *plants {
	return &plants{TableConvertor: rest.NewDefaultTableConvertor(gardenVersion.WithResource("plants").GroupResource()),
		objects: map[types.NamespacedName]*Plant{}, watchers: map[*plantWatch]bool{}}
}

func (p *plants) New() runtime.Object     { return &Plant{} }
func (p *plants) NewList() runtime.Object { return &PlantList{} }
func (p *plants) Destroy()                {}
func (p *plants) NamespaceScoped() bool   { return true }
func (p *plants) GetSingularName() string { return "plant" }

func key(ctx context.Context, name string) types.NamespacedName {
	return types.NamespacedName{Namespace: request.NamespaceValue(ctx), Name: name}
}

func absent(name string) error {
	return apierrors.NewNotFound(gardenVersion.WithResource("plants").GroupResource(), name)
}

// publish gives the next revision to the object and tells the watchers. Callers hold mu.
func (p *plants) publish(kind watch.EventType, plant *Plant) {
	p.revision++
	plant.ResourceVersion = strconv.FormatUint(p.revision, 10)
	event := watch.Event{Type: kind, Object: plant}
	p.events = append(p.events, event)
	p.events = p.events[max(0, len(p.events)-keptEvents):]
	for w := range p.watchers {
		w.send(event)
	}
}

func (p *plants) Create(ctx context.Context, obj runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	plant := obj.DeepCopyObject().(*Plant)
	if plant.Name == "" {
		return nil, apierrors.NewBadRequest("a plant needs a name")
	}
	rest.FillObjectMetaSystemFields(plant)
	plant.Namespace, plant.UID, plant.Generation = request.NamespaceValue(ctx), uuid.NewUUID(), 1
	if err := validate(ctx, plant); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.objects[key(ctx, plant.Name)] != nil {
		return nil, apierrors.NewAlreadyExists(gardenVersion.WithResource("plants").GroupResource(), plant.Name)
	}
	if len(options.DryRun) == 0 {
		p.publish(watch.Added, plant)
		p.objects[key(ctx, plant.Name)] = plant
	}
	return plant.DeepCopyObject(), nil
}

func (p *plants) Update(ctx context.Context, name string, info rest.UpdatedObjectInfo, create rest.ValidateObjectFunc, update rest.ValidateObjectUpdateFunc, createAllowed bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	p.mu.Lock()
	before := p.objects[key(ctx, name)]
	p.mu.Unlock()
	if before == nil && !createAllowed {
		return nil, false, absent(name)
	}
	base := &Plant{}
	if before != nil {
		base = before.DeepCopyObject().(*Plant)
	}
	wanted, err := info.UpdatedObject(ctx, base)
	if err != nil {
		return nil, false, err
	}
	if before == nil {
		made, err := p.Create(ctx, wanted, create, &metav1.CreateOptions{DryRun: options.DryRun})
		return made, true, err
	}
	after := wanted.DeepCopyObject().(*Plant)
	if err := update(ctx, after, before); err != nil {
		return nil, false, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.objects[key(ctx, name)]
	if now == nil {
		return nil, false, absent(name)
	}
	if now != before || after.ResourceVersion != "" && after.ResourceVersion != now.ResourceVersion {
		return nil, false, apierrors.NewConflict(gardenVersion.WithResource("plants").GroupResource(), name, fmt.Errorf("it is at version %s", now.ResourceVersion))
	}
	if after.Spec != now.Spec {
		after.Generation++
	}
	if len(options.DryRun) == 0 {
		p.publish(watch.Modified, after)
		p.objects[key(ctx, name)] = after
	}
	return after.DeepCopyObject(), false, nil
}

func (p *plants) Get(ctx context.Context, name string, _ *metav1.GetOptions) (runtime.Object, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if plant := p.objects[key(ctx, name)]; plant != nil {
		return plant.DeepCopyObject(), nil
	}
	return nil, absent(name)
}

func (p *plants) List(ctx context.Context, options *internalversion.ListOptions) (runtime.Object, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.list(ctx, options), nil
}

// list selects by namespace, label and name. Callers hold mu.
func (p *plants) list(ctx context.Context, options *internalversion.ListOptions) *PlantList {
	list := &PlantList{Items: []Plant{}}
	list.ResourceVersion = strconv.FormatUint(p.revision, 10)
	for _, plant := range slices.SortedFunc(maps.Values(p.objects), func(a, b *Plant) int {
		return slices.Compare([]string{a.Namespace, a.Name}, []string{b.Namespace, b.Name})
	}) {
		if selected(ctx, options, plant) {
			list.Items = append(list.Items, *plant.DeepCopyObject().(*Plant))
		}
	}
	return list
}

func selected(ctx context.Context, options *internalversion.ListOptions, plant *Plant) bool {
	namespace := request.NamespaceValue(ctx)
	if namespace != "" && namespace != plant.Namespace {
		return false
	}
	if options == nil {
		return true
	}
	if options.LabelSelector != nil && !options.LabelSelector.Matches(labels.Set(plant.Labels)) {
		return false
	}
	if options.FieldSelector != nil {
		if name, ok := options.FieldSelector.RequiresExactMatch("metadata.name"); ok && name != plant.Name {
			return false
		}
	}
	return true
}

func (p *plants) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	p.mu.Lock()
	plant := p.objects[key(ctx, name)]
	p.mu.Unlock()
	if plant == nil {
		return nil, false, absent(name)
	}
	if err := validate(ctx, plant.DeepCopyObject()); err != nil {
		return nil, false, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.objects[key(ctx, name)] != plant {
		return nil, false, apierrors.NewConflict(gardenVersion.WithResource("plants").GroupResource(), name, fmt.Errorf("it has changed"))
	}
	gone := plant.DeepCopyObject().(*Plant)
	if options == nil || len(options.DryRun) == 0 {
		delete(p.objects, key(ctx, name))
		p.publish(watch.Deleted, gone)
	}
	return gone.DeepCopyObject(), true, nil
}

func (p *plants) DeleteCollection(ctx context.Context, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions, of *internalversion.ListOptions) (runtime.Object, error) {
	p.mu.Lock()
	list := p.list(ctx, of)
	p.mu.Unlock()
	for _, plant := range list.Items {
		if _, _, err := p.Delete(request.WithNamespace(ctx, plant.Namespace), plant.Name, validate, options); err != nil && !apierrors.IsNotFound(err) {
			return nil, err
		}
	}
	return list, nil
}

// Watch begins after the revision asked for, or with all that there is when there is none, and marks the end of that when asked to.
func (p *plants) Watch(ctx context.Context, options *internalversion.ListOptions) (watch.Interface, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &plantWatch{of: p, events: make(chan watch.Event, watchBuffer), matches: func(plant *Plant) bool { return selected(ctx, options, plant) }}
	all := options.SendInitialEvents != nil && *options.SendInitialEvents
	from := uint64(0)
	if options.ResourceVersion != "" && options.ResourceVersion != "0" && !all {
		var err error
		if from, err = strconv.ParseUint(options.ResourceVersion, 10, 64); err != nil {
			return nil, apierrors.NewBadRequest(err.Error())
		}
		if p.revision-min(from, p.revision) > uint64(len(p.events)) || from > p.revision {
			return nil, apierrors.NewResourceExpired("the revision is not known here")
		}
		for _, event := range p.events[uint64(len(p.events))-(p.revision-from):] {
			w.send(event)
		}
	} else {
		for _, plant := range p.list(ctx, options).Items {
			w.send(watch.Event{Type: watch.Added, Object: &plant})
		}
	}
	if all && options.AllowWatchBookmarks {
		mark := &Plant{ObjectMeta: metav1.ObjectMeta{ResourceVersion: strconv.FormatUint(p.revision, 10), Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"}}}
		w.events <- watch.Event{Type: watch.Bookmark, Object: mark}
	}
	p.watchers[w] = true
	return w, nil
}

// plantWatch is a watch of plants. It ends when the client falls too far behind.
type plantWatch struct {
	of      *plants
	events  chan watch.Event
	matches func(*Plant) bool
	ended   bool
}

// send delivers an event that the watch is for. Callers hold the lock of plants.
func (w *plantWatch) send(event watch.Event) {
	if w.ended || !w.matches(event.Object.(*Plant)) {
		return
	}
	event.Object = event.Object.DeepCopyObject()
	select {
	case w.events <- event:
	default:
		w.end()
	}
}

func (w *plantWatch) end() {
	if !w.ended {
		w.ended = true
		delete(w.of.watchers, w)
		close(w.events)
	}
}

func (w *plantWatch) ResultChan() <-chan watch.Event { return w.events }

func (w *plantWatch) Stop() {
	w.of.mu.Lock()
	defer w.of.mu.Unlock()
	w.end()
}

// startedAt keeps revisions apart from those of a server before this one, whose plants are gone.
func (p *plants) startedAt(now time.Time) { p.revision = uint64(now.UnixMilli()) }
