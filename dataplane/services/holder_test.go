package services_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"testing"

	"github.com/podvine/podvine/dataplane/services"
)

// holderVariable makes the test binary a process that holds the proxy: it takes services, one a line, and answers each
// with what it cost. It lives to be killed.
const holderVariable = "PODVINE_TEST_PROXY_HOLDER"

// held is a holder's answer.
type held struct {
	Adopted int
	Writes  uint64
	Err     string
}

func holdProxy() int {
	if err := hold(); err != nil {
		fmt.Fprintln(os.Stderr, "holder:", err)
		return 1
	}
	return 0
}

func hold() error {
	var config services.Config
	if err := json.Unmarshal([]byte(os.Getenv(holderVariable)), &config); err != nil {
		return err
	}
	config.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	proxy, err := services.Open(config)
	if err != nil {
		return err
	}
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for full := true; ; full = false {
		var s services.Service
		if err := in.Decode(&s); err != nil {
			return err
		}
		before := proxy.Stats()
		if full {
			err = proxy.Set(context.Background(), []services.Service{s})
		} else {
			err = proxy.Apply(context.Background(), []services.Change{{Name: s.Name, Service: &s}})
		}
		answer := held{Adopted: before.Adopted, Writes: proxy.Stats().Writes - before.Writes}
		if err != nil {
			answer.Err = err.Error()
		}
		if err := out.Encode(answer); err != nil {
			return err
		}
	}
}

// holder is such a process, seen from outside.
type holder struct {
	command *exec.Cmd
	in      io.WriteCloser
	out     *bufio.Reader
	// ready is the answer to the first full state.
	ready held
}

func (n *node) startHolder(t *testing.T, first services.Service) *holder {
	t.Helper()
	config := n.proxyConfig()
	config.Logger = nil
	encoded, err := json.Marshal(config)
	must(t, err)
	h := &holder{command: exec.Command("/proc/self/exe")}
	h.command.Env = append(os.Environ(), holderVariable+"="+string(encoded))
	h.command.Stderr = os.Stderr
	h.in, err = h.command.StdinPipe()
	must(t, err)
	out, err := h.command.StdoutPipe()
	must(t, err)
	h.out = bufio.NewReader(out)
	must(t, h.command.Start())
	t.Cleanup(func() { _ = h.command.Process.Kill() }) // it is dead already unless the test failed
	must(t, h.send(first))
	h.ready = h.answer(t)
	return h
}

func (h *holder) send(s services.Service) error { return json.NewEncoder(h.in).Encode(s) }

func (h *holder) answer(t *testing.T) held {
	t.Helper()
	line, err := h.out.ReadBytes('\n')
	must(t, err)
	var answer held
	must(t, json.Unmarshal(line, &answer))
	if answer.Err != "" {
		t.Fatal(answer.Err)
	}
	return answer
}

// apply returns how many map writes the change took.
func (h *holder) apply(t *testing.T, s services.Service) uint64 {
	t.Helper()
	must(t, h.send(s))
	return h.answer(t).Writes
}

// kill ends the process as kill -9 does.
func (h *holder) kill(t *testing.T) {
	t.Helper()
	must(t, h.command.Process.Kill())
	if err := h.command.Wait(); err == nil {
		t.Error("the holder ended before it was killed")
	}
}
