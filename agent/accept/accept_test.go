package accept

import (
	"errors"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// flaky fails as often as it has errors, and has one connection then.
type flaky struct {
	net.Listener
	errs []error
	conn net.Conn
}

func (f *flaky) Accept() (net.Conn, error) {
	if len(f.errs) == 0 {
		return f.conn, nil
	}
	err := f.errs[0]
	f.errs = f.errs[1:]
	return nil, err
}

func TestErrorsThatPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wanted := &net.TCPConn{}
		var told []error
		begun := time.Now()
		got, err := Next(nil, &flaky{errs: []error{syscall.EMFILE, syscall.ECONNABORTED}, conn: wanted}, func(err error) { told = append(told, err) })
		if got != wanted || err != nil || len(told) != 2 || !errors.Is(told[0], syscall.EMFILE) || time.Since(begun) != 2*Pause {
			t.Errorf("%v, %v after %v, told %v", got, err, time.Since(begun), told)
		}
	})
}

func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if _, err := Next(nil, &flaky{errs: []error{net.ErrClosed}}, nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("closed: %v", err)
		}
		done := make(chan struct{})
		time.AfterFunc(Pause/2, func() { close(done) })
		begun := time.Now()
		if _, err := Next(done, &flaky{errs: []error{syscall.EMFILE}}, nil); !errors.Is(err, net.ErrClosed) || time.Since(begun) != Pause/2 {
			t.Errorf("done in the pause: %v after %v", err, time.Since(begun))
		}
		if _, err := Next(done, &flaky{errs: []error{syscall.EMFILE}}, func(error) { t.Error("told of the end") }); !errors.Is(err, net.ErrClosed) {
			t.Errorf("done before: %v", err)
		}
	})
}
