package pki

import (
	"fmt"
	"maps"
	"time"

	clientcmd "k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	// KubeconfigName names the current cluster and context in the files that Podvine writes: that of the member that made it.
	KubeconfigName = "podvine"
	// maxKubeconfigMembers bounds the members that a kubeconfig lists.
	maxKubeconfigMembers = 64
)

// SetMemberServers says where each member serves the API, by the member's name; kubeconfigs that are made from now on have a
// cluster and a context for each of them. It reports whether that is news.
func (p *PKI) SetMemberServers(servers map[string]string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if maps.Equal(p.servers, servers) {
		return false
	}
	p.servers = maps.Clone(servers)
	return true
}

// Kubeconfig is the content of a kubeconfig for an issued certificate, against server ("https://127.0.0.1:6443"), with contexts for the
// other members.
func (p *PKI) Kubeconfig(server, user string, issued *Issued) ([]byte, error) {
	p.mu.RLock()
	servers := p.servers
	p.mu.RUnlock()
	return Kubeconfig(server, user, p.cluster.CertPEM(), issued, servers)
}

// Kubeconfig is the content of a kubeconfig that trusts caPEM and shows an issued certificate. Every member has a context of its
// name; the current one leads to server. Whoever answers there must be certified as the API, which no mere node is.
func Kubeconfig(server, user string, caPEM []byte, issued *Issued, members map[string]string) ([]byte, error) {
	config := clientcmdapi.NewConfig()
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: issued.CertPEM, ClientKeyData: issued.KeyPEM}
	add := func(name, server string) {
		config.Clusters[name] = &clientcmdapi.Cluster{Server: server, TLSServerName: APIServerName, CertificateAuthorityData: caPEM}
		config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: user}
	}
	for name, at := range members {
		if len(config.Clusters) < maxKubeconfigMembers {
			add(name, at)
		}
	}
	add(KubeconfigName, server)
	config.CurrentContext = KubeconfigName
	content, err := clientcmd.Write(*config)
	if err != nil {
		return nil, fmt.Errorf("encode kubeconfig: %w", err)
	}
	return content, nil
}

// WriteAdminKubeconfig writes the administrator's kubeconfig to path, for root only. The agent does so at each start
// and renewal; the certificate lives [LeafLifetimeHours].
func (p *PKI) WriteAdminKubeconfig(path, server string, now time.Time) error {
	issued, err := p.IssueClient(Identity{User: AdminUser, Groups: []string{MastersGroup}}, LeafLifetimeHours*time.Hour, now)
	if err != nil {
		return err
	}
	content, err := p.Kubeconfig(server, AdminUser, issued)
	if err != nil {
		return err
	}
	return writeFile(path, content, 0o600)
}
