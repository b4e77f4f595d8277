package lifecycle

// Static is a pod that a file of the node asks for.
type Static struct {
	// Key is namespace/name, Hash identifies the file's content, and is the pod's UID.
	Key, Hash string
	// File that it comes from.
	File string
	// Ending is set for one that is on its way out.
	Ending bool
}

// Mirror is the picture of a static pod in the API.
type Mirror struct {
	Key, Hash string
	// Deleting is set once somebody asked for its end.
	Deleting bool
}

// StaticView is everything DecideStatic looks at.
type StaticView struct {
	// Wanted are the pods of the files, Unreadable the files that say nothing
	// now: their pods stay as they are.
	Wanted     []Static
	Unreadable map[string]bool
	Running    []Static
	Mirrors    []Mirror
	// Synced: Mirrors is what the API has.
	Synced bool
}

// StaticPlan is what DecideStatic wants, by hash, and by key for Unmirror.
type StaticPlan struct{ Start, End, Mirror, Unmirror []string }

// DecideStatic compares the files with what runs and with what the API shows. A
// file that changes ends its pod before it starts the next. It is pure.
func DecideStatic(v StaticView) StaticPlan {
	var p StaticPlan
	wanted, taken := map[string]bool{}, map[string]bool{}
	for _, w := range v.Wanted {
		wanted[w.Hash] = true
	}
	runs := map[string]string{} // hash by key
	for _, r := range v.Running {
		taken[r.Key] = true
		runs[r.Key] = r.Hash
		if !r.Ending && !wanted[r.Hash] && !v.Unreadable[r.File] {
			p.End = append(p.End, r.Hash)
		}
	}
	for _, w := range v.Wanted {
		if !taken[w.Key] {
			taken[w.Key] = true
			p.Start = append(p.Start, w.Hash)
		}
	}
	if !v.Synced {
		return p
	}
	shown := map[string]bool{}
	for _, m := range v.Mirrors {
		shown[m.Key] = true
		if hash, ok := runs[m.Key]; m.Deleting || !ok || hash != m.Hash {
			p.Unmirror = append(p.Unmirror, m.Key)
		}
	}
	for _, r := range v.Running {
		if !shown[r.Key] && !r.Ending {
			p.Mirror = append(p.Mirror, r.Hash)
		}
	}
	return p
}
