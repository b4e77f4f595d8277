// Package nsrun runs functions inside other network namespaces.
//
// It owns nothing and is safe for concurrent use: each call has a thread of its own, which ends with it.
package nsrun

import (
	"fmt"
	"runtime"

	"github.com/vishvananda/netns"
)

// In runs f on a thread in the network namespace at path, or just here for an empty path. Sockets and netlink handles
// that f makes belong to that namespace for good; goroutines that f starts do not run in it.
func In(path string, f func() error) error {
	if path == "" {
		return f()
	}
	result := make(chan error, 1)
	go func() {
		// The thread is not unlocked: it ends with the goroutine, and the foreign namespace with it.
		runtime.LockOSThread()
		handle, err := netns.GetFromPath(path)
		if err != nil {
			result <- fmt.Errorf("open network namespace %s: %w", path, err)
			return
		}
		defer handle.Close()
		if err := netns.Set(handle); err != nil {
			result <- fmt.Errorf("enter network namespace %s: %w", path, err)
			return
		}
		result <- f()
	}()
	return <-result
}
