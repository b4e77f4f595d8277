// Package isolation is what the parts of the agent agree on about pods that stop when their node is cut off, so that another can
// take their place without anybody's word.
//
// A node keeps a lease from the leader for as long as it has such pods. The lease ends by the node's own clock, counted from
// before it was asked for, so that it ends on the node before the leader believes so. Its end stands in a file: the pods' shims
// read it and end the containers, whether the node's agent lives or not.
//
// Everything here may be called from any goroutine.
package isolation

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Annotation on a pod, with the value [Stop], asks for it.
	Annotation = "podvine.io/on-isolation"
	Stop       = "stop"
	// LeaseAnnotation in a container's OCI configuration names the file with the lease's end.
	LeaseAnnotation = "podvine.io/lease-file"

	// PartingAnnotation on a Node says that the node's agent may have ended with a lease of [PartingLease].
	PartingAnnotation = "podvine.io/parting-lease"

	// Lease is how long a lease lasts, Renew how often it is renewed.
	Lease = 4 * time.Second
	Renew = time.Second
	// Check is how often a shim reads the file.
	Check = 250 * time.Millisecond
	// ReleaseAfter is how long after the last grant the leader counts the pods as stopped: the lease, and time to end them.
	ReleaseAfter = 6 * time.Second
	// PartingLease is what an agent gets that ends on purpose, so that an upgrade ends no pod: the next agent is there long before.
	// PartingReleaseAfter is the same for the leader.
	PartingLease        = time.Minute
	PartingReleaseAfter = PartingLease + ReleaseAfter - Lease
)

// Stops tells whether a pod with those annotations stops when its node is cut off.
func Stops(annotations map[string]string) bool { return annotations[Annotation] == Stop }

// Now is the time since the machine started, its sleep included.
func Now() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err != nil {
		return 0, fmt.Errorf("read the clock: %w", err)
	}
	return time.Duration(now.Nano()), nil
}

// WriteEnd writes when the lease ends, whole: a reader sees the end before or this one.
func WriteEnd(file string, end time.Duration) error {
	temporary := file + ".new"
	if err := os.WriteFile(temporary, []byte(strconv.FormatInt(int64(end), 10)+"\n"), 0o600); err != nil {
		return fmt.Errorf("write the lease: %w", err)
	}
	if err := os.Rename(temporary, file); err != nil {
		return fmt.Errorf("write the lease: %w", err)
	}
	return nil
}

// Over tells whether the lease in the file has ended. One that cannot be read has.
func Over(file string) bool {
	content, err := os.ReadFile(file)
	if err != nil {
		return true
	}
	end, err := strconv.ParseInt(strings.TrimSpace(string(content)), 10, 64)
	if err != nil {
		return true
	}
	now, err := Now()
	return err != nil || now >= time.Duration(end)
}
