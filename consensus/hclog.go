package consensus

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// raftLogger gives raft's and the log's messages to slog, a level lower than they rate themselves: an election or a
// snapshot is their news and our detail.
type raftLogger struct {
	out     *slog.Logger
	name    string
	implied []any
	silent  *repeatFilter
}

const (
	// silenceEnds is how long a peer has no failure before its next one is news.
	silenceEnds = time.Minute
	// maxSilent bounds the peers that are remembered; beyond, all are forgotten.
	maxSilent = 64
)

// repeatFilter lets one line through for each peer that cannot be reached, and the rest as details: raft says for every message that it did not
// get through.
type repeatFilter struct {
	now func() time.Time

	mu   sync.Mutex
	last map[string]time.Time // of a failure, by peer
}

// repeats tells whether the message is of a failure that goes on.
func (s *repeatFilter) repeats(msg string, args []any) bool {
	if !strings.HasPrefix(msg, "failed to ") {
		return false
	}
	for i := 0; i+1 < len(args); i += 2 {
		if name := args[i]; name != "peer" && name != "server-id" && name != "target" {
			continue
		}
		peer := fmt.Sprint(args[i+1])
		if described, ok := args[i+1].(raft.Server); ok {
			peer = string(described.ID)
		}
		return s.goesOn(peer)
	}
	return false
}

func (s *repeatFilter) goesOn(peer string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	before, known := s.last[peer]
	if len(s.last) >= maxSilent && !known {
		clear(s.last)
	}
	s.last[peer] = now
	return known && now.Sub(before) < silenceEnds
}

var _ hclog.Logger = (*raftLogger)(nil)

func newRaftLogger(out *slog.Logger) hclog.Logger {
	return &raftLogger{out: out.With("part", "raft"), name: "raft", silent: &repeatFilter{now: time.Now, last: map[string]time.Time{}}}
}

func slogLevel(l hclog.Level) slog.Level {
	switch l {
	case hclog.Error:
		return slog.LevelWarn
	case hclog.Warn:
		return slog.LevelInfo
	case hclog.Info:
		return slog.LevelDebug
	default:
		return slog.LevelDebug - 4
	}
}

func (l *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	at := slogLevel(level)
	if at >= slog.LevelInfo && l.silent.repeats(msg, args) {
		at = slog.LevelDebug
	}
	if !l.out.Enabled(context.Background(), at) {
		return
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			args[i] = f[1:]
		}
	}
	l.out.Log(context.Background(), at, msg, append(append([]any{}, l.implied...), args...)...)
}

func (l *raftLogger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *raftLogger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *raftLogger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *raftLogger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *raftLogger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *raftLogger) enabled(level hclog.Level) bool {
	return l.out.Enabled(context.Background(), slogLevel(level))
}

func (l *raftLogger) IsTrace() bool { return l.enabled(hclog.Trace) }
func (l *raftLogger) IsDebug() bool { return l.enabled(hclog.Debug) }
func (l *raftLogger) IsInfo() bool  { return l.enabled(hclog.Info) }
func (l *raftLogger) IsWarn() bool  { return l.enabled(hclog.Warn) }
func (l *raftLogger) IsError() bool { return l.enabled(hclog.Error) }

func (l *raftLogger) ImpliedArgs() []any { return l.implied }
func (l *raftLogger) Name() string       { return l.name }

func (l *raftLogger) With(args ...any) hclog.Logger {
	return &raftLogger{out: l.out, name: l.name, silent: l.silent, implied: append(append([]any{}, l.implied...), args...)}
}

func (l *raftLogger) Named(name string) hclog.Logger { return l.ResetNamed(l.name + "." + name) }

func (l *raftLogger) ResetNamed(name string) hclog.Logger {
	return &raftLogger{out: l.out, name: name, silent: l.silent, implied: l.implied}
}

// SetLevel does nothing: the level is slog's.
func (l *raftLogger) SetLevel(hclog.Level) {}

func (l *raftLogger) GetLevel() hclog.Level {
	for _, level := range []hclog.Level{hclog.Trace, hclog.Debug, hclog.Info, hclog.Warn} {
		if l.enabled(level) {
			return level
		}
	}
	return hclog.Error
}

func (l *raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.out.Handler(), slog.LevelDebug)
}

func (l *raftLogger) StandardWriter(o *hclog.StandardLoggerOptions) io.Writer {
	return l.StandardLogger(o).Writer()
}
