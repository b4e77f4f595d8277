package podnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/dataplane/bpf"
)

// removalsLimit bounds the links that wait to be removed; the kernel takes about 20 ms for each. Beyond it a teardown
// waits for a place.
const removalsLimit = 256

// Teardown disconnects a pod: at once for new traffic, its link within a moment, in the background. A pod that is not
// known is no error.
func (n *Network) Teardown(ctx context.Context, id string) error {
	n.mu.Lock()
	r := n.pods[id]
	delete(n.pods, id)
	n.mu.Unlock()
	if r == nil {
		return nil
	}
	if err := n.disconnect(ctx, r); err != nil {
		n.mu.Lock()
		n.pods[id] = r
		n.mu.Unlock()
		return fmt.Errorf("tear down network of pod %s: %w", id, err)
	}
	n.reaper.remove(linkName(id), func() error {
		if err := n.removeLink(linkName(id)); err != nil {
			return err
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		n.releaseLocked(r)
		if n.pods[id] != nil {
			return nil
		}
		return n.forget(id)
	})
	return nil
}

// disconnect withdraws what leads traffic to the pod.
func (n *Network) disconnect(ctx context.Context, r *record) error {
	if len(r.Ports) > 0 && n.config.Ports != nil {
		if err := n.config.Ports.Publish(ctx, r.ID, nil); err != nil {
			return err
		}
	}
	for _, addr := range r.Addrs {
		if err := n.packets.Pods.Delete(bpf.MakeAddr(addr)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("withdraw pod address %s: %w", addr, err)
		}
		// The route would go with the link, but that takes a while.
		err := netlink.RouteDel(&netlink.Route{Dst: hostAddr(addr).IPNet, Scope: netlink.SCOPE_NOWHERE})
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("withdraw route to pod address %s: %w", addr, err)
		}
	}
	return nil
}

func (n *Network) removeLink(name string) error {
	if err := n.packets.Detach(name); err != nil {
		return err
	}
	link, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	return deleteLink(link)
}

// deleteLink removes a link. One that went by itself, with its pod's namespace, is no error.
func deleteLink(link netlink.Link) error {
	if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove link %s: %w", link.Attrs().Name, err)
	}
	return nil
}

// Collect tears down every pod that is not among the live ones. Call it only when all live pods are known.
func (n *Network) Collect(ctx context.Context, live []string) error {
	var problems []error
	for _, id := range n.Pods() {
		if !slices.Contains(live, id) {
			problems = append(problems, n.Teardown(ctx, id))
		}
	}
	return errors.Join(problems...)
}

// adoptLinks brings the map of pods and the programs in step with the links that are there; links of no pod are removed.
func (n *Network) adoptLinks() error {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return fmt.Errorf("list links: %w", err)
	}
	byName := map[string]*record{}
	for _, r := range n.pods {
		byName[linkName(r.ID)] = r
	}
	connected := map[bpf.Addr]bool{}
	for _, l := range links {
		name := l.Attrs().Name
		if !isPodLink(l) {
			continue
		}
		r := byName[name]
		if r == nil {
			n.log.Info("remove link of no pod", "link", name)
			n.reaper.remove(name, func() error { return n.removeLink(name) })
			continue
		}
		if err := n.configureHostEnd(r, l); err != nil {
			return fmt.Errorf("adopt pod %s: %w", r.ID, err)
		}
		for _, addr := range r.Addrs {
			connected[bpf.MakeAddr(addr)] = true
		}
	}
	return n.dropUnconnected(connected)
}

// dropUnconnected removes map entries and pins of pods whose link has gone.
func (n *Network) dropUnconnected(connected map[bpf.Addr]bool) error {
	var key bpf.Addr
	var value bpf.Pod
	var stale []bpf.Addr
	iterator := n.packets.Pods.Iterate()
	for iterator.Next(&key, &value) {
		if !connected[key] {
			stale = append(stale, key)
		}
	}
	if err := iterator.Err(); err != nil {
		return fmt.Errorf("read map of pods: %w", err)
	}
	for _, addr := range stale {
		if err := n.packets.Pods.Delete(addr); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("drop pod address %s: %w", addr.Netip(), err)
		}
	}
	attached, err := n.packets.Attached("pod")
	if err != nil {
		return err
	}
	for _, name := range attached {
		if _, err := netlink.LinkByName(name); errors.As(err, &netlink.LinkNotFoundError{}) {
			if err := n.packets.Detach(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// reaper removes links one after the other in the background.
type reaper struct {
	log   *slog.Logger
	queue chan removal
	group sync.WaitGroup

	// sending are the calls that wait for a place in the queue.
	sending sync.WaitGroup

	mu      sync.Mutex // guards what follows
	pending map[string]chan struct{}
	closed  bool
}

type removal struct {
	link string
	work func() error
	done chan struct{}
}

func newReaper(log *slog.Logger) *reaper {
	r := &reaper{log: log, queue: make(chan removal, removalsLimit), pending: map[string]chan struct{}{}}
	r.group.Go(func() {
		for job := range r.queue {
			if err := job.work(); err != nil {
				// The record stays; the next start or Collect tries again.
				r.log.Warn("cannot remove link", "link", job.link, "err", err)
			}
			r.mu.Lock()
			if r.pending[job.link] == job.done {
				delete(r.pending, job.link)
			}
			r.mu.Unlock()
			close(job.done)
		}
	})
	return r
}

// remove has the work done. After close it does nothing: the record stays, and the next start removes the link.
func (r *reaper) remove(link string, work func() error) {
	job := removal{link: link, work: work, done: make(chan struct{})}
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	r.sending.Add(1)
	r.pending[link] = job.done
	r.mu.Unlock()
	defer r.sending.Done()
	r.queue <- job
}

// wait returns once a link that is being removed has gone.
func (r *reaper) wait(link string) {
	r.mu.Lock()
	done := r.pending[link]
	r.mu.Unlock()
	if done != nil {
		<-done
	}
}

// close finishes what is queued.
func (r *reaper) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.sending.Wait()
	close(r.queue)
	r.group.Wait()
}
