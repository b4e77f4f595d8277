package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/podvine/podvine/dataplane/dns"
	"github.com/podvine/podvine/dataplane/services"
)

// patience is how long a test waits for what happens at once.
const patience = 10 * time.Second

// recorder is a proxy and a name server that remember. It fails as often as it is told to.
type recorder struct {
	mu       sync.Mutex
	failures int
	sets     int
	services map[string]services.Service
	names    map[string]dns.Service
	changed  chan struct{} // one waits for it at the most
}

func newRecorder(failures int) *recorder {
	return &recorder{failures: failures, changed: make(chan struct{}, 1)}
}

// unlock lets others in, who may wait for what was done.
func (r *recorder) unlock() {
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *recorder) Set(_ context.Context, all []services.Service) error {
	r.mu.Lock()
	defer r.unlock()
	if r.failures > 0 {
		r.failures--
		return errors.New("no luck")
	}
	r.sets++
	r.services = map[string]services.Service{}
	for _, s := range all {
		r.services[s.Name] = s
	}
	return nil
}

func (r *recorder) Apply(_ context.Context, changes []services.Change) error {
	r.mu.Lock()
	defer r.unlock()
	if r.failures > 0 {
		r.failures--
		return errors.New("no luck")
	}
	for _, c := range changes {
		if c.Service == nil {
			delete(r.services, c.Name)
		} else {
			r.services[c.Name] = *c.Service
		}
	}
	return nil
}

type nameRecorder struct{ *recorder }

func (r nameRecorder) Set(all []dns.Service) {
	r.mu.Lock()
	defer r.unlock()
	r.names = map[string]dns.Service{}
	for _, s := range all {
		r.names[s.Key()] = s
	}
}

func (r nameRecorder) Apply(u dns.Update) {
	r.mu.Lock()
	defer r.unlock()
	for _, key := range u.Deletes {
		delete(r.names, key)
	}
	for _, s := range u.Upserts {
		r.names[s.Key()] = s
	}
}

func (r *recorder) eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	end := time.After(patience)
	for {
		r.mu.Lock()
		ok := condition()
		state := fmt.Sprintf("%+v %+v", r.services, r.names)
		r.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-r.changed:
		case <-end:
			t.Fatalf("not %s: %s", what, state)
		}
	}
}

func webObject() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: corev1.ServiceSpec{
			ClusterIP: "10.96.0.80", ClusterIPs: []string{"10.96.0.80", "fd00::80"},
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, NodePort: 30080}},
		},
	}
}

func webSlice(node string, addresses ...string) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Protocol: new(corev1.ProtocolTCP), Port: new(int32(8080))}},
	}
	for _, a := range addresses {
		slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}, NodeName: new(node)})
	}
	return slice
}

func TestSourceFollowsTheCluster(t *testing.T) {
	client := fake.NewClientset(webObject(), webSlice("here", "10.244.0.5"), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}})
	factory := informers.NewSharedInformerFactory(client, 0)
	// The first full state is refused once: it must come again.
	r := newRecorder(1)
	registry := prometheus.NewRegistry()
	source, err := New(Config{
		Informers: factory, NodeName: "here", Proxy: r, Names: nameRecorder{r}, Metrics: registry, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- source.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		factory.Shutdown()
	})
	factory.Start(ctx.Done())
	want := []services.Endpoint{{Addr: netip.MustParseAddrPort("10.244.0.5:8080"), Ready: true, Serving: true, Node: "here", Local: true}}
	r.eventually(t, "served", func() bool {
		s := r.services["default/web"]
		return r.sets == 1 && len(s.Ports) == 1 && slices.Equal(s.Ports[0].Endpoints, want) && len(r.names["default/web"].ClusterIPs) == 2
	})

	r.mu.Lock()
	r.failures = 2
	r.mu.Unlock()
	moved := webSlice("there", "10.244.1.6")
	moved.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: time.Now().Format(time.RFC3339Nano)}
	if _, err := client.DiscoveryV1().EndpointSlices("default").Update(ctx, moved, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	want = []services.Endpoint{{Addr: netip.MustParseAddrPort("10.244.1.6:8080"), Ready: true, Serving: true, Node: "there"}}
	r.eventually(t, "moved", func() bool { return slices.Equal(r.services["default/web"].Ports[0].Endpoints, want) })

	if err := client.CoreV1().Services("default").Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	r.eventually(t, "gone", func() bool { return len(r.services) == 0 && len(r.names) == 0 })
	if r.sets != 1 {
		t.Errorf("%d full states", r.sets)
	}
	expectMetrics(t, registry, map[string]float64{
		"kubeproxy_network_programming_duration_seconds": 1, "kubeproxy_sync_proxy_rules_service_changes_total": 2,
		"kubeproxy_sync_proxy_rules_endpoint_changes_total": 2, "kubeproxy_sync_proxy_rules_service_changes_pending": 0,
		"kubeproxy_sync_proxy_rules_endpoint_changes_pending": 0,
	})
}

// expectMetrics compares values, and counts of histograms.
func expectMetrics(t *testing.T, registry *prometheus.Registry, want map[string]float64) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			got[family.GetName()] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for name, value := range want {
		if seen, ok := got[name]; !ok || seen != value {
			t.Errorf("%s is %v, want %v", name, seen, value)
		}
	}
}

// Only what began since this process started is timed, and each change once.
func TestTriggerTimes(t *testing.T) {
	with := func(text string) *discoveryv1.EndpointSlice {
		slice := webSlice("n1", "10.244.0.1")
		slice.Annotations = map[string]string{corev1.EndpointsLastChangeTriggerTime: text}
		return slice
	}
	const first, second = "2026-01-02T03:04:05Z", "2026-01-02T03:04:06.5Z"
	for name, test := range map[string]struct {
		old, fresh any
		want       string
	}{
		"new":       {nil, with(first), first},
		"changed":   {with(first), with(second), second},
		"unchanged": {with(first), with(first), ""},
		"none":      {with(first), webSlice("n1"), ""},
		"nonsense":  {nil, with("yesterday"), ""},
		"deleted":   {with(first), nil, ""},
	} {
		got := triggerOf(test.old, test.fresh)
		if test.want == "" && len(got) == 0 {
			continue
		}
		if len(got) != 1 || got[0].Format(time.RFC3339Nano) != test.want {
			t.Errorf("%s: %v, want %q", name, got, test.want)
		}
	}
	var all changes
	for range maxTriggers + 5 {
		all.add(changes{slices: 1, triggers: []time.Time{time.Now()}})
	}
	if len(all.triggers) != maxTriggers || all.slices != maxTriggers+5 {
		t.Errorf("%d triggers of %d changes wait, the limit is %d", len(all.triggers), all.slices, maxTriggers)
	}
	registry, m := prometheus.NewRegistry(), newMetrics()
	registry.MustRegister(m.programming)
	m.programmed([]time.Time{m.started.Add(-time.Hour), time.Now()})
	expectMetrics(t, registry, map[string]float64{"kubeproxy_network_programming_duration_seconds": 1})
}

// A view without this node is none: what a restarted replica has before it has caught up must not take services away.
func TestViewWithoutThisNodeChangesNothing(t *testing.T) {
	client := fake.NewClientset()
	factory := informers.NewSharedInformerFactory(client, 0)
	r := newRecorder(0)
	r.services, r.names = map[string]services.Service{"default/kept": {Name: "default/kept"}}, map[string]dns.Service{"default/kept": {}}
	source, err := New(Config{Informers: factory, NodeName: "here", Proxy: r, Names: nameRecorder{r}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer factory.Shutdown()
	defer cancel()
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), source.synced...) {
		t.Fatal("no sync")
	}
	source.all = true
	nowhere := place{node: "\x00"}
	if here, err := source.step(ctx, nowhere); err != nil || here != nowhere || r.sets != 0 || len(r.services) != 1 || len(r.names) != 1 {
		t.Errorf("%+v, %v: %d full states, %v and %v are left", here, err, r.sets, r.services, r.names)
	}
	for _, create := range []func() error{
		func() error {
			_, err := client.CoreV1().Services("default").Create(ctx, webObject(), metav1.CreateOptions{})
			return err
		},
		func() error {
			_, err := client.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}}, metav1.CreateOptions{})
			return err
		},
	} {
		if err := create(); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() { done <- source.Run(ctx) }()
	r.eventually(t, "served", func() bool { return r.sets == 1 && len(r.services) == 1 && r.services["default/web"].Name != "" })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestConvert(t *testing.T) {
	object := webObject()
	object.Annotations = map[string]string{AlgorithmAnnotation: "round-robin"}
	object.Spec.Type = corev1.ServiceTypeLoadBalancer
	object.Spec.ExternalIPs = []string{"192.0.2.7"}
	object.Spec.LoadBalancerSourceRanges = []string{"10.0.0.1/8", " fd00::/8"}
	object.Spec.HealthCheckNodePort = 32000
	object.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	object.Spec.InternalTrafficPolicy = new(corev1.ServiceInternalTrafficPolicyLocal)
	object.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
	object.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: new(int32(60))}}
	object.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.8"}, {IP: "192.0.2.9", IPMode: new(corev1.LoadBalancerIPModeProxy)}}
	got := convert(object, nil, place{node: "here"})
	want := services.Service{
		Name: "default/web", ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.80"), netip.MustParseAddr("fd00::80")},
		ExternalIPs: []netip.Addr{netip.MustParseAddr("192.0.2.7")}, LoadBalancerIPs: []netip.Addr{netip.MustParseAddr("192.0.2.8")},
		Sources:   []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")},
		Ports:     []services.Port{{Name: "http", Protocol: services.TCP, Port: 80, NodePort: 30080}},
		Algorithm: services.RoundRobin, AffinityTimeout: time.Minute, InternalLocal: true, ExternalLocal: true, HealthCheckPort: 32000,
	}
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
		t.Errorf("converted to\n%+v, want\n%+v", got, want)
	}
}

func TestWhatIsNotServedIsSaidOnceByOneNode(t *testing.T) {
	object := webObject()
	object.Annotations = map[string]string{AlgorithmAnnotation: "fairest"}
	object.Spec.Ports = append(object.Spec.Ports, corev1.ServicePort{Name: "sctp", Protocol: corev1.ProtocolSCTP, Port: 81})
	for _, test := range []struct {
		node   string
		events int
	}{{"a", 1}, {"b", 0}} {
		client := fake.NewClientset(object, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "b"}})
		factory := informers.NewSharedInformerFactory(client, 0)
		events := record.NewFakeRecorder(10)
		source, err := New(Config{Informers: factory, NodeName: test.node, Proxy: newRecorder(0), Events: events, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		factory.Start(ctx.Done())
		if !cache.WaitForCacheSync(ctx.Done(), source.synced...) {
			t.Fatal("no sync")
		}
		for range 2 {
			if err := source.full(ctx, place{node: test.node}); err != nil {
				t.Fatal(err)
			}
		}
		cancel()
		factory.Shutdown()
		if got := len(events.Events); got != test.events {
			t.Fatalf("node %s made %d events, want %d", test.node, got, test.events)
		}
		if test.events == 0 {
			continue
		}
		want := "Warning NotServedAsAsked spec.ports[1].protocol: SCTP is not served, only TCP and UDP are; " +
			"metadata.annotations[podvine.io/load-balancing]: there is no \"fairest\", served at random"
		if got := <-events.Events; got != want {
			t.Errorf("event %q, want %q", got, want)
		}
	}
}

func TestServed(t *testing.T) {
	tests := map[string]struct {
		change func(*corev1.Service)
		want   bool
	}{
		"ordinary":      {func(*corev1.Service) {}, true},
		"headless":      {func(s *corev1.Service) { s.Spec.ClusterIP = "None" }, false},
		"no address":    {func(s *corev1.Service) { s.Spec.ClusterIP = "" }, false},
		"external name": {func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }, false},
		"another proxy": {func(s *corev1.Service) { s.Labels = map[string]string{proxyNameLabel: "other"} }, false},
	}
	for name, test := range tests {
		object := webObject()
		test.change(object)
		if got := served(object); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestHints(t *testing.T) {
	zones := func(names ...string) *discoveryv1.EndpointHints {
		h := &discoveryv1.EndpointHints{}
		for _, n := range names {
			h.ForZones = append(h.ForZones, discoveryv1.ForZone{Name: n})
		}
		return h
	}
	node := func(name string) *discoveryv1.EndpointHints {
		return &discoveryv1.EndpointHints{ForNodes: []discoveryv1.ForNode{{Name: name}}, ForZones: zones("a").ForZones}
	}
	tests := map[string]struct {
		here  place
		hints []*discoveryv1.EndpointHints
		want  []bool // elsewhere
	}{
		"none":                  {place{"n1", "a"}, []*discoveryv1.EndpointHints{nil, nil}, []bool{false, false}},
		"our zone":              {place{"n1", "a"}, []*discoveryv1.EndpointHints{zones("a"), zones("b")}, []bool{false, true}},
		"one without":           {place{"n1", "a"}, []*discoveryv1.EndpointHints{zones("a"), nil}, []bool{false, false}},
		"none for our zone":     {place{"n1", "c"}, []*discoveryv1.EndpointHints{zones("a"), zones("b")}, []bool{false, false}},
		"zone unknown":          {place{"n1", ""}, []*discoveryv1.EndpointHints{zones("a"), zones("b")}, []bool{false, false}},
		"our node":              {place{"n1", "a"}, []*discoveryv1.EndpointHints{node("n1"), node("n2")}, []bool{false, true}},
		"not our node but zone": {place{"n3", "a"}, []*discoveryv1.EndpointHints{node("n1"), node("n2")}, []bool{false, false}},
	}
	for name, test := range tests {
		slice := webSlice("n1", "10.244.0.1", "10.244.0.2")
		for i, h := range test.hints {
			slice.Endpoints[i].Hints = h
		}
		got := endpoints(&webObject().Spec.Ports[0], []*discoveryv1.EndpointSlice{slice}, test.here)
		for i := range got {
			if got[i].Elsewhere != test.want[i] {
				t.Errorf("%s: endpoint %d elsewhere %v, want %v", name, i, got[i].Elsewhere, test.want[i])
			}
		}
	}
}

func TestEndpointConditions(t *testing.T) {
	yes, no := new(true), new(false)
	tests := []struct {
		conditions                  discoveryv1.EndpointConditions
		ready, serving, terminating bool
	}{
		{discoveryv1.EndpointConditions{}, true, true, false},
		{discoveryv1.EndpointConditions{Ready: no}, false, false, false},
		{discoveryv1.EndpointConditions{Ready: no, Serving: yes, Terminating: yes}, false, true, true},
		{discoveryv1.EndpointConditions{Ready: yes, Serving: yes, Terminating: no}, true, true, false},
	}
	for _, test := range tests {
		slice := webSlice("n1", "10.244.0.1")
		slice.Endpoints[0].Conditions = test.conditions
		got := endpoints(&webObject().Spec.Ports[0], []*discoveryv1.EndpointSlice{slice}, place{})[0]
		if got.Ready != test.ready || got.Serving != test.serving || got.Terminating != test.terminating {
			t.Errorf("%+v became %+v", test.conditions, got)
		}
	}
}

func TestNames(t *testing.T) {
	headless := webObject()
	headless.Spec.ClusterIP, headless.Spec.ClusterIPs = "None", []string{"None"}
	slice := webSlice("n1", "10.244.0.1", "10.244.0.2", "10.244.0.3")
	slice.Endpoints[0].Hostname = new("web-0")
	slice.Endpoints[2].Conditions.Ready = new(false)
	got, ok := names(headless, []*discoveryv1.EndpointSlice{slice})
	if !ok || len(got.ClusterIPs) != 0 || len(got.Endpoints) != 2 || got.Endpoints[0].Hostname != "web-0" || got.Endpoints[1].Ports[0].Port != 8080 {
		t.Errorf("headless became %+v", got)
	}
	alias := webObject()
	alias.Spec.Type, alias.Spec.ExternalName = corev1.ServiceTypeExternalName, "example.org"
	if got, ok := names(alias, nil); !ok || got.ExternalName != "example.org" {
		t.Errorf("external name became %+v", got)
	}
	if got, ok := names(webObject(), []*discoveryv1.EndpointSlice{slice}); !ok || len(got.ClusterIPs) != 2 || len(got.Endpoints) != 0 || got.Ports[0].Protocol != "tcp" {
		t.Errorf("cluster IP became %+v", got)
	}
	pending := webObject()
	pending.Spec.ClusterIP, pending.Spec.ClusterIPs = "", nil
	if got, ok := names(pending, nil); ok {
		t.Errorf("a service without address became %+v", got)
	}
}
