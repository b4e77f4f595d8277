package gossip

import (
	"bytes"
	"context"
	"log"
	"log/slog"
)

// bridge returns a standard logger whose lines go to slog. Serf and memberlist put the level into the text ("[WARN]
// memberlist: …"). Their reports of normal life (joins, probes, refutations) become debug lines.
func bridge(to *slog.Logger) *log.Logger { return log.New(levelWriter{to}, "", 0) }

type levelWriter struct{ to *slog.Logger }

func (w levelWriter) Write(line []byte) (int, error) {
	level, text := slog.LevelDebug, bytes.TrimSpace(line)
	for prefix, l := range map[string]slog.Level{"[WARN]": slog.LevelDebug, "[ERR]": slog.LevelWarn, "[ERROR]": slog.LevelWarn} {
		if rest, ok := bytes.CutPrefix(text, []byte(prefix)); ok {
			level, text = l, bytes.TrimSpace(rest)
		}
	}
	w.to.Log(context.Background(), level, string(text))
	return len(line), nil
}
