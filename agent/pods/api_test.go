package pods

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"

	"github.com/podvine/podvine/agent/pods/internal/podtest"
	"github.com/podvine/podvine/agent/pods/kubeletapi"
)

// security lets "good" in, knows "bad", and allows what allow says.
func security(allow func(authorizer.Attributes) bool) kubeletapi.Security {
	return kubeletapi.Security{
		Authenticator: authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
			name := r.Header.Get("X-User")
			if name == "" {
				name = r.URL.Query().Get("user")
			}
			return &authenticator.Response{User: &user.DefaultInfo{Name: name}}, name != "", nil
		}),
		Authorizer: authorizer.AuthorizerFunc(func(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
			if allow(a) {
				return authorizer.DecisionAllow, "", nil
			}
			return authorizer.DecisionNoOpinion, "", nil
		}),
	}
}

func serveAPI(t *testing.T, n *node) string {
	t.Helper()
	sec := security(func(a authorizer.Attributes) bool { return a.GetUser().GetName() == "good" })
	sec.Routes = n.agent.metrics.addTo(nil)
	srv := httptest.NewServer(kubeletapi.New("n1", apiNode{n.agent}, sec, n.cfg.Log).Handler())
	t.Cleanup(srv.Close)
	return srv.URL
}

func fetch(t *testing.T, as, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if as != "" {
		req.Header.Set("X-User", as)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestKubeletAPI(t *testing.T) {
	t.Parallel()
	n := newNode(t).start()
	in := box("in", "tee")
	in.Stdin, in.StdinOnce = true, true
	n.create(newPod("api", box("echo", "echo", "127.0.0.1:9000"), box("count", "count", "10000"), in))
	n.until("api", "runs", phaseOf(corev1.PodRunning))
	podtest.Wait(t, "count has said something", func() bool { return strings.Count(n.log("api", "count", 0), "\n") > 2 })
	base := serveAPI(t, n)

	t.Run("who may", func(t *testing.T) {
		for as, want := range map[string]int{"": 401, "bad": 403, "good": 200} {
			if code, body := fetch(t, as, base+"/pods"); code != want {
				t.Errorf("%q got %d: %s", as, code, body)
			}
		}
	})
	t.Run("logs", func(t *testing.T) { checkLogs(t, base) })
	t.Run("statistics", func(t *testing.T) {
		_, sum := fetch(t, "good", base+"/stats/summary")
		_, text := fetch(t, "good", base+"/metrics/resource")
		for _, want := range []string{`"name":"count"`, `"workingSetBytes":`, `"nodeName":"n1"`} {
			if !strings.Contains(sum, want) {
				t.Errorf("no %s in %s", want, sum)
			}
		}
		for _, want := range []string{`container_cpu_usage_seconds_total{container="count",namespace="default",pod="api"} `, "node_memory_working_set_bytes "} {
			if !strings.Contains(text, want) {
				t.Errorf("no %s in %s", want, text)
			}
		}
	})
	t.Run("metrics", func(t *testing.T) { checkMetrics(t, base) })
	t.Run("exec", func(t *testing.T) { checkExec(t, base) })
	t.Run("attach", func(t *testing.T) { checkAttach(t, base) })
	t.Run("port-forward", func(t *testing.T) { checkForward(t, base) })
	n.delete("api", 0)
}

func checkMetrics(t *testing.T, base string) {
	for path, wants := range map[string][]string{
		"/metrics": {`kubelet_node_name{node="n1"} 1`, "kubelet_running_pods 1\n", `kubelet_running_containers{container_state="running"} 3`, "kubelet_started_pods_total 1\n",
			"kubelet_pod_start_duration_seconds_count 1\n", `kubelet_started_containers_total{container_type="container"} `,
			`kubelet_runtime_operations_total{operation_type="start_container"} `,
			`kubelet_runtime_operations_duration_seconds_count{operation_type="create_container"} `},
		"/metrics/cadvisor": {
			"machine_cpu_cores ", `container_memory_working_set_bytes{container="count",`, `container_start_time_seconds{container="echo",`,
			`container_cpu_usage_seconds_total{container="count",cpu="total",`, `container_cpu_usage_seconds_total{container="",cpu="total",id="/",`,
		},
		"/metrics/probes": nil,
	} {
		code, text := fetch(t, "good", base+path)
		if code != http.StatusOK {
			t.Errorf("%s: %d %s", path, code, text)
		}
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %s in %s", path, want, text)
			}
		}
		if code, _ := fetch(t, "bad", base+path); code != http.StatusForbidden {
			t.Errorf("%s: anybody may read it (%d)", path, code)
		}
	}
}

func checkLogs(t *testing.T, base string) {
	url := base + "/containerLogs/default/api/count"
	if code, body := fetch(t, "good", url+"?tailLines=2&timestamps=true"); code != 200 || strings.Count(body, "\n") != 2 || !strings.HasPrefix(body, "20") {
		t.Errorf("tail: %d %q", code, body)
	}
	if _, body := fetch(t, "good", url+"?limitBytes=7"); body != "0000000" {
		t.Errorf("limit: %q", body)
	}
	if code, body := fetch(t, "good", url+"?previous=true"); code != 404 {
		t.Errorf("previous: %d %q", code, body)
	}
	if code, _ := fetch(t, "good", base+"/containerLogs/default/absent/count"); code != 404 {
		t.Errorf("absent pod: %d", code)
	}
	req, err := http.NewRequest(http.MethodGet, url+"?follow=true&user=good", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	r := bufio.NewReader(res.Body)
	for i := range 200 {
		line, err := r.ReadString('\n')
		if err != nil || !strings.HasSuffix(strings.Fields(line)[0], strconv.Itoa(i)) {
			t.Fatalf("followed line %d: %q, %v", i, line, err)
		}
	}
}

// executors are the two ways in which clients stream.
func executors(t *testing.T, raw string) map[string]remotecommand.Executor {
	t.Helper()
	u, err := url.Parse(raw + "&user=good")
	if err != nil {
		t.Fatal(err)
	}
	cfg := &rest.Config{Host: u.Host}
	overSPDY, err := remotecommand.NewSPDYExecutor(cfg, "POST", u)
	if err != nil {
		t.Fatal(err)
	}
	overWS, err := remotecommand.NewWebSocketExecutorForProtocols(cfg, "GET", u.String(), "v4.channel.k8s.io")
	if err != nil {
		t.Fatal(err)
	}
	return map[string]remotecommand.Executor{"SPDY": overSPDY, "WebSocket": overWS}
}

func checkExec(t *testing.T, base string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for name, ex := range executors(t, base+"/exec/default/api/echo?command=/bin/box&command=say&command=5&command=hello&output=1&error=1") {
		var out, errs bytes.Buffer
		err := ex.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &errs})
		var code utilexec.CodeExitError
		if !errors.As(err, &code) || code.Code != 5 || out.String() != "hello\n" {
			t.Errorf("%s: %q %q, %v", name, out.String(), errs.String(), err)
		}
	}
	big := strings.Repeat("0123456789abcdef\n", 20000)
	var out bytes.Buffer
	ex := executors(t, base+"/exec/default/api/echo?command=/bin/box&command=tee&input=1&output=1")["SPDY"]
	if err := ex.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: strings.NewReader(big), Stdout: &out}); err != nil {
		t.Error(err)
	}
	if n := strings.Count(out.String(), "got: 0123456789abcdef\n"); n != 20000 || !strings.HasSuffix(out.String(), "end of input\n") {
		t.Errorf("%d lines came back of 20000", n)
	}
	out.Reset()
	ex = executors(t, base+"/exec/default/api/echo?command=/bin/box&command=id&output=1&tty=1")["SPDY"]
	if err := ex.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Tty: true}); err != nil || !strings.HasSuffix(out.String(), "\r\n") {
		t.Errorf("terminal: %q, %v", out.String(), err)
	}
}

func checkAttach(t *testing.T, base string) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var out bytes.Buffer
	ex := executors(t, base+"/attach/default/api/in?input=1&output=1")["SPDY"]
	if err := ex.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: strings.NewReader("one\ntwo\n"), Stdout: &out}); err != nil {
		t.Error(err)
	}
	if out.String() != "got: one\ngot: two\nend of input\n" {
		t.Errorf("attached: %q", out.String())
	}
}

func checkForward(t *testing.T, base string) {
	u, err := url.Parse(base + "/portForward/default/api?user=good")
	if err != nil {
		t.Fatal(err)
	}
	rt, up, err := spdy.RoundTripperFor(&rest.Config{Host: u.Host})
	if err != nil {
		t.Fatal(err)
	}
	stop, ready := make(chan struct{}), make(chan struct{})
	fw, err := portforward.NewOnAddresses(spdy.NewDialer(up, &http.Client{Transport: rt}, "POST", u), []string{"127.0.0.1"}, []string{"0:9000"}, stop, ready, io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- fw.ForwardPorts() }()
	<-ready
	ports, err := fw.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(ports[0].Local))))
		if err != nil {
			t.Fatal(err)
		}
		msg := "ping " + strconv.Itoa(i) + "\n"
		if _, err := io.WriteString(conn, msg); err != nil {
			t.Fatal(err)
		}
		if got, err := bufio.NewReader(conn).ReadString('\n'); got != msg {
			t.Errorf("got %q, %v", got, err)
		}
		conn.Close()
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}
