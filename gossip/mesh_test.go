package gossip_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/podvine/podvine/gossip"
	"github.com/podvine/podvine/gossip/memnet"
)

// node is one member of a mesh in virtual time.
type node struct {
	*gossip.Mesh
	transport *memnet.Transport
	address   netip.AddrPort
}

func address(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 7946)
}

func start(t *testing.T, network *memnet.Network, id string, at netip.AddrPort, dir string, key []byte) node {
	t.Helper()
	transport := network.Listen(at)
	mesh, err := gossip.Start(gossip.Config{
		ID: id, Transport: transport, Profile: gossip.ProfileLAN, Dir: dir, Key: key, Log: slog.New(slog.DiscardHandler),
		Tags: gossip.Tags{Role: gossip.RoleEdge, APIPort: 6443, PeerPort: 7947, Version: "v0.0.1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	return node{mesh, transport, at}
}

// mesh starts n members that know each other.
func mesh(t *testing.T, network *memnet.Network, n int) []node {
	t.Helper()
	key := gossip.NewKey()
	nodes := make([]node, n)
	for i := range nodes {
		nodes[i] = start(t, network, fmt.Sprintf("node-%d", i), address(i+1), t.TempDir(), key)
		if i > 0 {
			if _, err := nodes[i].Join([]string{nodes[0].address.String()}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // a member refuses the 128th exchange at a time, and on one core the earlier ones are still at work
		}
	}
	// Gossip alone leaves a member in a hundred without one of the others until they next exchange their whole state, which
	// takes minutes.
	for _, n := range nodes[1:] {
		if _, err := n.Join([]string{nodes[0].address.String()}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
	}
	await(t, time.Minute, "all members to know each other", func() bool {
		for _, n := range nodes {
			if alive(n) != len(nodes) {
				return false
			}
		}
		return true
	})
	return nodes
}

func alive(n node) int {
	count := 0
	for _, member := range n.Members() {
		if member.State == gossip.StateAlive {
			count++
		}
	}
	return count
}

func member(n node, id string) gossip.Member {
	for _, member := range n.Members() {
		if member.ID == id {
			return member
		}
	}
	return gossip.Member{}
}

// await polls in virtual time and returns how much of it passed.
func await(t *testing.T, limit time.Duration, what string, done func() bool) time.Duration {
	t.Helper()
	const step = 20 * time.Millisecond
	begun := time.Now()
	for !done() {
		if time.Since(begun) > limit {
			t.Fatalf("waited %v for %s", limit, what)
		}
		time.Sleep(step)
	}
	return time.Since(begun)
}

// shut ends all members, and lets what memberlist leaves behind end before the bubble does.
func shut(t *testing.T, nodes ...node) {
	t.Helper()
	for _, n := range nodes {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
	time.Sleep(time.Minute)
}

func TestDeathIsKnownToAllWithinBudget(t *testing.T) {
	for _, c := range []struct {
		members int
		budget  time.Duration
	}{{3, 1500 * time.Millisecond}, {10, 1500 * time.Millisecond}, {100, 3 * time.Second}} {
		if c.members > largest {
			continue
		}
		t.Run(fmt.Sprint(c.members), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				nodes := mesh(t, new(memnet.Network), c.members)
				victim, rest := nodes[c.members-1], nodes[:c.members-1]
				victim.transport.SetCut(true)
				took := await(t, time.Minute, "the death to be known to all", func() bool {
					for _, n := range rest {
						if member(n, "node-"+fmt.Sprint(c.members-1)).State != gossip.StateDead {
							return false
						}
					}
					return true
				})
				if took > c.budget {
					t.Errorf("the death was known to all after %v, the budget is %v", took, c.budget)
				}
				shut(t, nodes...)
			})
		})
	}
}

func TestCutMemberComesBackWithItsTags(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := mesh(t, new(memnet.Network), 3)
		nodes[2].transport.SetCut(true)
		await(t, time.Minute, "the death", func() bool { return member(nodes[0], "node-2").State == gossip.StateDead })
		died := member(nodes[0], "node-2").Since
		time.Sleep(30 * time.Second)
		nodes[2].transport.SetCut(false)
		await(t, time.Minute, "the return", func() bool { return alive(nodes[0]) == 3 && alive(nodes[1]) == 3 && alive(nodes[2]) == 3 })
		back := member(nodes[0], "node-2")
		if back.Tags.APIPort != 6443 || back.Tags.Role != gossip.RoleEdge {
			t.Errorf("tags after the return: %+v", back.Tags)
		}
		if !back.Since.After(died) {
			t.Errorf("the return is dated %v, the death %v", back.Since, died)
		}
		shut(t, nodes...)
	})
}

func TestForgottenMemberIsGoneEverywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := mesh(t, new(memnet.Network), 3)
		nodes[2].transport.SetCut(true)
		await(t, time.Minute, "the death", func() bool {
			return member(nodes[0], "node-2").State == gossip.StateDead && member(nodes[1], "node-2").State == gossip.StateDead
		})
		if err := nodes[0].Forget("node-2"); err != nil {
			t.Fatal(err)
		}
		await(t, time.Minute, "both to forget it", func() bool { return len(nodes[0].Members()) == 2 && len(nodes[1].Members()) == 2 })
		if err := nodes[0].Forget("node-1"); err == nil {
			t.Error("a living member may be forgotten")
		}
		time.Sleep(10 * time.Second)
		if alive(nodes[0]) != 2 || alive(nodes[1]) != 2 {
			t.Errorf("a living member was forgotten: %+v", nodes[0].Members())
		}
		shut(t, nodes...)
	})
}

func TestTagsChangeLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := mesh(t, new(memnet.Network), 2)
		changed := nodes[1].Subscribe(t.Context())
		<-changed
		if err := nodes[0].SetTags(gossip.Tags{Role: gossip.RoleVoter, APIPort: 6443}); err != nil {
			t.Fatal(err)
		}
		<-changed
		if role := member(nodes[1], "node-0").Tags.Role; role != gossip.RoleVoter {
			t.Errorf("role seen by the other member is %v", role)
		}
		shut(t, nodes...)
	})
}

func TestRestartedMemberRejoinsAtAnotherAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, key := new(memnet.Network), gossip.NewKey()
		dir := t.TempDir()
		first := start(t, network, "first", address(1), t.TempDir(), key)
		second := start(t, network, "second", address(2), dir, key)
		if _, err := second.Join([]string{first.address.String()}); err != nil {
			t.Fatal(err)
		}
		await(t, time.Minute, "both to meet", func() bool { return alive(first) == 2 })
		if err := second.Close(); err != nil {
			t.Fatal(err)
		}
		await(t, time.Minute, "the death", func() bool { return alive(first) == 1 })

		// The keys and the peers come from the folder: no key is given, nobody is joined.
		moved := start(t, network, "second", address(3), dir, nil)
		await(t, time.Minute, "the rejoin", func() bool { return alive(first) == 2 && alive(moved) == 2 })
		if at := member(first, "second").Address; at != address(3) {
			t.Errorf("the member that moved is known at %v", at)
		}
		shut(t, first, moved)
	})
}

func TestStrangerWithAnotherKeyIsKeptOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memnet.Network)
		inside := start(t, network, "inside", address(1), t.TempDir(), gossip.NewKey())
		stranger := start(t, network, "stranger", address(2), t.TempDir(), gossip.NewKey())
		if _, err := stranger.Join([]string{inside.address.String()}); err == nil {
			t.Error("a stranger with another key joined")
		}
		if alive(inside) != 1 {
			t.Errorf("members inside: %+v", inside.Members())
		}
		shut(t, inside, stranger)
	})
}

// All members take a new key and forget the old one; one that was away gets it by another way and is back.
func TestKeysRotateLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := new(memnet.Network)
		nodes := mesh(t, network, 4)
		away, dir, key := nodes[3], t.TempDir(), nodes[0].Keys()[0]
		if err := away.Close(); err != nil {
			t.Fatal(err)
		}
		await(t, time.Minute, "the death", func() bool { return alive(nodes[0]) == 3 && alive(nodes[1]) == 3 && alive(nodes[2]) == 3 })
		if err := nodes[1].RotateKey(); err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes[:3] {
			if keys := n.Keys(); len(keys) != 1 || bytes.Equal(keys[0], key) {
				t.Errorf("a member has %d keys", len(keys))
			}
		}
		back := start(t, network, "node-3", address(4), dir, key)
		if _, err := back.Join([]string{nodes[0].address.String()}); err == nil {
			t.Error("the old key is good still")
		}
		for _, want := range []bool{true, false} {
			if changed, err := back.AdoptKeys(nodes[0].Keys()); err != nil || changed != want {
				t.Errorf("adopt keys: changed %t, %v", changed, err)
			}
		}
		if _, err := back.Join([]string{nodes[0].address.String()}); err != nil {
			t.Error(err)
		}
		if len(back.Keys()) != 1 {
			t.Errorf("the member that is back has %d keys", len(back.Keys()))
		}
		await(t, time.Minute, "all to be back", func() bool { return alive(nodes[0]) == 4 && alive(back) == 4 })
		shut(t, nodes[0], nodes[1], nodes[2], back)
	})
}

func TestLeaveIsNoDeath(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := mesh(t, new(memnet.Network), 2)
		if err := nodes[1].Leave(); err != nil {
			t.Fatal(err)
		}
		await(t, 10*time.Second, "the goodbye", func() bool { return member(nodes[0], "node-1").State == gossip.StateLeft })
		shut(t, nodes...)
	})
}
