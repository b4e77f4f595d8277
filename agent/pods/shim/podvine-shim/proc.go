package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/agent/pods/shim/crilog"
	"github.com/podvine/podvine/agent/pods/shim/stream"
)

// readBytes is the size of one read from a container's pipe.
const readBytes = 32 << 10

// procCalls are what a process's clients may ask of the task service.
type procCalls struct {
	closeInput func()
	resize     func(cols, rows uint16)
}

// proc owns the pipes, log, stream and exit record of one process.
type proc struct {
	spec     stream.IO
	terminal bool
	hub      *stream.Hub
	log      *crilog.Writer
	out, err *os.File
	in       *os.File

	done  chan struct{} // closed when both outputs have ended
	begin sync.Once
	end   sync.Once

	mu       sync.Mutex
	oom      bool // guarded by mu
	isolated bool // the lease was over
	inClosed bool // guarded by mu
}

// openProc makes the pipes in the control folder and opens our ends of them.
func openProc(spec stream.IO, terminal bool, calls procCalls) (_ *proc, err error) {
	p := &proc{spec: spec, terminal: terminal, done: make(chan struct{})}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if err := os.MkdirAll(spec.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make control folder: %w", err)
	}
	if p.out, err = openFifo(spec.Dir, "stdout", unix.O_RDONLY|unix.O_NONBLOCK); err != nil {
		return nil, err
	}
	if !terminal {
		if p.err, err = openFifo(spec.Dir, "stderr", unix.O_RDONLY|unix.O_NONBLOCK); err != nil {
			return nil, err
		}
	}
	opts := stream.HubOptions{Lossless: spec.Lossless, CloseInputOnDetach: spec.StdinOnce, Resize: calls.resize}
	if spec.Stdin {
		if p.in, err = openFifo(spec.Dir, "stdin", unix.O_RDWR|unix.O_NONBLOCK); err != nil {
			return nil, err
		}
		opts.Input = p.write
		opts.CloseInput = func() { p.closeInput(calls.closeInput) }
	}
	if spec.LogPath != "" {
		o := crilog.Options{MaxFileBytes: spec.MaxLogBytes, MaxFiles: spec.MaxLogFiles}
		if p.log, err = crilog.NewWriter(spec.LogPath, o); err != nil {
			return nil, err
		}
	}
	p.hub, err = stream.Serve(spec.Dir, opts)
	return p, err
}

func openFifo(dir, name string, flags int) (*os.File, error) {
	path := filepath.Join(dir, name)
	if err := unix.Mkfifo(path, 0o600); err != nil && err != unix.EEXIST {
		return nil, fmt.Errorf("make pipe %s: %w", name, err)
	}
	f, err := os.OpenFile(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open pipe %s: %w", name, err)
	}
	return f, nil
}

// paths are the pipes as the task service is to open them.
func (p *proc) paths() (stdin, stdout, stderr string) {
	if p.spec.Stdin {
		stdin = filepath.Join(p.spec.Dir, "stdin")
	}
	if !p.terminal {
		stderr = filepath.Join(p.spec.Dir, "stderr")
	}
	return stdin, filepath.Join(p.spec.Dir, "stdout"), stderr
}

// start begins to read; the task service holds the write ends by now.
func (p *proc) start() {
	p.begin.Do(func() {
		var wg sync.WaitGroup
		wg.Go(func() { p.copy(p.out, crilog.Stdout, stream.Out) })
		if p.err != nil {
			wg.Go(func() { p.copy(p.err, crilog.Stderr, stream.Err) })
		}
		go func() {
			wg.Wait()
			close(p.done)
		}()
	})
}

func (p *proc) copy(from io.Reader, s crilog.Stream, k stream.Kind) {
	buf := make([]byte, readBytes)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if p.log != nil {
				p.log.Feed(s, buf[:n])
			}
			p.hub.Publish(k, buf[:n])
		}
		if err != nil || n == 0 {
			break
		}
	}
	if p.log != nil {
		p.log.Flush(s)
	}
}

func (p *proc) write(data []byte) error {
	_, err := p.in.Write(data)
	return err
}

func (p *proc) closeInput(closeTask func()) {
	p.mu.Lock()
	first := !p.inClosed
	p.inClosed = true
	p.mu.Unlock()
	if first {
		p.in.Close()
		closeTask()
	}
}

// drain waits until all output is read, at most for limit.
func (p *proc) drain(limit time.Duration) {
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-p.done:
		p.hub.Close()
	case <-t.C:
	}
}

func (p *proc) noteOOM() {
	p.mu.Lock()
	p.oom = true
	p.mu.Unlock()
}

func (p *proc) noteIsolated() {
	p.mu.Lock()
	p.isolated = true
	p.mu.Unlock()
}

func (p *proc) noteExit(code uint32, at time.Time) error {
	p.mu.Lock()
	oom, isolated := p.oom, p.isolated
	p.mu.Unlock()
	return stream.WriteExit(p.spec.Dir, stream.Exit{Code: code, At: at, OOM: oom, Isolated: isolated})
}

// close releases everything; output that still arrives is lost.
func (p *proc) close() {
	p.end.Do(func() {
		for _, f := range []*os.File{p.out, p.err, p.in} {
			if f != nil {
				f.Close()
			}
		}
		if p.hub != nil {
			select {
			case <-p.done:
			case <-time.After(drainTimeout):
			}
			p.hub.Close()
		}
		if p.log != nil {
			p.log.Close()
		}
	})
}
