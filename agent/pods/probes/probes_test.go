package probes

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func TestTally(t *testing.T) {
	p := &corev1.Probe{SuccessThreshold: 2, FailureThreshold: 3}
	var tally Tally
	var got []string
	for _, ok := range []bool{true, true, false, false, true, false, false, false} {
		got = append(got, map[Verdict]string{Undecided: "-", Passed: "P", Failed: "F"}[tally.Add(p, ok)])
	}
	if s := strings.Join(got, ""); s != "-P-----F" {
		t.Errorf("verdicts %s", s)
	}
}

// server answers by path and returns a Target on this machine.
func server(t *testing.T) (Target, intstr.IntOrString) {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("User-Agent") != userAgent || r.Header.Get("X-Probe") != "1" {
			http.Error(w, "headers", http.StatusBadRequest)
		}
	})
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
	})
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	addr, ok := srv.Listener.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatal("no TCP address")
	}
	return Target{Container: &corev1.Container{Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: int32(addr.Port)}}}, IP: "127.0.0.1"}, intstr.FromString("web")
}

func TestHTTPAndTCP(t *testing.T) {
	target, port := server(t)
	get := func(path string) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: port, HTTPHeaders: []corev1.HTTPHeader{{Name: "X-Probe", Value: "1"}}}}}
	}
	tcp := func(p intstr.IntOrString) *corev1.Probe {
		return &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: p}}}
	}
	for name, c := range map[string]struct {
		probe *corev1.Probe
		ok    bool
	}{
		"answer": {get("/ok"), true}, "error": {get("/absent"), false}, "redirect elsewhere counts as well": {get("/away"), true},
		"open port": {tcp(port), true}, "closed port": {tcp(intstr.FromInt32(1)), false}, "unknown port": {tcp(intstr.FromString("nope")), false},
	} {
		if ok, out := target.Check(context.Background(), c.probe); ok != c.ok {
			t.Errorf("%s: %v, %q", name, ok, out)
		}
	}
}
