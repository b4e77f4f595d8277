package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// result is one operation of one side in one round.
type result struct {
	operation string
	perSecond float64
	p50, p99  time.Duration
	// cpu is the server's processor time for one operation.
	cpu time.Duration
}

// contentType is what clients send and ask for.
const contentType = "application/vnd.kubernetes.protobuf"

const (
	// fillTo is how many objects there are after the operation "fill".
	fillTo = 30_000
	// fillTimeout bounds it.
	fillTimeout = 5 * time.Minute
)

// operations are measured in this order on the same objects. There are also "fill" (creates until there are fillTo), "all"
// (a list of all objects, whole) and "watched" (an event that a watcher gets, see measureEvents).
func operations() []string { return []string{"create", "get", "update", "list", "delete"} }

// load is the clients and what they work on.
type load struct {
	settings
	clients   []kubernetes.Interface
	processes []process
	created   atomic.Int64
	content   string
	fillTo    int64
}

func measureAll(ctx context.Context, s settings, config *rest.Config, side string, processes []process) ([]result, error) {
	config.QPS, config.ContentType = -1, contentType
	l := &load{settings: s, processes: processes, content: strings.Repeat("x", s.bytes), fillTo: fillTo}
	for range s.clients {
		own := rest.CopyConfig(config)
		own.Dial = new(net.Dialer).DialContext // a dialler of its own is a connection of its own
		client, err := kubernetes.NewForConfig(own)
		if err != nil {
			return nil, err
		}
		l.clients = append(l.clients, client)
	}
	// Connections are made before anything is timed.
	if _, err := l.measure(ctx, "warm up", time.Second, l.get(-1)); err != nil {
		return nil, err
	}
	if s.memory {
		return nil, l.measureMemory(ctx, side)
	}
	var results []result
	for _, operation := range s.operations {
		done := func() error { return nil }
		if s.profile != "" {
			done = profile(ctx, config, s, operation)
		}
		r, err := l.measureOperation(ctx, operation)
		if err := errors.Join(err, done()); err != nil {
			return nil, fmt.Errorf("%s: %w", operation, err)
		}
		results = append(results, r)
	}
	return results, nil
}

func (l *load) measureOperation(ctx context.Context, operation string) (result, error) {
	switch operation {
	case "fill":
		return l.measure(ctx, operation, fillTimeout, l.operation(operation))
	case "watched":
		return l.measureEvents(ctx)
	}
	return l.measure(ctx, operation, l.duration, l.operation(operation))
}

// call does the operation for the n-th time; done tells that there is nothing left to do.
type call func(ctx context.Context, client kubernetes.Interface, n int64) (done bool, err error)

func (l *load) operation(name string) call {
	switch name {
	case "create":
		return func(ctx context.Context, client kubernetes.Interface, n int64) (bool, error) {
			_, err := client.CoreV1().ConfigMaps("default").Create(ctx, l.object(n), metav1.CreateOptions{})
			l.created.Add(1)
			return false, err
		}
	case "fill":
		return func(ctx context.Context, client kubernetes.Interface, _ int64) (bool, error) {
			n := l.created.Add(1) - 1
			if n >= l.fillTo {
				l.created.Add(-1)
				return true, nil
			}
			_, err := client.CoreV1().ConfigMaps("default").Create(ctx, l.object(n), metav1.CreateOptions{})
			return false, err
		}
	case "all":
		return func(ctx context.Context, client kubernetes.Interface, _ int64) (bool, error) {
			return false, client.CoreV1().RESTClient().Get().Namespace("default").Resource("configmaps").Do(ctx).Error()
		}
	case "get":
		return l.get(0)
	case "update":
		return func(ctx context.Context, client kubernetes.Interface, n int64) (bool, error) {
			object := l.object(n % l.created.Load())
			object.Data["step"] = fmt.Sprint(n)
			_, err := client.CoreV1().ConfigMaps("default").Update(ctx, object, metav1.UpdateOptions{})
			return false, err
		}
	case "list":
		return func(ctx context.Context, client kubernetes.Interface, _ int64) (bool, error) {
			_, err := client.CoreV1().ConfigMaps("default").List(ctx, metav1.ListOptions{Limit: 500})
			return false, err
		}
	}
	return func(ctx context.Context, client kubernetes.Interface, n int64) (bool, error) {
		if n >= l.created.Load() {
			return true, nil
		}
		return false, client.CoreV1().ConfigMaps("default").Delete(ctx, objectName(n), metav1.DeleteOptions{})
	}
}

// get reads created objects in turn; below none, it reads the namespace.
func (l *load) get(base int64) call {
	return func(ctx context.Context, client kubernetes.Interface, n int64) (bool, error) {
		if base < 0 {
			_, err := client.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{})
			return false, err
		}
		_, err := client.CoreV1().ConfigMaps("default").Get(ctx, objectName(n%l.created.Load()), metav1.GetOptions{})
		return false, err
	}
}

func objectName(n int64) string { return fmt.Sprintf("bench-%08d", n) }

func (l *load) object(n int64) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: objectName(n)}, Data: map[string]string{"content": l.content}}
}

// measure lets all clients call until the time is over or there is nothing left.
func (l *load) measure(ctx context.Context, name string, duration time.Duration, do call) (result, error) {
	before, err := cpu(l.processes)
	if err != nil {
		return result{}, err
	}
	var next atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	var failed error
	begun := time.Now()
	var group sync.WaitGroup
	for _, client := range l.clients {
		group.Go(func() {
			var mine []time.Duration
			var err error
			for done := false; !done && err == nil && time.Since(begun) < duration; {
				called := time.Now()
				if done, err = do(ctx, client, next.Add(1)-1); !done {
					mine = append(mine, time.Since(called))
				}
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
			if failed == nil {
				failed = err
			}
		})
	}
	group.Wait()
	elapsed := time.Since(begun)
	after, err := cpu(l.processes)
	if err != nil {
		return result{}, err
	}
	if failed != nil || len(took) == 0 {
		return result{}, fmt.Errorf("%d calls: %w", len(took), failed)
	}
	slices.Sort(took)
	return result{
		operation: name, perSecond: float64(len(took)) / elapsed.Seconds(),
		p50: took[len(took)/2], p99: took[len(took)*99/100], cpu: (after - before) / time.Duration(len(took)),
	}, nil
}
