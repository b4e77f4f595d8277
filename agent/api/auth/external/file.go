package external

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxFileBytes bounds a file of configuration.
	maxFileBytes = 4 << 20
	// graceSeconds is how long what a file said before goes on working after it was replaced, for requests under way.
	graceSeconds = 60
)

// file is a file whose content is made into something, anew whenever it changes.
type file[T any] struct {
	path string
	poll time.Duration
	log  *slog.Logger
	// build makes the thing; what it starts ends with its context. first says that nothing is in effect yet.
	build   func(ctx context.Context, content []byte, first bool) (T, error)
	current atomic.Pointer[T]

	// applied is the content in effect, complaint the last error that was logged, end the end of what is in effect.
	applied   [sha256.Size]byte
	complaint string
	end       context.CancelFunc

	// following is the goroutine that looks for changes.
	following sync.WaitGroup
}

func newFile[T any](path string, config Config, build func(context.Context, []byte, bool) (T, error)) *file[T] {
	return &file[T]{path: path, poll: config.Poll, log: config.Log, build: build}
}

// check reads the file, if there is one, and has its content checked.
func (f *file[T]) check(check func(content []byte) error) error {
	if f.path == "" {
		return nil
	}
	content, err := f.read()
	if err == nil {
		err = check(content)
	}
	if err != nil {
		return fmt.Errorf("read %s: %s", f.path, strings.Join(strings.Fields(err.Error()), " ")) // compilers draw under what is wrong
	}
	return nil
}

func (f *file[T]) read() ([]byte, error) {
	content, err := os.ReadFile(f.path)
	if err == nil && len(content) > maxFileBytes {
		err = fmt.Errorf("%d bytes, the limit is %d", len(content), maxFileBytes)
	}
	return content, err
}

// start puts the file into effect and follows it until ctx ends.
func (f *file[T]) start(ctx context.Context) error {
	if f.path == "" {
		return nil
	}
	content, err := f.read()
	if err == nil {
		err = f.apply(ctx, content, true)
	}
	if err != nil {
		return fmt.Errorf("apply %s: %w", f.path, err)
	}
	f.following.Go(func() { f.follow(ctx) })
	return nil
}

func (f *file[T]) follow(ctx context.Context) {
	ticker := time.NewTicker(f.poll)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			f.look(ctx)
		}
	}
}

// look applies the file if it has changed.
func (f *file[T]) look(ctx context.Context) {
	content, err := f.read()
	if err == nil {
		if sha256.Sum256(content) == f.applied {
			f.complaint = ""
			return
		}
		err = f.apply(ctx, content, false)
	}
	switch {
	case err == nil:
		f.complaint = ""
		f.log.Info("changed configuration is in effect", "file", f.path)
	case ctx.Err() == nil && err.Error() != f.complaint:
		f.complaint = err.Error()
		f.log.Error("changed configuration is not used, the one before stays in effect", "file", f.path, "err", err)
	}
}

func (f *file[T]) apply(ctx context.Context, content []byte, first bool) error {
	own, end := context.WithCancel(ctx)
	made, err := f.build(own, content, first)
	if err != nil {
		end()
		return err
	}
	f.current.Store(&made)
	if f.end != nil {
		time.AfterFunc(graceSeconds*time.Second, f.end)
	}
	f.applied, f.end = sha256.Sum256(content), end
	return nil
}
