package services

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const healthReadTimeout = 5 * time.Second

// healthServers answer load balancers on the services' health check ports: 200 where the node has endpoints of its own.
type healthServers struct {
	log *slog.Logger

	mu      sync.Mutex
	servers map[string]*healthServer // by service
}

type healthServer struct {
	service string
	port    uint16
	local   atomic.Int64
	server  *http.Server
	done    chan struct{}
}

func newHealthServers(log *slog.Logger) *healthServers {
	return &healthServers{log: log, servers: map[string]*healthServer{}}
}

// apply starts, updates and stops servers. A port in use is an error of its service; the others are served.
func (h *healthServers) apply(changes []Change) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var problems []error
	for _, c := range changes {
		var port uint16
		if c.Service != nil && c.Service.ExternalLocal {
			port = c.Service.HealthCheckPort
		}
		current := h.servers[c.Name]
		if current != nil && current.port != port {
			problems = append(problems, current.stop())
			delete(h.servers, c.Name)
			current = nil
		}
		if port == 0 {
			continue
		}
		if current == nil {
			started, err := startHealthServer(c.Name, port)
			if err != nil {
				problems = append(problems, err)
				continue
			}
			h.servers[c.Name], current = started, started
		}
		current.local.Store(int64(localEndpoints(c.Service)))
	}
	return errors.Join(problems...)
}

func (h *healthServers) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var problems []error
	for name, s := range h.servers {
		problems = append(problems, s.stop())
		delete(h.servers, name)
	}
	return errors.Join(problems...)
}

func startHealthServer(service string, port uint16) (*healthServer, error) {
	listener, err := net.Listen("tcp", ":"+strconv.Itoa(int(port)))
	if err != nil {
		return nil, fmt.Errorf("serve health check of service %s: %w", service, err)
	}
	h := &healthServer{service: service, port: port, done: make(chan struct{})}
	h.server = &http.Server{Handler: h, ReadTimeout: healthReadTimeout, WriteTimeout: healthReadTimeout}
	go func() {
		defer close(h.done)
		// Serve ends with the listener; there is nobody to tell.
		_ = h.server.Serve(listener)
	}()
	return h, nil
}

func (h *healthServer) stop() error {
	err := h.server.Close()
	<-h.done
	return err
}

// ServeHTTP answers as load balancers know it from Kubernetes.
func (h *healthServer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	namespace, name, _ := strings.Cut(h.service, "/")
	local := h.local.Load()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.FormatInt(local, 10))
	if local == 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	body := map[string]any{
		"service":             map[string]string{"namespace": namespace, "name": name},
		"localEndpoints":      local,
		"serviceProxyHealthy": true,
	}
	// The client has gone if this fails.
	_ = json.NewEncoder(w).Encode(body)
}

// localEndpoints counts the ready endpoints on this node: of a dual-stack service those of the family that has more, for
// each pod is there once in either.
func localEndpoints(s *Service) int {
	seen := map[bool]map[netip.Addr]bool{false: {}, true: {}}
	for _, p := range s.Ports {
		for _, e := range p.Endpoints {
			if addr := e.Addr.Addr().Unmap(); e.Ready && e.Local {
				seen[addr.Is6()][addr] = true
			}
		}
	}
	return max(len(seen[false]), len(seen[true]))
}
