package kubeletapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
)

// maxRunOutputBytes bounds what a command says through /run: the answer's status depends on how the command ends, so that all of
// it is kept until then. exec streams, and has no bound.
const maxRunOutputBytes = 16 << 20

var errRunOutput = fmt.Errorf("the command was ended: it said more than %d bytes", maxRunOutputBytes)

// runOutput keeps what a command says on both its streams, up to the bound, and ends a command that says more. It is safe for
// concurrent use.
type runOutput struct {
	end context.CancelCauseFunc

	mu   sync.Mutex
	kept bytes.Buffer
}

// Write implements io.Writer.
func (o *runOutput) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fits := min(len(p), maxRunOutputBytes-o.kept.Len())
	o.kept.Write(p[:fits])
	if fits < len(p) {
		o.end(errRunOutput)
		return fits, errRunOutput
	}
	return fits, nil
}

// run executes a command without streams and answers with its output.
func (s *Server) run(w http.ResponseWriter, r *http.Request) {
	command := r.URL.Query()["command"]
	if len(command) == 0 {
		command = strings.Fields(r.URL.Query().Get("cmd"))
	}
	ctx, end := context.WithCancelCause(r.Context())
	defer end(nil)
	out := &runOutput{end: end}
	code, err := s.node.Exec(ctx, target(r), command, Streams{Stdout: out, Stderr: out})
	out.mu.Lock()
	defer out.mu.Unlock()
	switch {
	case errors.Is(context.Cause(ctx), errRunOutput):
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(&out.kept, "\n%s\n", errRunOutput)
	case err != nil:
		s.fail(w, err)
		return
	case code != 0:
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(&out.kept, "command terminated with exit code %d", code)
	}
	if _, err := w.Write(out.kept.Bytes()); err != nil {
		s.log.Debug("answer node API request", "err", err)
	}
}
