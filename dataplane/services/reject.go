package services

import (
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/podvine/podvine/dataplane/internal/nftable"
)

const (
	rejectChain = "services-prerouting"
	// rejectPriority runs before connection tracking, address translation and any ordinary filter of the host.
	rejectPriority = -310
	// icmpxPortUnreachable is NFT_REJECT_ICMPX_PORT_UNREACH: the code that suits the packet's family.
	icmpxPortUnreachable = 1
)

// installRejectRules makes the chain that refuses marked packets before they are routed, for to many service addresses
// there is no route: TCP with a reset, which ends connections that nobody knows any more too, the rest with "port
// unreachable". Repeating it changes nothing.
func installRejectRules() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: nftable.Name})
	chain := c.AddChain(&nftables.Chain{
		Name: rejectChain, Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookPrerouting,
		Priority: nftables.ChainPriorityRef(nftables.ChainPriority(rejectPriority)),
	})
	c.FlushChain(chain)
	marked := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(rejectMark), Xor: binaryutil.NativeEndian.PutUint32(0)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(rejectMark)},
	}
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: slices.Concat(marked, []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
		&expr.Reject{Type: unix.NFT_REJECT_TCP_RST},
	})})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: slices.Concat(marked, []expr.Any{
		&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: icmpxPortUnreachable},
	})})
	if err := c.Flush(); err != nil {
		return fmt.Errorf("install refusing nftables rules: %w", err)
	}
	return nil
}
