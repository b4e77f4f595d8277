package podnet

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/dataplane/internal/nftable"
)

const masqueradeChain = "podnet-postrouting"

// installMasquerade makes traffic of pods leave the cluster with the node's address. Repeating it replaces the rules in
// one transaction.
func installMasquerade(node, cluster []netip.Prefix) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: nftable.Name})
	chain := c.AddChain(&nftables.Chain{
		Name: masqueradeChain, Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource,
	})
	c.FlushChain(chain)
	for _, from := range node {
		for _, to := range cluster {
			if from.Addr().Is4() != to.Addr().Is4() {
				continue
			}
			exprs := append(matchPrefix(from, true), matchPrefix(to, false)...)
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(exprs, &expr.Verdict{Kind: expr.VerdictReturn})})
		}
		exprs := append(matchPrefix(from, true), notToPods()...)
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(exprs, &expr.Masq{})})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("install masquerading: %w", err)
	}
	return nil
}

// matchPrefix matches a packet's source or destination.
func matchPrefix(p netip.Prefix, source bool) []expr.Any {
	family, offset := byte(unix.NFPROTO_IPV4), uint32(16)
	if source {
		offset = 12
	}
	if p.Addr().Is6() {
		family, offset = unix.NFPROTO_IPV6, 24
		if source {
			offset = 8
		}
	}
	size := uint32(p.Addr().BitLen() / 8)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()), Xor: make([]byte, size)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

// notToPods spares what leaves through a link of ours.
func notToPods() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte(linkPrefix)},
	}
}
