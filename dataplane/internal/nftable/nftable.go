// Package nftable holds what the parts of the data plane do alike with the host's nftables: they share one table, in which each
// owns its chains.
package nftable

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Name is that of the table, of the family inet.
const Name = "podvine"

// RemoveChain deletes a chain with its rules, and the table if nothing else is left in it. It is no error that it is not there.
func RemoveChain(name string) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("open nftables: %w", err)
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("list nftables chains: %w", err)
	}
	var table *nftables.Table
	rest := 0
	for _, chain := range chains {
		switch {
		case chain.Table.Name != Name:
		case chain.Name == name:
			table = chain.Table
			c.FlushChain(chain)
			c.DelChain(chain)
		default:
			table = chain.Table
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
		return fmt.Errorf("remove nftables chain %s: %w", name, err)
	}
	return nil
}
