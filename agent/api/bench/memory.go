package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
)

const (
	// heldObjects and heldWatches are what the memory of a server is measured with. Half of the watches are about one object each, as a
	// kubelet's are, the others about the namespace.
	heldObjects = 100_000
	heldWatches = 10_000
)

// footprint is what a side's processes hold, in bytes: the API server's heap after a collection, and the anonymous memory of all.
type footprint struct{ heap, anonymous int64 }

// measureMemory prints what the side holds: empty, with objects, and with watches as well.
func (l *load) measureMemory(ctx context.Context, side string) error {
	empty, err := l.footprint(ctx)
	if err != nil {
		return err
	}
	l.fillTo = heldObjects
	if _, err := l.measureOperation(ctx, "fill"); err != nil {
		return err
	}
	if n := l.created.Load(); n < heldObjects {
		return fmt.Errorf("create %d objects: there are %d after %v", heldObjects, n, fillTimeout)
	}
	full, err := l.footprint(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := l.hold(ctx); err != nil {
		return err
	}
	watched, err := l.footprint(ctx)
	if err != nil {
		return err
	}
	const mega = 1e6
	fmt.Printf("%s: heap of the API server / anonymous memory of all its processes, MB: empty %.0f / %.0f, %d objects %.0f / %.0f, %d watches %.0f / %.0f\n", side,
		float64(empty.heap)/mega, float64(empty.anonymous)/mega, heldObjects, float64(full.heap)/mega, float64(full.anonymous)/mega,
		heldWatches, float64(watched.heap)/mega, float64(watched.anonymous)/mega)
	fmt.Printf("%s: bytes for each object %d / %d, for each watch %d / %d\n", side,
		(full.heap-empty.heap)/heldObjects, (full.anonymous-empty.anonymous)/heldObjects,
		(watched.heap-full.heap)/heldWatches, (watched.anonymous-full.anonymous)/heldWatches)
	return nil
}

// footprint has the API server collect its garbage and reads what it says of its heap, and what the kernel says of all processes.
func (l *load) footprint(ctx context.Context) (footprint, error) {
	var f footprint
	content, err := l.clients[0].Discovery().RESTClient().Get().AbsPath("/debug/pprof/heap").Param("gc", "1").Param("debug", "1").DoRaw(ctx)
	if err != nil {
		return f, fmt.Errorf("read the heap of the API server: %w", err)
	}
	if f.heap, err = figure(string(content), "# HeapAlloc = "); err != nil {
		return f, err
	}
	for _, p := range l.processes {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.command.Process.Pid))
		if err != nil {
			return f, err
		}
		kilobytes, err := figure(string(status), "RssAnon:")
		if err != nil {
			return f, err
		}
		f.anonymous += kilobytes << 10
	}
	return f, nil
}

// figure reads the number behind a name.
func figure(text, name string) (n int64, err error) {
	_, rest, found := strings.Cut(text, name)
	if !found {
		return 0, fmt.Errorf("read %q: it is not told", name)
	}
	if _, err := fmt.Sscan(rest, &n); err != nil {
		return 0, fmt.Errorf("read %q: %w", name, err)
	}
	return n, nil
}

// hold opens the watches, which last until ctx ends. Nothing happens that they would tell.
func (l *load) hold(ctx context.Context) error {
	now, err := l.clients[0].CoreV1().ConfigMaps("default").List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return err
	}
	var next atomic.Int64
	var group sync.WaitGroup
	failed := make(chan error, len(l.clients))
	for _, client := range l.clients {
		group.Go(func() {
			for n := next.Add(1) - 1; n < heldWatches; n = next.Add(1) - 1 {
				if err := holdOne(ctx, client, n, now.ResourceVersion); err != nil {
					failed <- fmt.Errorf("open watch %d: %w", n, err)
					return
				}
			}
		})
	}
	group.Wait()
	close(failed)
	var errs []error
	for err := range failed {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func holdOne(ctx context.Context, client kubernetes.Interface, n int64, from string) error {
	selector := ""
	if n%2 == 0 {
		selector = fields.OneTermEqualSelector(metav1.ObjectNameField, objectName(n)).String()
	}
	_, err := openWatch(ctx, client, from, selector) // its connection closes it
	return err
}
