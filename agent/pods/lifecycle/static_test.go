package lifecycle

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestDecideStatic(t *testing.T) {
	a := Static{Key: "ns/a", Hash: "a1", File: "a.yaml"}
	changed := Static{Key: "ns/a", Hash: "a2", File: "a.yaml"}
	ending := a
	ending.Ending = true
	shown := Mirror{Key: "ns/a", Hash: "a1"}
	for _, c := range []struct {
		name string
		view StaticView
		want string
	}{
		{"new file", StaticView{Wanted: []Static{a}, Synced: true}, "start [a1] end [] mirror [] unmirror []"},
		{"runs, not shown yet", StaticView{Wanted: []Static{a}, Running: []Static{a}, Synced: true}, "start [] end [] mirror [a1] unmirror []"},
		{"steady", StaticView{Wanted: []Static{a}, Running: []Static{a}, Mirrors: []Mirror{shown}, Synced: true}, "start [] end [] mirror [] unmirror []"},
		{"nobody to show it to", StaticView{Wanted: []Static{a}, Running: []Static{a}}, "start [] end [] mirror [] unmirror []"},
		{"file changed", StaticView{Wanted: []Static{changed}, Running: []Static{a}, Mirrors: []Mirror{shown}, Synced: true}, "start [] end [a1] mirror [] unmirror []"},
		{"the old one ends", StaticView{Wanted: []Static{changed}, Running: []Static{ending}, Mirrors: []Mirror{shown}, Synced: true}, "start [] end [] mirror [] unmirror []"},
		{"the old one is gone", StaticView{Wanted: []Static{changed}, Mirrors: []Mirror{shown}, Synced: true}, "start [a2] end [] mirror [] unmirror [ns/a]"},
		{"the old picture", StaticView{Wanted: []Static{changed}, Running: []Static{changed}, Mirrors: []Mirror{shown}, Synced: true}, "start [] end [] mirror [] unmirror [ns/a]"},
		{"file removed", StaticView{Running: []Static{a}, Mirrors: []Mirror{shown}, Synced: true}, "start [] end [a1] mirror [] unmirror []"},
		{"file unreadable", StaticView{Running: []Static{a}, Unreadable: map[string]bool{"a.yaml": true}, Mirrors: []Mirror{shown}, Synced: true}, "start [] end [] mirror [] unmirror []"},
		{"picture deleted by a user", StaticView{Wanted: []Static{a}, Running: []Static{a}, Mirrors: []Mirror{{Key: "ns/a", Hash: "a1", Deleting: true}}, Synced: true}, "start [] end [] mirror [] unmirror [ns/a]"},
		{"two files of one name", StaticView{Wanted: []Static{a, changed}, Synced: true}, "start [a1] end [] mirror [] unmirror []"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := DecideStatic(c.view)
			if got := fmt.Sprintf("start %v end %v mirror %v unmirror %v", p.Start, p.End, p.Mirror, p.Unmirror); got != c.want {
				t.Errorf("got %s; want %s", got, c.want)
			}
		})
	}
}

// TestStaticPodsSettle: from any state, carrying out plans leads to exactly the
// files' pods running and shown, and then to no more plans.
func TestStaticPodsSettle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		draw := func(label string) []Static {
			var out []Static
			for _, key := range []string{"x", "y"} {
				if v := rapid.IntRange(0, 3).Draw(t, label+key); v > 0 {
					out = append(out, Static{Key: key, Hash: fmt.Sprint(key, v), File: key})
				}
			}
			return out
		}
		v := StaticView{Wanted: draw("wanted"), Running: draw("running"), Synced: true}
		for _, s := range draw("mirrors") {
			v.Mirrors = append(v.Mirrors, Mirror{Key: s.Key, Hash: s.Hash, Deleting: rapid.Bool().Draw(t, "deleting")})
		}
		for range 8 {
			p := DecideStatic(v)
			for _, hash := range p.Start {
				i := slices.IndexFunc(v.Wanted, func(s Static) bool { return s.Hash == hash })
				v.Running = append(v.Running, v.Wanted[i])
			}
			v.Running = slices.DeleteFunc(v.Running, func(s Static) bool { return slices.Contains(p.End, s.Hash) })
			v.Mirrors = slices.DeleteFunc(v.Mirrors, func(m Mirror) bool { return slices.Contains(p.Unmirror, m.Key) })
			for _, hash := range p.Mirror {
				i := slices.IndexFunc(v.Running, func(s Static) bool { return s.Hash == hash })
				if i >= 0 {
					v.Mirrors = append(v.Mirrors, Mirror{Key: v.Running[i].Key, Hash: hash})
				}
			}
		}
		if p := DecideStatic(v); len(p.Start)+len(p.End)+len(p.Mirror)+len(p.Unmirror) != 0 {
			t.Fatalf("never settles: %+v in %+v", p, v)
		}
		if len(v.Running) != len(v.Wanted) || len(v.Mirrors) != len(v.Wanted) {
			t.Fatalf("settled at %+v", v)
		}
	})
}
