package pki

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// Trust is whom a member is to trust, and by whom it is to be certified. [PKI.Trust] tells it, [PKI.Adopt] takes it.
type Trust struct {
	// Cluster and FrontProxy are bundles in PEM. The first of each certifies members, all are trusted.
	Cluster    []byte `json:"cluster"`
	FrontProxy []byte `json:"frontProxy"`
	// Users is the ID of the authority of Cluster that certifies users.
	Users string `json:"users"`
	// ClusterKeys and FrontProxyKeys are for replicas alone.
	ClusterKeys    []byte `json:"clusterKeys,omitempty"`
	FrontProxyKeys []byte `json:"frontProxyKeys,omitempty"`
	// Retired are the IDs of authorities that are trusted no more.
	Retired []string `json:"retired,omitempty"`
}

// TrustState is whom a member trusts now, by ID.
type TrustState struct {
	// Trusted are the cluster's authorities, the first of which is to certify this member.
	Trusted []string `json:"trusted"`
	Users   string   `json:"users"`
	// Certified says that the first has certified all that this member shows.
	Certified bool `json:"certified"`
}

// Trust returns what this replica holds, with the keys.
func (p *PKI) Trust() (Trust, error) {
	if p.cluster.own().key == nil {
		return Trust{}, errors.New("export authorities: this node is no replica and holds no keys")
	}
	t := Trust{Cluster: p.cluster.CertPEM(), FrontProxy: p.frontProxy.CertPEM(), Users: p.cluster.signer().ID(), Retired: p.Retired()}
	var err error
	if t.ClusterKeys, err = p.cluster.keysPEM(); err != nil {
		return Trust{}, err
	}
	t.FrontProxyKeys, err = p.frontProxy.keysPEM()
	return t, err
}

// Public is the trust without its keys.
func (t Trust) Public() Trust {
	t.ClusterKeys, t.FrontProxyKeys = nil, nil
	return t
}

// WithSuccessor adds new authorities that are trusted and certify nobody yet. They are nowhere but in what it returns.
func (t Trust) WithSuccessor(now time.Time) (Trust, error) {
	for _, add := range []struct {
		name         string
		bundle, keys *[]byte
	}{{clusterAuthority, &t.Cluster, &t.ClusterKeys}, {frontProxyAuthority, &t.FrontProxy, &t.FrontProxyKeys}} {
		// The time in the name tells it from the one before, for people and for programs that look authorities up by name.
		made, err := newAuthority(fmt.Sprintf("%s@%d", add.name, now.Unix()), now)
		if err != nil {
			return Trust{}, err
		}
		key, err := encodeKey(made.key)
		if err != nil {
			return Trust{}, err
		}
		*add.bundle = slices.Concat(*add.bundle, made.certPEM)
		*add.keys = slices.Concat(*add.keys, key)
	}
	return t, nil
}

// readBundle reads certificates whatever the time is: whoever adopts them looks.
func readBundle(bundle []byte) ([]*Authority, error) {
	first, err := parseCert("authorities", bundle)
	if err != nil {
		return nil, err
	}
	return parseAuthorities("authorities", bundle, nil, first.NotBefore.Add(BackdateMinutes*time.Minute))
}

// AllIDs are those of all authorities.
func (t Trust) AllIDs() []string { return slices.Concat(t.IDs(), BundleIDs(t.FrontProxy)) }

// Newest is the ID of the cluster's authority that was made last.
func (t Trust) Newest() string {
	all, err := readBundle(t.Cluster)
	if err != nil {
		return ""
	}
	return slices.MaxFunc(all, func(a, b *Authority) int { return a.cert.NotBefore.Compare(b.cert.NotBefore) }).ID()
}

// IDs are those of the cluster's authorities, in order; nil if they cannot be read.
func (t Trust) IDs() []string { return BundleIDs(t.Cluster) }

// Adopt makes that the trust of this node, on disk and for every connection from now on, and has it certified anew where another
// authority is to do so. A node that is no replica leaves out what is for replicas. It may be repeated, and is repeated after an error. It
// reports whether anything changed.
func (p *PKI) Adopt(t Trust, now time.Time) (changed bool, err error) {
	p.adoptMu.Lock()
	defer p.adoptMu.Unlock()
	p.SetRetired(t.Retired) // before those who hear of a change ask
	if changed, err = p.cluster.adopt(t.Cluster, t.ClusterKeys, t.Users, now); err != nil {
		return false, err
	}
	if p.frontProxy != nil {
		more, err := p.frontProxy.adopt(t.FrontProxy, t.FrontProxyKeys, "", now)
		if err != nil {
			return changed, err
		}
		changed = changed || more
	}
	if changed {
		p.config.Log.Info("trust authorities", "first", shortID(p.cluster.own().ID()), "count", len(p.cluster.get()), "for users", shortID(p.cluster.signer().ID()))
	}
	_, err = p.Renew(now)
	return changed, err
}

// shortID is enough of an ID for people.
func shortID(id string) string { return id[:min(len(id), 12)] }

// Retired are the IDs of authorities that are trusted no more, as far as this node was told.
func (p *PKI) Retired() []string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.retired
}

// SetRetired says which authorities are trusted no more.
func (p *PKI) SetRetired(ids []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retired = slices.Clone(ids)
}

// TrustState tells whom this node trusts.
func (p *PKI) TrustState() TrustState {
	state := TrustState{Trusted: BundleIDs(p.cluster.CertPEM()), Users: p.cluster.signer().ID(), Certified: true}
	for _, spec := range p.specs() {
		p.mu.RLock()
		cert := p.leaves[spec.name].cert
		p.mu.RUnlock()
		state.Certified = state.Certified && cert != nil && cert.CheckSignatureFrom(spec.authority.cert) == nil
	}
	return state
}

// Ordered has one of the cluster's authorities certify members, another, or none where that is "", be trusted beside it, and one of
// both certify users. The front proxy's follow in the same order.
func (t Trust) Ordered(certifies, also, users string) (Trust, error) {
	ids := t.IDs()
	first, second := slices.Index(ids, certifies), slices.Index(ids, also)
	if first < 0 || also != "" && second < 0 {
		return Trust{}, fmt.Errorf("order authorities: %s and %s are not among %d that are here", shortID(certifies), shortID(also), len(ids))
	}
	t.Users = users
	for _, bundle := range []*[]byte{&t.Cluster, &t.FrontProxy} {
		all, err := readBundle(*bundle)
		if err != nil {
			return Trust{}, err
		}
		if len(all) != len(ids) {
			return Trust{}, fmt.Errorf("order authorities: %d of the cluster and %d of the front proxy", len(ids), len(all))
		}
		ordered := []*Authority{all[first]}
		if also != "" {
			ordered = append(ordered, all[second])
		}
		*bundle = bundleOf(ordered)
	}
	return t, nil
}

// AuthorityStatus is an authority of the cluster as an operator sees it. All are trusted.
type AuthorityStatus struct {
	ID   string    `json:"id"`
	Made time.Time `json:"made"`
	// Members and Users say whom it certifies.
	Members bool `json:"members"`
	Users   bool `json:"users"`
}

// Status lists the authorities, that which certifies members first.
func (a *Authorities) Status() []AuthorityStatus {
	a.mu.RLock()
	defer a.mu.RUnlock()
	var all []AuthorityStatus
	for i, one := range a.all {
		made := one.cert.NotBefore.Add(BackdateMinutes * time.Minute)
		all = append(all, AuthorityStatus{ID: one.ID(), Made: made.UTC(), Members: i == 0, Users: one == a.users})
	}
	return all
}
