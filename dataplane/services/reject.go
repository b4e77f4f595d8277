package services

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The nftables table is shared with the pod network; each part owns its chains.
const (
	tableName   = "podvine"
	chainPrefix = "services-"
	// rejectPriority runs before any ordinary filter of the host.
	rejectPriority = -10
	// icmpxPortUnreachable is NFT_REJECT_ICMPX_PORT_UNREACH: the code that suits the packet's family.
	icmpxPortUnreachable = 1
)

// installRejectRules makes the chains that answer marked packets with "port unreachable". Repeating it changes nothing.
func installRejectRules() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: tableName})
	priority := nftables.ChainPriorityRef(nftables.ChainPriority(rejectPriority))
	for name, hook := range map[string]*nftables.ChainHook{"input": nftables.ChainHookInput, "forward": nftables.ChainHookForward} {
		chain := c.AddChain(&nftables.Chain{
			Name: chainPrefix + name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: priority,
		})
		c.FlushChain(chain)
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(rejectMark), Xor: binaryutil.NativeEndian.PutUint32(0)},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(rejectMark)},
			&expr.Reject{Type: unix.NFT_REJECT_ICMPX_UNREACH, Code: icmpxPortUnreachable},
		}})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("install refusing nftables rules: %w", err)
	}
	return nil
}

// removeRejectRules deletes the chains, and the table if nothing else is left in it.
func removeRejectRules() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("list nftables chains: %w", err)
	}
	rest := 0
	var table *nftables.Table
	for _, chain := range chains {
		if chain.Table.Name != tableName {
			continue
		}
		table = chain.Table
		if chain.Name == chainPrefix+"input" || chain.Name == chainPrefix+"forward" {
			c.FlushChain(chain)
			c.DelChain(chain)
		} else {
			rest++
		}
	}
	if table == nil {
		return nil
	}
	if rest == 0 {
		c.DelTable(table)
	}
	if err := c.Flush(); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove refusing nftables rules: %w", err)
	}
	return nil
}
