package server

import (
	"context"
	"strings"

	"github.com/coredns/coredns/plugin"
	"github.com/coredns/coredns/plugin/pkg/upstream"
	"github.com/coredns/coredns/request"
	mdns "github.com/miekg/dns"

	"github.com/podvine/podvine/dataplane/dns"
)

const directive = "podvine"

// handler answers from the records and passes on what is not theirs.
type handler struct {
	records *dns.Records
	next    plugin.Handler
}

// Name is part of CoreDNS' plug-in interface.
func (h *handler) Name() string { return directive }

// Ready tells that the handler can answer at any time.
func (h *handler) Ready() bool { return true }

// ServeDNS is part of CoreDNS' plug-in interface.
func (h *handler) ServeDNS(ctx context.Context, w mdns.ResponseWriter, r *mdns.Msg) (int, error) {
	state := request.Request{W: w, Req: r}
	found := h.records.Lookup(state.QName(), state.QType())
	if found.Status == dns.NotMine {
		if h.next == nil {
			return mdns.RcodeServerFailure, nil
		}
		return plugin.NextOrFailure(h.Name(), h.next, ctx, w, r)
	}
	reply := new(mdns.Msg)
	reply.SetReply(r)
	reply.Authoritative = true
	reply.Answer, reply.Extra = found.RRs, found.Extra
	if found.Status == dns.NoName {
		reply.Rcode = mdns.RcodeNameError
	}
	if found.Alias != "" && state.QType() != mdns.TypeCNAME {
		h.followAlias(ctx, state, found.Alias, reply)
	}
	if len(reply.Answer) == 0 {
		reply.Ns = []mdns.RR{h.records.SOA()}
	}
	state.SizeAndDo(reply)
	// The asker has gone if this fails; CoreDNS counts the answer either way.
	if err := w.WriteMsg(state.Scrub(reply)); err != nil {
		return mdns.RcodeServerFailure, err
	}
	return reply.Rcode, nil
}

// followAlias adds what an external name leads to, if that can be found; the alias alone is an answer too.
func (h *handler) followAlias(ctx context.Context, state request.Request, target string, reply *mdns.Msg) {
	answer, err := upstream.New().Lookup(ctx, state, target, state.QType())
	if err != nil || answer == nil {
		return
	}
	for _, rr := range answer.Answer {
		if !strings.EqualFold(rr.Header().Name, state.QName()) {
			reply.Answer = append(reply.Answer, rr)
		}
	}
}
