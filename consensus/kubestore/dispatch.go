package kubestore

import (
	"context"
	"iter"
	"strings"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/fields"
	operators "k8s.io/apimachinery/pkg/selection"
	"k8s.io/apiserver/pkg/storage"

	"github.com/podvine/podvine/consensus/store"
)

// pendingEvents bounds what waits for one watch. One that falls further behind reads the history itself.
const pendingEvents = 256

// topic is what a watch is found by: a namespace, all of them or one key, and at most one field's value. An event has few
// topics, so that it reaches the watches that may want it without a look at the others.
type topic struct {
	// prefix of the keys, with a slash at its end; or one whole key.
	prefix string
	// field is "" when no field is asked for.
	field, value string
}

// topicOf returns the narrowest topic that has every event which a watch with these options may want.
func (r *resource) topicOf(key string, recursive bool, pred *storage.SelectionPredicate) topic {
	if !recursive || r.attrs == nil || pred.Field == nil {
		return topic{prefix: key}
	}
	for _, required := range pred.Field.Requirements() {
		if required.Operator == operators.Equals || required.Operator == operators.DoubleEquals {
			return topic{prefix: key, field: required.Field, value: required.Value}
		}
	}
	return topic{prefix: key}
}

// prefixes yields what watches may have asked for to get the key: the table, each part of the key that ends with a slash, and the key.
func (r *resource) prefixes(key string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for end := len(r.table); yield(key[:end]) && end < len(key); {
			if slash := strings.IndexByte(key[end:], '/'); slash >= 0 {
				end += slash + 1
			} else {
				end = len(key)
			}
		}
	}
}

// topicsOf yields the topics of an event, each once, by the fields that are asked for.
func (r *resource) topicsOf(key string, asked iter.Seq[string], now, before fields.Set) iter.Seq[topic] {
	return func(yield func(topic) bool) {
		for prefix := range r.prefixes(key) {
			if !yield(topic{prefix: prefix}) {
				return
			}
			for field := range asked {
				if now != nil && !yield(topic{prefix, field, now[field]}) {
					return
				}
				if before != nil && (now == nil || now[field] != before[field]) && !yield(topic{prefix, field, before[field]}) {
					return
				}
			}
		}
	}
}

// dispatcher hands a resource's events to those of its watches that may want them. It runs while there are any.
type dispatcher struct {
	r *resource
	// reached is the revision up to which every event has been handed out.
	reached atomic.Int64

	mu      sync.Mutex
	byTopic map[topic][]*subscription
	// asked counts the subscriptions by the field that they ask for.
	asked map[string]int
	// stop ends the running goroutine; nil when there is none.
	stop chan struct{}
}

func newDispatcher(r *resource) *dispatcher {
	return &dispatcher{r: r, byTopic: map[topic][]*subscription{}, asked: map[string]int{}}
}

// subscription is one watch's place. Its reader handles all that it takes before it takes more.
type subscription struct {
	topic topic
	// ready has a token when there may be something to take.
	ready chan struct{}
	// at is the place in the topic's list, guarded by dispatcher.mu.
	at int

	mu      sync.Mutex
	pending []*store.Event
	// base is a revision up to which nothing is missing that has not been taken, while something is pending or lost.
	base int64
	// lost is set when the reader was too far behind: all after base is to be read from the history.
	lost bool
}

// subscribe has every event of the topic handed out from now on; what happened before it is for the caller to read, afterwards.
func (d *dispatcher) subscribe(t topic) *subscription {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &subscription{topic: t, ready: make(chan struct{}, 1), at: len(d.byTopic[t])}
	d.byTopic[t] = append(d.byTopic[t], s)
	if t.field != "" {
		d.asked[t.field]++
	}
	if d.stop == nil {
		d.stop = make(chan struct{})
		d.reached.Store(d.r.b.replica.Store().Revision())
		go d.run(d.stop)
	}
	return s
}

func (d *dispatcher) unsubscribe(s *subscription) {
	d.mu.Lock()
	defer d.mu.Unlock()
	same := d.byTopic[s.topic]
	last := len(same) - 1
	same[s.at] = same[last]
	same[s.at].at = s.at
	same[last] = nil
	if d.byTopic[s.topic] = same[:last]; last == 0 {
		delete(d.byTopic, s.topic)
	}
	if f := s.topic.field; f != "" {
		if d.asked[f]--; d.asked[f] == 0 {
			delete(d.asked, f)
		}
	}
	if len(d.byTopic) == 0 {
		close(d.stop)
		d.stop = nil
	}
}

func (d *dispatcher) run(stop chan struct{}) {
	for {
		s := d.r.b.replica.Store()
		c, err := s.Changes(d.r.table, d.reached.Load())
		if err == nil && len(c.Events) == 0 {
			select {
			case <-c.Changed:
				continue
			case <-stop:
				return
			}
		}
		if !d.deliver(stop, c.Events, s.Revision()) {
			return
		}
	}
}

// deliver hands the events out. Without any, the history is gone that would tell what happened up to the revision, and each watch
// learns that from the history itself. It returns false when it is to end.
func (d *dispatcher) deliver(stop chan struct{}, events []*store.Event, revision int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stop != stop {
		return false
	}
	before := d.reached.Load()
	for _, ev := range events {
		d.hand(ev, before)
		revision = ev.Revision
	}
	if len(events) == 0 {
		for _, same := range d.byTopic {
			for _, s := range same {
				s.lose(before)
			}
		}
	}
	d.reached.Store(revision)
	return true
}

func (d *dispatcher) hand(ev *store.Event, before int64) {
	var now, earlier fields.Set
	if len(d.asked) > 0 {
		var err error
		if now, earlier, err = d.r.view(ev).fields(context.Background()); err != nil {
			// Every watch meets the error itself, and tells its client.
			for _, same := range d.byTopic {
				for _, s := range same {
					s.put(ev, before)
				}
			}
			return
		}
	}
	asked := func(yield func(string) bool) {
		for field := range d.asked {
			if !yield(field) {
				return
			}
		}
	}
	for t := range d.r.topicsOf(ev.Key(), asked, now, earlier) {
		for _, s := range d.byTopic[t] {
			s.put(ev, before)
		}
	}
}

// put adds an event; reached is a revision up to which everything had been handed out before.
func (s *subscription) put(ev *store.Event, reached int64) {
	s.mu.Lock()
	switch {
	case s.lost:
	case len(s.pending) == pendingEvents:
		s.pending, s.lost = nil, true
	default:
		if len(s.pending) == 0 {
			s.base = reached
		}
		s.pending = append(s.pending, ev)
	}
	s.mu.Unlock()
	s.wake()
}

func (s *subscription) lose(reached int64) {
	s.mu.Lock()
	if len(s.pending) == 0 && !s.lost {
		s.base = reached
	}
	s.pending, s.lost = nil, true
	s.mu.Unlock()
	s.wake()
}

func (s *subscription) wake() {
	select {
	case s.ready <- struct{}{}:
	default: // it has been told
	}
}

// taken is what a subscription had for its reader.
type taken struct {
	events []*store.Event
	// lost says that events are missing after base; the subscription goes on after what is in the history now.
	lost bool
	base int64
}

// take empties the subscription.
func (s *subscription) take() taken {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := taken{events: s.pending, lost: s.lost, base: s.base}
	s.pending, s.lost = nil, false
	return t
}
