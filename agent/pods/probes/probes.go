// Package probes asks containers whether they are well, and runs the HTTP and
// TCP halves of lifecycle hooks.
//
// Role: Check makes one try; Tally (pure) counts tries against thresholds; Run
// joins the two on a timer until its context ends. Connections are made from
// inside the pod's network namespace, so that no firewall of the host can make
// a healthy pod look ill.
//
// Concurrency: every Run is one goroutine; a Target may be shared.
package probes

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/podvine/podvine/agent/pods/sandbox"
)

// maxBodyBytes bounds how much of an HTTP answer is read.
const maxBodyBytes = 10 << 10

// userAgent is what applications expect of a node's probes.
const userAgent = "kube-probe/1.37"

// Target is the container that is asked.
type Target struct {
	Container *corev1.Container
	// IP of the pod, and its network namespace's path ("" for the host's).
	IP, Netns string
	// Exec runs a command in the container.
	Exec func(ctx context.Context, command []string) (code int, output string, err error)
}

// Check makes one try. Output explains the result either way.
func (t Target) Check(ctx context.Context, p *corev1.Probe) (ok bool, output string) {
	ctx, cancel := context.WithTimeout(ctx, seconds(p.TimeoutSeconds, 1))
	defer cancel()
	switch {
	case p.Exec != nil:
		code, out, err := t.Exec(ctx, p.Exec.Command)
		if ctx.Err() != nil {
			return false, fmt.Sprintf("command timed out: %q timed out after %s", strings.Join(p.Exec.Command, " "), seconds(p.TimeoutSeconds, 1))
		}
		if err != nil {
			return false, err.Error()
		}
		return code == 0, out
	case p.HTTPGet != nil:
		return t.checkHTTP(ctx, p.HTTPGet)
	case p.TCPSocket != nil:
		return t.checkTCP(ctx, p.TCPSocket)
	case p.GRPC != nil:
		return t.checkGRPC(ctx, p.GRPC)
	}
	return false, "missing probe handler"
}

func seconds(n, otherwise int32) time.Duration {
	if n <= 0 {
		n = otherwise
	}
	return time.Duration(n) * time.Second
}

// Port resolves a number or the name of one of the container's ports.
func Port(p intstr.IntOrString, c *corev1.Container) (int, error) {
	if p.Type == intstr.Int {
		return int(p.IntVal), nil
	}
	for _, have := range c.Ports {
		if have.Name == p.StrVal {
			return int(have.ContainerPort), nil
		}
	}
	if n, err := strconv.Atoi(p.StrVal); err == nil {
		return n, nil
	}
	return 0, fmt.Errorf("no port %q in container %s", p.StrVal, c.Name)
}

// dial connects from inside the pod, or from the host when another host was
// asked for.
func (t Target) dial(ctx context.Context, addr string, inside bool) (net.Conn, error) {
	netns := ""
	if inside {
		netns = t.Netns
	}
	var conn net.Conn
	err := sandbox.Enter(netns, func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		return err
	})
	return conn, err
}

func (t Target) checkHTTP(ctx context.Context, g *corev1.HTTPGetAction) (bool, string) {
	code, body, err := t.HTTPGet(ctx, g)
	if err != nil {
		return false, err.Error()
	}
	if code >= http.StatusOK && code < http.StatusBadRequest {
		return true, body
	}
	return false, fmt.Sprintf("HTTP probe failed with statuscode: %d", code)
}

// HTTPGet performs the request of a probe or hook.
func (t Target) HTTPGet(ctx context.Context, g *corev1.HTTPGetAction) (int, string, error) {
	port, err := Port(g.Port, t.Container)
	if err != nil {
		return 0, "", err
	}
	host, inside := t.IP, true
	if g.Host != "" {
		host, inside = g.Host, false
	}
	u, err := url.Parse(g.Path)
	if err != nil {
		u = &url.URL{Path: g.Path}
	}
	u.Scheme, u.Host = strings.ToLower(string(g.Scheme)), net.JoinHostPort(host, strconv.Itoa(port))
	if u.Scheme == "" {
		u.Scheme = "http"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept", "*/*")
	for _, h := range g.HTTPHeaders {
		if http.CanonicalHeaderKey(h.Name) == "Host" {
			req.Host = h.Value
		}
		req.Header.Add(h.Name, h.Value)
	}
	client := &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives: true, DisableCompression: true,
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // probes never verify, as documented
			DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
				return t.dial(ctx, addr, inside)
			},
		},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.URL.Hostname() != via[0].URL.Hostname() || len(via) >= 10 {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxBodyBytes))
	if err != nil {
		return 0, "", err
	}
	return res.StatusCode, string(body), nil
}

func (t Target) checkTCP(ctx context.Context, s *corev1.TCPSocketAction) (bool, string) {
	port, err := Port(s.Port, t.Container)
	if err != nil {
		return false, err.Error()
	}
	host, inside := t.IP, true
	if s.Host != "" {
		host, inside = s.Host, false
	}
	conn, err := t.dial(ctx, net.JoinHostPort(host, strconv.Itoa(port)), inside)
	if err != nil {
		return false, err.Error()
	}
	conn.Close()
	return true, ""
}

func (t Target) checkGRPC(ctx context.Context, g *corev1.GRPCAction) (bool, string) {
	addr := net.JoinHostPort(t.IP, strconv.Itoa(int(g.Port)))
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithUserAgent(userAgent),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) { return t.dial(ctx, addr, true) }))
	if err != nil {
		return false, err.Error()
	}
	defer conn.Close()
	service := ""
	if g.Service != nil {
		service = *g.Service
	}
	res, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service}, grpc.WaitForReady(true))
	if err != nil {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return false, fmt.Sprintf("timeout: failed to connect service %q within %s: %v", addr, time.Second, ctx.Err())
		}
		return false, fmt.Sprintf("error: health rpc probe failed: %s", status.Convert(err).Message())
	}
	if res.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		return false, fmt.Sprintf("service unhealthy (responded with %q)", res.Status)
	}
	return true, "service healthy"
}

// Tally counts tries against a probe's thresholds.
type Tally struct {
	run  int32
	last bool
	any  bool
}

// Verdict of a series of tries.
type Verdict int

// A series is undecided until a threshold is met.
const (
	Undecided Verdict = iota
	Passed
	Failed
)

// Add counts one try and returns the verdict.
func (t *Tally) Add(p *corev1.Probe, ok bool) Verdict {
	if t.any && t.last == ok {
		t.run++
	} else {
		t.any, t.last, t.run = true, ok, 1
	}
	if ok && t.run >= max(p.SuccessThreshold, 1) {
		return Passed
	}
	failures := p.FailureThreshold
	if failures <= 0 {
		failures = defaultFailures
	}
	if !ok && t.run >= failures {
		return Failed
	}
	return Undecided
}

const (
	defaultFailures = 3
	defaultPeriod   = 10
)

// Run tries p until ctx ends, first after its initial delay. report receives
// every try with the verdict so far. resumed is set for a container that ran
// before this agent; its first try is spread over one period.
func Run(ctx context.Context, t Target, p *corev1.Probe, startedAt time.Time, resumed bool, report func(v Verdict, ok bool, output string)) {
	period := seconds(p.PeriodSeconds, defaultPeriod)
	wait := time.Until(startedAt.Add(time.Duration(p.InitialDelaySeconds) * time.Second))
	if resumed {
		wait = max(wait, rand.N(period))
	}
	timer := time.NewTimer(max(wait, 0))
	defer timer.Stop()
	var tally Tally
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		ok, out := t.Check(ctx, p)
		if ctx.Err() != nil {
			return
		}
		report(tally.Add(p, ok), ok, out)
		timer.Reset(period)
	}
}
