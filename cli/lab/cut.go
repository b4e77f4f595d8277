package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// cutTable is the lab's own table, in its switch's namespace.
const cutTable = "podvine_lab"

// Cut is a direction in which the switch carries nothing. An empty name stands for every host.
type Cut struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Cut has the switch carry nothing from one host to the other, and nothing back unless oneWay. The hosts notice nothing
// but silence. How the lab itself reaches them, by published ports and exec, stays open.
func (l *Lab) Cut(from, to *Host, oneWay bool) error {
	if from.Name == to.Name {
		return fmt.Errorf("cut %s from itself: name two hosts", from.Name)
	}
	cuts := []Cut{{from.Name, to.Name}}
	if !oneWay {
		cuts = append(cuts, Cut{to.Name, from.Name})
	}
	return l.setCuts(append(slices.Clone(l.Cuts), cuts...))
}

// Isolate cuts the host from all others.
func (l *Lab) Isolate(host *Host) error {
	return l.setCuts(append(slices.Clone(l.Cuts), Cut{From: host.Name}, Cut{To: host.Name}))
}

// Heal mends every cut.
func (l *Lab) Heal() error { return l.setCuts(nil) }

// setCuts makes the switch's rules those of the cuts, in one step, and remembers them.
func (l *Lab) setCuts(cuts []Cut) error {
	handle, err := netns.GetFromName(l.namespaceName())
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cut the network: lab %s is not up", l.Name)
	}
	if err != nil {
		return fmt.Errorf("open the lab's network: %w", err)
	}
	defer handle.Close()
	kept := withoutRepeats(cuts)
	if err := applyCuts(handle, kept); err != nil {
		return fmt.Errorf("cut the network of lab %s: %w", l.Name, err)
	}
	l.Cuts = kept
	return l.save()
}

func withoutRepeats(cuts []Cut) []Cut {
	var kept []Cut
	for _, cut := range cuts {
		if !slices.Contains(kept, cut) {
			kept = append(kept, cut)
		}
	}
	return kept
}

func applyCuts(namespace netns.NsHandle, cuts []Cut) error {
	rules, err := nftables.New(nftables.WithNetNSFd(int(namespace)))
	if err != nil {
		return err
	}
	table := &nftables.Table{Family: nftables.TableFamilyBridge, Name: cutTable}
	// Adding it first makes its removal succeed, and all is one transaction.
	rules.AddTable(table)
	rules.DelTable(table)
	if len(cuts) > 0 {
		rules.AddTable(table)
		chain := rules.AddChain(&nftables.Chain{
			Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
		})
		for _, cut := range cuts {
			rules.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: dropExpressions(cut)})
		}
	}
	return rules.Flush()
}

func dropExpressions(cut Cut) []expr.Any {
	var expressions []expr.Any
	port := func(key expr.MetaKey, host string) {
		if host == "" {
			return
		}
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, (&Host{Name: host}).cableName())
		expressions = append(expressions, &expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name})
	}
	port(expr.MetaKeyIIFNAME, cut.From)
	port(expr.MetaKeyOIFNAME, cut.To)
	return append(expressions, &expr.Verdict{Kind: expr.VerdictDrop})
}
