package pki

import (
	"fmt"
	"time"

	clientcmd "k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// kubeconfigName names cluster and context in the files that Podvine writes.
const kubeconfigName = "podvine"

// Kubeconfig is the content of a kubeconfig for an issued certificate, against server ("https://127.0.0.1:6443").
func (p *PKI) Kubeconfig(server, user string, issued *Issued) ([]byte, error) {
	return Kubeconfig(server, user, p.cluster.CertPEM(), issued)
}

// Kubeconfig is the content of a kubeconfig that trusts caPEM and shows an issued certificate.
func Kubeconfig(server, user string, caPEM []byte, issued *Issued) ([]byte, error) {
	config := clientcmdapi.NewConfig()
	config.Clusters[kubeconfigName] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: caPEM}
	config.AuthInfos[user] = &clientcmdapi.AuthInfo{ClientCertificateData: issued.CertPEM, ClientKeyData: issued.KeyPEM}
	config.Contexts[kubeconfigName] = &clientcmdapi.Context{Cluster: kubeconfigName, AuthInfo: user}
	config.CurrentContext = kubeconfigName
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
