// Package server puts the records of package dns behind CoreDNS: caching and forwarding of everything else, logging of
// errors, metrics, UDP and TCP on any number of addresses.
//
// Role: [Start] runs a server, [Server.Close] ends it. Upstreams are those of a resolv.conf, which is looked at again
// every few seconds; a change restarts CoreDNS in place, with its sockets open.
//
// Concurrency: a [Server] may be closed by any goroutine, once. CoreDNS keeps its plug-ins in tables of the process, so
// that a process has one server at a time.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"text/template"
	"time"

	"github.com/coredns/caddy"
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/plugin"

	// The plug-ins that the Corefile names; they register themselves.
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/metrics"
	mdns "github.com/miekg/dns"

	"github.com/podvine/podvine/dataplane/dns"
)

const (
	serverType = "dns"
	// resolvInterval is how often a change of the upstreams is looked for.
	resolvInterval = 3 * time.Second
	// upstreamsLimit is how many name servers of a resolv.conf are used; CoreDNS takes no more than 15.
	upstreamsLimit = 15
)

// Config is what a [Server] needs.
type Config struct {
	// Addrs are where to listen, all on one port.
	Addrs []netip.Addr
	Port  uint16
	// Metrics is where Prometheus may ask; the zero value is nowhere.
	Metrics netip.AddrPort
	// ResolvConf is the path of the file that names the upstreams, usually /etc/resolv.conf.
	ResolvConf string
	Logger     *slog.Logger
}

// Server is CoreDNS at work.
type Server struct {
	config  Config
	records *dns.Records
	cancel  context.CancelFunc
	group   sync.WaitGroup

	mu       sync.Mutex // guards what follows
	instance *caddy.Instance
	corefile string
}

// Start serves the records.
func Start(config Config, records *dns.Records) (*Server, error) {
	s := &Server{config: config, records: records}
	caddy.Quiet, dnsserver.Quiet = true, true
	if err := dnsserver.SetDirectives([]string{"bind", "prometheus", "errors", "cache", directive, "forward"}); err != nil {
		return nil, fmt.Errorf("order DNS plug-ins: %w", err)
	}
	if err := s.register(); err != nil {
		return nil, fmt.Errorf("register DNS plug-in: %w", err)
	}
	corefile, err := s.write()
	if err != nil {
		return nil, err
	}
	s.corefile = corefile
	if s.instance, err = caddy.Start(input(corefile)); err != nil {
		return nil, fmt.Errorf("start CoreDNS: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.group.Go(func() { s.follow(ctx) })
	return s, nil
}

// Close ends the server; questions that are being answered are finished.
func (s *Server) Close() error {
	s.cancel()
	s.group.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	problems := s.instance.ShutdownCallbacks()
	return errors.Join(append(problems, s.instance.Stop())...)
}

// follow restarts CoreDNS when the upstreams change.
func (s *Server) follow(ctx context.Context) {
	tick := time.NewTicker(resolvInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.refresh(); err != nil {
			s.config.Logger.Warn("cannot follow a change of upstream name servers", "err", err)
		}
	}
}

func (s *Server) refresh() error {
	corefile, err := s.write()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if corefile == s.corefile {
		return nil
	}
	instance, err := s.instance.Restart(input(corefile))
	if err != nil {
		return fmt.Errorf("restart CoreDNS: %w", err)
	}
	s.instance, s.corefile = instance, corefile
	return nil
}

func input(corefile string) caddy.Input {
	return caddy.CaddyfileInput{Contents: []byte(corefile), Filepath: "Corefile", ServerTypeName: serverType}
}

// Answers of the cluster's own names are not cached: they cost nothing, and a change is to be seen at once.
const corefileText = `.:{{.Port}} {
	bind{{range .Addrs}} {{.}}{{end}}
{{- if .Metrics.IsValid}}
	prometheus {{.Metrics}}
{{- end}}
	errors
	cache 30 {
		disable success {{.Domain}}
		disable denial {{.Domain}}
	}
	podvine
{{- if .Upstreams}}
	forward .{{range .Upstreams}} {{.}}{{end}} {
		max_concurrent 1000
	}
{{- end}}
}
`

func (s *Server) write() (string, error) {
	upstreams, err := s.upstreams()
	if err != nil {
		return "", err
	}
	parsed, err := template.New("Corefile").Parse(corefileText)
	if err != nil {
		return "", fmt.Errorf("parse Corefile: %w", err)
	}
	var out strings.Builder
	err = parsed.Execute(&out, map[string]any{
		"Port": s.config.Port, "Addrs": s.config.Addrs, "Metrics": s.config.Metrics, "Domain": s.records.Domain(), "Upstreams": upstreams,
	})
	if err != nil {
		return "", fmt.Errorf("write Corefile: %w", err)
	}
	return out.String(), nil
}

// upstreams reads the host's name servers, leaving out this server itself. Without a file there are none.
func (s *Server) upstreams() ([]string, error) {
	if _, err := os.Stat(s.config.ResolvConf); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	parsed, err := mdns.ClientConfigFromFile(s.config.ResolvConf)
	if err != nil {
		return nil, fmt.Errorf("read upstream name servers: %w", err)
	}
	var out []string
	for _, server := range parsed.Servers {
		addr, err := netip.ParseAddr(server)
		if err != nil || slices.Contains(s.config.Addrs, addr.Unmap()) || len(out) == upstreamsLimit {
			continue
		}
		out = append(out, netip.AddrPortFrom(addr, 53).String())
	}
	return out, nil
}

// register enters the plug-in into CoreDNS' table for this server.
func (s *Server) register() error {
	err := dnsserver.Register()
	caddy.RegisterPlugin(directive, caddy.Plugin{ServerType: serverType, Action: func(c *caddy.Controller) error {
		dnsserver.GetConfig(c).AddPlugin(func(next plugin.Handler) plugin.Handler {
			return &handler{records: s.records, next: next}
		})
		return nil
	}})
	return err
}
