package stream

import (
	"fmt"
	"net/url"
	"strconv"
)

// Scheme marks a stdout URI that the shim serves itself.
const Scheme = "podvine"

// IO describes a process's input and output to the shim. It travels as the
// stdout URI of containerd's create and exec requests.
type IO struct {
	// Dir is the control folder: pipes, socket and exit record.
	Dir string
	// LogPath is the CRI log; "" for none (exec sessions).
	LogPath string
	// MaxLogBytes and MaxLogFiles bound the log; 0 means the default.
	MaxLogBytes int64
	MaxLogFiles int
	// Stdin gives the process an input; StdinOnce ends it with its first client.
	Stdin, StdinOnce bool
	// Lossless makes output wait for the connected client.
	Lossless bool
}

// URI encodes io.
func (io IO) URI() string {
	q := url.Values{"dir": {io.Dir}}
	if io.LogPath != "" {
		q.Set("log", io.LogPath)
		q.Set("bytes", strconv.FormatInt(io.MaxLogBytes, 10))
		q.Set("files", strconv.Itoa(io.MaxLogFiles))
	}
	for name, on := range map[string]bool{"stdin": io.Stdin, "once": io.StdinOnce, "lossless": io.Lossless} {
		if on {
			q.Set(name, "1")
		}
	}
	return (&url.URL{Scheme: Scheme, Path: "/", RawQuery: q.Encode()}).String()
}

// ParseIO decodes a URI; ok is false when it is not one of ours.
func ParseIO(uri string) (io IO, ok bool, err error) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != Scheme {
		return IO{}, false, nil //nolint:nilerr // not ours, whatever it is
	}
	q := u.Query()
	io = IO{
		Dir: q.Get("dir"), LogPath: q.Get("log"), Stdin: q.Get("stdin") == "1",
		StdinOnce: q.Get("once") == "1", Lossless: q.Get("lossless") == "1",
	}
	if io.Dir == "" {
		return IO{}, true, fmt.Errorf("stream URI without dir: %q", uri)
	}
	if io.LogPath != "" {
		if io.MaxLogBytes, err = strconv.ParseInt(q.Get("bytes"), 10, 64); err != nil {
			return IO{}, true, fmt.Errorf("stream URI: bytes: %w", err)
		}
		if io.MaxLogFiles, err = strconv.Atoi(q.Get("files")); err != nil {
			return IO{}, true, fmt.Errorf("stream URI: files: %w", err)
		}
	}
	return io, true, nil
}
