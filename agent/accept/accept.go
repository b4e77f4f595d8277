// Package accept takes connections from a listener through errors that pass.
//
// Role: all servers of this agent that accept by themselves. It keeps no state; a listener stays its caller's to close. What [Next]
// does may be done by several goroutines at once.
package accept

import (
	"errors"
	"fmt"
	"net"
	"time"
)

// Pause is after an error that may pass: too many open files, say, of which others may close some.
const Pause = 100 * time.Millisecond

// Next waits for a connection. Errors that may pass are told to failed, which may be nil, and it goes on after [Pause]. The error that
// it returns wraps [net.ErrClosed]: the listener is closed, or done is.
func Next(done <-chan struct{}, from net.Listener, failed func(error)) (net.Conn, error) {
	for {
		conn, err := from.Accept()
		if err == nil {
			return conn, nil
		}
		if errors.Is(err, net.ErrClosed) {
			return nil, fmt.Errorf("accept: %w", err)
		}
		select {
		case <-done:
			return nil, fmt.Errorf("accept: %w", errors.Join(net.ErrClosed, err))
		default:
		}
		if failed != nil {
			failed(err)
		}
		select {
		case <-done:
			return nil, fmt.Errorf("accept: %w", net.ErrClosed)
		case <-time.After(Pause):
		}
	}
}
