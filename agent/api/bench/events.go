package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
)

const (
	// watchers is how many clients get each event.
	watchers = 100
	// watchedUpdates is how many updates they get.
	watchedUpdates = 1000
	// watchPatience bounds how long the last events may take.
	watchPatience = time.Minute
)

// measureEvents counts what an event costs the server: updates one after the other, first watched by nobody and then by all,
// and the difference divided by the events. Watchers read and do not decode: the clients share the server's cores.
func (l *load) measureEvents(ctx context.Context) (result, error) {
	alone, _, err := l.updates(ctx, 0, func() error { return nil })
	if err != nil {
		return result{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	seen, err := l.watch(ctx)
	if err != nil {
		return result{}, err
	}
	const events = watchers * watchedUpdates
	watched, took, err := l.updates(ctx, watchedUpdates, func() error {
		for late := time.Now().Add(watchPatience); seen.Load() < events; time.Sleep(time.Millisecond) {
			if time.Now().After(late) {
				return fmt.Errorf("watchers saw %d of %d events in %s", seen.Load(), events, watchPatience)
			}
		}
		return nil
	})
	if err != nil {
		return result{}, err
	}
	return result{operation: "watched", perSecond: events / took.Seconds(), cpu: (watched - alone) / events}, nil
}

// updates is the server's processor time for updates, each from first on with a content of its own, and how long it took until they had their effect.
func (l *load) updates(ctx context.Context, first int64, effect func() error) (spent, took time.Duration, err error) {
	before, err := cpu(l.processes)
	if err != nil {
		return 0, 0, err
	}
	update, begun := l.operation("update"), time.Now()
	for n := range int64(watchedUpdates) {
		if _, err := update(ctx, l.clients[0], first+n); err != nil {
			return 0, 0, err
		}
	}
	if err := effect(); err != nil {
		return 0, 0, err
	}
	took = time.Since(begun)
	after, err := cpu(l.processes)
	return after - before, took, err
}

// watch starts the watchers, which count what they get until ctx ends.
func (l *load) watch(ctx context.Context) (seen *atomic.Int64, err error) {
	now, err := l.clients[0].CoreV1().ConfigMaps("default").List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return nil, err
	}
	seen = new(atomic.Int64)
	for i := range watchers {
		frames, err := openWatch(ctx, l.clients[i%len(l.clients)], now.ResourceVersion, "")
		if err != nil {
			return nil, err
		}
		go func() {
			defer frames.Close()
			for skipFrame(frames) == nil {
				seen.Add(1)
			}
		}()
	}
	return seen, nil
}

func openWatch(ctx context.Context, client kubernetes.Interface, from, selector string) (io.ReadCloser, error) {
	options := &metav1.ListOptions{Watch: true, ResourceVersion: from, FieldSelector: selector}
	frames, err := client.CoreV1().RESTClient().Get().Namespace("default").Resource("configmaps").
		VersionedParams(options, scheme.ParameterCodec).SetHeader("Accept", contentType+";stream=watch").Stream(ctx)
	return frames, err
}

// skipFrame reads one event, which has its length before it.
func skipFrame(r io.Reader) error {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); err != nil {
		return err
	}
	_, err := io.CopyN(io.Discard, r, int64(binary.BigEndian.Uint32(length[:])))
	return err
}
