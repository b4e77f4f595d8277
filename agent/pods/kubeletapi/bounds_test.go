package kubeletapi

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// talker is a node whose commands say the same without end, until nobody reads it or they are ended.
type talker struct{ Node }

func (talker) Exec(ctx context.Context, _ Target, _ []string, s Streams) (int, error) {
	line := bytes.Repeat([]byte("y\n"), 4096)
	for to := s.Stdout; ; to, s.Stderr = s.Stderr, to {
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
		if _, err := to.Write(line); err != nil {
			return 0, err
		}
	}
}

// trusting lets everybody do everything.
func trusting() Security {
	return Security{
		Authenticator: authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) {
			return &authenticator.Response{User: &user.DefaultInfo{Name: "somebody"}}, true, nil
		}),
		Authorizer: authorizer.AuthorizerFunc(func(context.Context, authorizer.Attributes) (authorizer.Decision, string, error) {
			return authorizer.DecisionAllow, "", nil
		}),
	}
}

// A command that talks without end is ended, and what it said until then comes with the reason.
func TestRunIsBounded(t *testing.T) {
	server := New("n1", talker{}, trusting(), slog.New(slog.DiscardHandler))
	answer := httptest.NewRecorder()
	server.Handler().ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/run/default/p/c?cmd=yes", nil))
	said := answer.Body.String()
	kept, reason := said[:min(len(said), maxRunOutputBytes)], said[min(len(said), maxRunOutputBytes):]
	if answer.Code != http.StatusInternalServerError || strings.Trim(kept, "y\n") != "" || reason != "\n"+errRunOutput.Error()+"\n" {
		t.Errorf("%d with %d bytes, and then %q", answer.Code, len(kept), reason)
	}
}

// A connection over the bound is served when another has gone.
func TestConnectionsAreBounded(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := New("n1", talker{}, trusting(), slog.New(slog.DiscardHandler))
	server.maxConns = 1
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	ask := func() (net.Conn, chan string) {
		conn, err := net.Dial("tcp", listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: n1\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		answered := make(chan string, 1)
		go func() {
			first := make([]byte, len("HTTP/1.1 200"))
			_, _ = io.ReadFull(conn, first) // short where there is no answer
			answered <- string(first)
		}()
		return conn, answered
	}
	first, served := ask()
	if got := <-served; got != "HTTP/1.1 200" {
		t.Fatalf("the first got %q", got)
	}
	second, waits := ask()
	defer second.Close()
	select {
	case got := <-waits:
		t.Fatalf("the second got %q while the first was there", got)
	case <-time.After(100 * time.Millisecond): // an answer would be a failure at any time
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if got := <-waits; got != "HTTP/1.1 200" {
		t.Errorf("the second got %q", got)
	}
}
