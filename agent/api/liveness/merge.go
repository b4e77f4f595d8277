package liveness

import (
	"strconv"
	"sync"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// merged is two watches as one. It ends when either does, so that its client watches anew.
type merged struct {
	events chan watch.Event
	stop   chan struct{}
	once   sync.Once
}

// merge shows the events of own as they are, and those of other as turn makes them. A bookmark is shown when both have
// come as far as it says; own must send bookmarks with objects of the kind that clients expect.
func merge(own, other watch.Interface, turn func(watch.Event) (watch.Event, bool)) watch.Interface {
	m := &merged{events: make(chan watch.Event), stop: make(chan struct{})}
	go m.run(own, other, turn)
	return m
}

// Stop implements watch.Interface.
func (m *merged) Stop() { m.once.Do(func() { close(m.stop) }) }

// ResultChan implements watch.Interface.
func (m *merged) ResultChan() <-chan watch.Event { return m.events }

func (m *merged) run(own, other watch.Interface, turn func(watch.Event) (watch.Event, bool)) {
	defer close(m.events)
	defer own.Stop()
	defer other.Stop()
	var marks marks
	for {
		var event watch.Event
		var ok, show bool
		select {
		case <-m.stop:
			return
		case event, ok = <-own.ResultChan():
			if show = true; ok && event.Type == watch.Bookmark {
				event, show = marks.own(event)
			}
		case event, ok = <-other.ResultChan():
			if ok && event.Type == watch.Bookmark {
				event, show = marks.other(event)
			} else if ok {
				event, show = turn(event)
			}
		}
		if !ok {
			return
		}
		if !show {
			continue
		}
		select {
		case m.events <- event:
		case <-m.stop:
			return
		}
	}
}

// marks joins the bookmarks of two watches: what both have passed.
type marks struct {
	last       runtime.Object // the last bookmark of own
	reached    [2]uint64
	begun      [2]bool // the initial events have all been sent
	begunShown bool
}

func (m *marks) own(event watch.Event) (watch.Event, bool) {
	object := event.Object
	if cached, ok := object.(runtime.CacheableObject); ok {
		object = cached.GetObject()
	}
	m.last = object
	m.note(0, object)
	return m.joined()
}

func (m *marks) other(event watch.Event) (watch.Event, bool) {
	m.note(1, event.Object)
	return m.joined()
}

func (m *marks) note(which int, object runtime.Object) {
	if cached, ok := object.(runtime.CacheableObject); ok {
		object = cached.GetObject()
	}
	accessor, err := meta.Accessor(object)
	if err != nil {
		return
	}
	if version, err := strconv.ParseUint(accessor.GetResourceVersion(), 10, 64); err == nil {
		m.reached[which] = version
	}
	m.begun[which] = m.begun[which] || accessor.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true"
}

// joined is the bookmark to show now, if any.
func (m *marks) joined() (watch.Event, bool) {
	version := min(m.reached[0], m.reached[1])
	if m.last == nil || version == 0 || m.begun[0] != m.begun[1] {
		return watch.Event{}, false
	}
	object := m.last.DeepCopyObject()
	accessor, err := meta.Accessor(object)
	if err != nil {
		return watch.Event{}, false
	}
	accessor.SetResourceVersion(strconv.FormatUint(version, 10))
	accessor.SetAnnotations(nil)
	if m.begun[0] && !m.begunShown {
		m.begunShown = true
		accessor.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
	}
	return watch.Event{Type: watch.Bookmark, Object: object}, true
}
