package kubeletapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/netutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/podvine/podvine/agent/pods/logs"
)

// Target names a container of a pod, as requests do.
type Target struct{ Namespace, Pod, UID, Container string }

// Streams are a caller's ends of a process.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	TTY            bool
	// Resize delivers terminal sizes; nil without a terminal.
	Resize <-chan remotecommand.TerminalSize
}

// ErrNotFound is wrapped in errors about pods or containers that are not here.
var ErrNotFound = errors.New("not found")

// ErrUnavailable is wrapped in errors about containers that cannot answer now.
var ErrUnavailable = errors.New("unavailable")

// Node is what the API shows.
type Node interface {
	// Pods of this node with their status as last decided.
	Pods() []corev1.Pod
	// Logs copies a container's log; flush is called when it has caught up.
	Logs(ctx context.Context, t Target, previous bool, o logs.Options, w io.Writer, flush func()) error
	// Exec runs a command and returns its exit code.
	Exec(ctx context.Context, t Target, command []string, s Streams) (int, error)
	// Attach connects to the container's first process.
	Attach(ctx context.Context, t Target, s Streams) error
	// Dial connects to a port inside the pod.
	Dial(ctx context.Context, t Target, port int32) (net.Conn, error)
	// Summary measures the node and its pods.
	Summary(ctx context.Context) (*stats.Summary, error)
}

const (
	// streamIdleTimeout ends streams without traffic, streamCreateTimeout those
	// that never begin.
	streamIdleTimeout   = 4 * time.Hour
	streamCreateTimeout = 30 * time.Second
	// readHeaderTimeout bounds a TLS handshake, too, idleTimeout the wait for the next request; it is kubelet's.
	readHeaderTimeout = 30 * time.Second
	idleTimeout       = 90 * time.Second
	closeTimeout      = time.Second
	// maxConnections bounds those that are open, streams among them; more wait in the kernel's queue. Nobody is known before a
	// connection is there, so that anyone may hold one for a while.
	maxConnections = 4096
)

// Server is the node's HTTP API.
type Server struct {
	name string
	node Node
	sec  Security
	log  *slog.Logger
	// maxConns is maxConnections, but in tests.
	maxConns int
}

// New makes a Server for the node of that name.
func New(name string, node Node, sec Security, log *slog.Logger) *Server {
	return &Server{name: name, node: node, sec: sec, log: log, maxConns: maxConnections}
}

// Serve answers on ln until ctx ends. Streams that are open then are closed.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	srv := &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: readHeaderTimeout, IdleTimeout: idleTimeout, TLSConfig: s.sec.TLS,
		ErrorLog:    slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	ln = netutil.LimitListener(ln, s.maxConns)
	errc := make(chan error, 1)
	go func() {
		if s.sec.TLS != nil {
			errc <- srv.ServeTLS(ln, "", "")
			return
		}
		errc <- srv.Serve(ln)
	}()
	select {
	case err := <-errc:
		return fmt.Errorf("serve node API: %w", err)
	case <-ctx.Done():
	}
	cctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if srv.Shutdown(cctx) != nil {
		srv.Close()
	}
	<-errc //nolint:errcheck // says that it was shut down
	return nil
}

// Handler is the API with its checks.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, p := range []string{"/healthz", "/healthz/ping", "/readyz", "/livez"} {
		mux.HandleFunc("GET "+p, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	}
	mux.HandleFunc("GET /pods", s.pods)
	mux.HandleFunc("GET /pods/{$}", s.pods)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", s.logs)
	for _, method := range []string{"GET", "POST"} {
		mux.HandleFunc(method+" /exec/{namespace}/{pod}/{container}", s.exec)
		mux.HandleFunc(method+" /exec/{namespace}/{pod}/{uid}/{container}", s.exec)
		mux.HandleFunc(method+" /attach/{namespace}/{pod}/{container}", s.attach)
		mux.HandleFunc(method+" /attach/{namespace}/{pod}/{uid}/{container}", s.attach)
		mux.HandleFunc(method+" /portForward/{namespace}/{pod}", s.portForward)
		mux.HandleFunc(method+" /portForward/{namespace}/{pod}/{uid}", s.portForward)
	}
	mux.HandleFunc("POST /run/{namespace}/{pod}/{container}", s.run)
	mux.HandleFunc("POST /run/{namespace}/{pod}/{uid}/{container}", s.run)
	mux.HandleFunc("GET /stats/summary", s.summary)
	mux.HandleFunc("GET /metrics/resource", s.metrics)
	for pattern, handler := range s.sec.Routes {
		mux.Handle(pattern, handler)
	}
	return s.guard(mux)
}

// guard authenticates and authorizes everything.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.sec.Authenticator == nil || s.sec.Authorizer == nil {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		who, ok, err := s.sec.Authenticator.AuthenticateRequest(r)
		if err != nil || !ok {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		var reason string
		for _, sub := range subresources(r.URL.Path) {
			attrs := authorizer.AttributesRecord{
				User: who.User, Verb: verb(r.Method), APIVersion: "v1", Resource: "nodes", Subresource: sub, Name: s.name,
				ResourceRequest: true, Path: r.URL.Path,
			}
			decision, _, err := s.sec.Authorizer.Authorize(r.Context(), attrs)
			if err != nil && decision != authorizer.DecisionAllow {
				s.log.Warn("authorize node API request", "err", err)
				http.Error(w, "Authorization error", http.StatusInternalServerError)
				return
			}
			if decision == authorizer.DecisionAllow {
				next.ServeHTTP(w, r)
				return
			}
			reason = fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource(s)=[%s])", who.User.GetName(), attrs.Verb, sub)
		}
		http.Error(w, reason, http.StatusForbidden)
	})
}

func verb(method string) string {
	switch method {
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		return "delete"
	}
	return "get"
}

// subresources are the node's parts that a path belongs to, any of which
// suffices.
func subresources(path string) []string {
	switch {
	case strings.HasPrefix(path, "/stats"):
		return []string{"stats"}
	case strings.HasPrefix(path, "/metrics"):
		return []string{"metrics"}
	case strings.HasPrefix(path, "/healthz"), path == "/readyz", path == "/livez":
		return []string{"healthz", "proxy"}
	case strings.HasPrefix(path, "/pods"):
		return []string{"pods", "proxy"}
	}
	return []string{"proxy"}
}

func target(r *http.Request) Target {
	return Target{r.PathValue("namespace"), r.PathValue("pod"), r.PathValue("uid"), r.PathValue("container")}
}

func (s *Server) fail(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	switch {
	case errors.Is(err, ErrNotFound):
		code = http.StatusNotFound
	case errors.Is(err, ErrUnavailable):
		code = http.StatusBadRequest
	}
	http.Error(w, err.Error(), code)
}

func (s *Server) json(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(body); err != nil {
		s.log.Debug("answer node API request", "err", err)
	}
}

func (s *Server) pods(w http.ResponseWriter, _ *http.Request) {
	s.json(w, &corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: s.node.Pods()})
}

func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	sum, err := s.node.Summary(r.Context())
	if err != nil {
		s.fail(w, err)
		return
	}
	s.json(w, sum)
}

// logOptions reads kubectl's parameters.
func logOptions(r *http.Request) (o logs.Options, previous bool, err error) {
	q := r.URL.Query()
	o.Tail = -1
	number := func(name string, to *int64) {
		if v := q.Get(name); v != "" && err == nil {
			if *to, err = strconv.ParseInt(v, 10, 64); err == nil && *to < 0 {
				err = fmt.Errorf("%s must not be negative", name)
			}
		}
	}
	number("tailLines", &o.Tail)
	number("limitBytes", &o.LimitBytes)
	since := int64(0)
	number("sinceSeconds", &since)
	if since > 0 {
		o.Since = time.Now().Add(-time.Duration(since) * time.Second)
	}
	if v := q.Get("sinceTime"); v != "" && err == nil {
		o.Since, err = time.Parse(time.RFC3339, v)
	}
	flag := func(name string) bool { v := q.Get(name); return v == "true" || v == "1" }
	o.Follow, o.Timestamps = flag("follow"), flag("timestamps")
	switch q.Get("stream") {
	case "Stdout":
		o.Stream = "stdout"
	case "Stderr":
		o.Stream = "stderr"
	}
	return o, flag("previous"), err
}

// lateWriter sends the header with the first byte, so that an error before it
// still has a status code of its own.
type lateWriter struct {
	http.ResponseWriter
	begun bool
}

func (l *lateWriter) Write(p []byte) (int, error) {
	l.begun = true
	return l.ResponseWriter.Write(p)
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	o, previous, err := logOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	out := &lateWriter{ResponseWriter: w}
	ctl := http.NewResponseController(w)
	flush := func() {
		if err := ctl.Flush(); err != nil {
			s.log.Debug("flush log", "err", err)
		}
	}
	if err := s.node.Logs(r.Context(), target(r), previous, o, out, flush); err != nil && !out.begun {
		s.fail(w, err)
	}
}
