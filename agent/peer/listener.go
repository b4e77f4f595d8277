package peer

import (
	"fmt"
	"net"
	"sync"
)

// listener hands out the connections of one protocol.
type listener struct {
	network      *Network
	protocol     string
	replicasOnly bool
	conns        chan net.Conn
	closed       chan struct{}
	once         sync.Once
}

// offer queues a connection, or says why not.
func (l *listener) offer(conn net.Conn) error {
	select {
	case <-l.closed:
		return net.ErrClosed
	default:
	}
	select {
	case l.conns <- conn:
		return nil
	default:
		return fmt.Errorf("%d connections of %s wait already", waitingConns, l.protocol)
	}
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case <-l.closed:
		return nil, fmt.Errorf("accept for %s: %w", l.protocol, net.ErrClosed)
	}
}

// Addr implements net.Listener.
func (l *listener) Addr() net.Addr { return l.network.config.Listener.Addr() }

// Close implements net.Listener. Connections that nobody has taken are closed.
func (l *listener) Close() error {
	l.network.mu.Lock()
	if l.network.listeners[l.protocol] == l {
		delete(l.network.listeners, l.protocol)
	}
	l.network.mu.Unlock()
	l.shut()
	return nil
}

func (l *listener) shut() {
	l.once.Do(func() {
		close(l.closed)
		for {
			select {
			case conn := <-l.conns:
				_ = conn.Close() // nobody has spoken on it
			default:
				return
			}
		}
	})
}
