package kubeletapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strings"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	utilexec "k8s.io/utils/exec"
)

// session carries one request's target into the streaming library.
type session struct {
	node Node
	to   Target
}

// ExecInContainer implements remotecommand.Executor.
func (s session) ExecInContainer(ctx context.Context, _, _, _ string, cmd []string, in io.Reader, out, err io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	code, e := s.node.Exec(ctx, s.to, cmd, streams(in, out, err, tty, resize))
	if e != nil {
		return e
	}
	if code != 0 {
		return utilexec.CodeExitError{Err: fmt.Errorf("command terminated with exit code %d", code), Code: code}
	}
	return nil
}

// AttachContainer implements remotecommand.Attacher.
func (s session) AttachContainer(ctx context.Context, _, _, _ string, in io.Reader, out, err io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	return s.node.Attach(ctx, s.to, streams(in, out, err, tty, resize))
}

// streams drops the typed nils of the streaming library.
func streams(in io.Reader, out, err io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) Streams {
	s := Streams{TTY: tty, Resize: resize}
	if in != nil {
		s.Stdin = in
	}
	if out != nil {
		s.Stdout = out
	}
	if err != nil {
		s.Stderr = err
	}
	return s
}

// PortForward implements portforward.PortForwarder.
func (s session) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	conn, err := s.node.Dial(ctx, s.to, port)
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	up := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, stream)
		if half, ok := conn.(interface{ CloseWrite() error }); ok {
			err = errors.Join(err, half.CloseWrite())
		}
		up <- err
	}()
	// The answer ends the exchange: what the caller still sends has no reader.
	_, err = io.Copy(stream, conn)
	stream.Close()
	if err != nil {
		return fmt.Errorf("forward port %d: %w", port, err)
	}
	return nil
}

func (s *Server) options(w http.ResponseWriter, r *http.Request) *remotecommand.Options {
	o, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return nil
	}
	return o
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) {
	if o := s.options(w, r); o != nil {
		remotecommand.ServeExec(w, r, session{s.node, target(r)}, "", "", "", r.URL.Query()["command"], o,
			streamIdleTimeout, streamCreateTimeout, remotecommand.SupportedStreamingProtocols)
	}
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) {
	if o := s.options(w, r); o != nil {
		remotecommand.ServeAttach(w, r, session{s.node, target(r)}, "", "", "", o,
			streamIdleTimeout, streamCreateTimeout, remotecommand.SupportedStreamingProtocols)
	}
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) {
	o, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	portforward.ServePortForward(w, r, session{s.node, target(r)}, r.PathValue("pod"), r.PathValue("uid"), o,
		streamIdleTimeout, streamCreateTimeout, portforward.SupportedProtocols)
}

// metrics answers in Prometheus' text format what resource pipelines read.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	sum, err := s.node.Summary(r.Context())
	if err != nil {
		s.fail(w, err)
		return
	}
	m := exposition{lines: map[string][]string{}}
	m.cpu("node_cpu_usage_seconds_total", "", sum.Node.CPU)
	m.memory("node_memory_working_set_bytes", "", sum.Node.Memory)
	for _, p := range sum.Pods {
		labels := fmt.Sprintf(`namespace=%q,pod=%q`, p.PodRef.Namespace, p.PodRef.Name)
		m.cpu("pod_cpu_usage_seconds_total", labels, p.CPU)
		m.memory("pod_memory_working_set_bytes", labels, p.Memory)
		for _, c := range p.Containers {
			own := fmt.Sprintf(`container=%q,%s`, c.Name, labels)
			m.cpu("container_cpu_usage_seconds_total", own, c.CPU)
			m.memory("container_memory_working_set_bytes", own, c.Memory)
			m.add("container_start_time_seconds", own, float64(c.StartTime.UnixNano())/1e9, 0)
		}
	}
	m.add("resource_scrape_error", "", 0, 0)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	if _, err := io.WriteString(w, m.String()); err != nil {
		s.log.Debug("answer node API request", "err", err)
	}
}

type exposition struct{ lines map[string][]string }

func (m exposition) add(name, labels string, value float64, stampMillis int64) {
	if labels != "" {
		labels = "{" + labels + "}"
	}
	line := fmt.Sprintf("%s%s %g", name, labels, value)
	if stampMillis > 0 {
		line += fmt.Sprintf(" %d", stampMillis)
	}
	m.lines[name] = append(m.lines[name], line)
}

func (m exposition) cpu(name, labels string, c *stats.CPUStats) {
	if c != nil && c.UsageCoreNanoSeconds != nil {
		m.add(name, labels, float64(*c.UsageCoreNanoSeconds)/1e9, c.Time.UnixMilli())
	}
}

func (m exposition) memory(name, labels string, c *stats.MemoryStats) {
	if c != nil && c.WorkingSetBytes != nil {
		m.add(name, labels, float64(*c.WorkingSetBytes), c.Time.UnixMilli())
	}
}

// String is the whole exposition, in a stable order.
func (m exposition) String() string {
	names := make([]string, 0, len(m.lines))
	for n := range m.lines {
		names = append(names, n)
	}
	sort.Strings(names)
	var b strings.Builder
	for _, n := range names {
		kind := "gauge"
		if strings.HasSuffix(n, "_total") {
			kind = "counter"
		}
		fmt.Fprintf(&b, "# TYPE %s %s\n%s\n", n, kind, strings.Join(m.lines[n], "\n"))
	}
	return b.String()
}
