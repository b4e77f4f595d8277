package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authuser "k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	clientretry "k8s.io/client-go/util/retry"
	kubernetesversion "k8s.io/component-base/version"

	"github.com/podvine/podvine/agent/backup"
	"github.com/podvine/podvine/agent/pki"
	"github.com/podvine/podvine/agent/version"
	"github.com/podvine/podvine/consensus"
)

const (
	// BackupPath is where a member's API gives an administrator a backup, as package backup describes it.
	BackupPath = "/podvine/backup"
	// RestorePath is where it takes one, and answers with a consensus.BackupInfo.
	RestorePath = "/podvine/restore"
	// AnyClusterParameter is the parameter of RestorePath that accepts the backup of another cluster.
	AnyClusterParameter = "anyCluster"

	// restorePath is where the leader takes a backup from another replica.
	restorePath = "/restore"
	// maxBackupBytes bounds a backup that is taken.
	maxBackupBytes = 64 << 30
	// currentTimeout bounds the wait of a backup for what was acknowledged before it.
	currentTimeout = 2 * time.Second
)

// backupHeader describes a backup that is made now.
func (n *node) backupHeader() backup.Header {
	return backup.Header{
		Cluster: n.dir.ClusterID, Node: n.dir.NodeName, Time: time.Now().UTC(), Version: version.Version,
		Kubernetes: kubernetesversion.Get().GitVersion, DataKeys: n.dataKeys.prints(),
	}
}

// serveBackup streams a backup that holds all that was acknowledged before it was asked for, if there is a quorum to say so. The
// snapshot's own end says that it is whole.
func (n *node) serveBackup(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := context.WithTimeout(r.Context(), currentTimeout)
	defer cancel()
	if _, err := n.replica.ReadRevision(ctx); err != nil {
		w.Header().Set("Warning", fmt.Sprintf("299 - %q", "there is no quorum: the backup is what "+n.dir.NodeName+" has, and may lack the newest"))
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	n.log.Info("back up")
	err := backup.Write(w, n.backupHeader())
	if err == nil {
		err = n.replica.Backup(w)
	}
	if err != nil {
		n.log.Info("the backup was not taken to its end", "error", err)
		panic(http.ErrAbortHandler) // the client has gone, or must not believe that it has all
	}
	return nil
}

// serveRestore takes a backup from an administrator.
func (n *node) serveRestore(w http.ResponseWriter, r *http.Request) error {
	info, err := n.restore(r.Context(), http.MaxBytesReader(w, r.Body, maxBackupBytes), r.URL.Query().Has(AnyClusterParameter))
	if err != nil {
		return err
	}
	return writeInfo(w, info)
}

// restore has the leader take the backup.
func (n *node) restore(ctx context.Context, body io.Reader, anyCluster bool) (consensus.BackupInfo, error) {
	leader := n.replica.Status().LeaderID
	switch leader {
	case "":
		return consensus.BackupInfo{}, errors.New("restore: there is no leader: the quorum is lost")
	case n.dir.NodeID:
		return n.restoreHere(ctx, body, anyCluster)
	}
	path := url.URL{Scheme: "http", Host: leader, Path: restorePath}
	if anyCluster {
		path.RawQuery = AnyClusterParameter
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, path.String(), body)
	if err != nil {
		return consensus.BackupInfo{}, fmt.Errorf("restore through the leader: %w", err)
	}
	content, err := ask(n.peers, leader, request, true)
	if err != nil {
		return consensus.BackupInfo{}, fmt.Errorf("restore through the leader: %w", err)
	}
	var info consensus.BackupInfo
	if err := json.Unmarshal(content, &info); err != nil {
		return info, fmt.Errorf("restore through the leader: %w", err)
	}
	return info, nil
}

// restoreHere is the leader's part. Everything is checked before anything changes.
func (n *node) restoreHere(ctx context.Context, body io.Reader, anyCluster bool) (consensus.BackupInfo, error) {
	header, snapshot, err := backup.Read(body)
	if err != nil {
		return consensus.BackupInfo{}, err
	}
	view := backup.View{Cluster: n.dir.ClusterID, Kubernetes: kubernetesversion.Get().GitVersion, DataKeys: n.dataKeys.prints(), AnyCluster: anyCluster}
	if err := backup.Decide(header, view); err != nil {
		return consensus.BackupInfo{}, err
	}
	n.log.Warn("restore a backup", "cluster", header.Cluster, "made", header.Time, "by", header.Node)
	names := n.memberNames()
	info, err := n.replica.Restore(ctx, snapshot)
	if err != nil {
		return info, err
	}
	n.log.Warn("restored a backup", "revision", info.Revision)
	n.spreader.restored()
	return info, keepNames(ctx, n.client(authuser.APIServerUser, authuser.SystemPrivilegedGroup), names)
}

// memberNames are the members that live, by name.
func (n *node) memberNames() map[string]string {
	names := map[string]string{}
	for id, member := range n.directory.all() {
		if name := n.directory.name(id); name != "" && answers(member) {
			names[name] = id
		}
	}
	return names
}

// keepNames has the members keep their names, whoever had them in the restored records: a machine may have been installed
// anew since. One that the records do not know registers by itself.
func keepNames(ctx context.Context, client kubernetes.Interface, names map[string]string) error {
	var errs []error
	for name, id := range names {
		err := clientretry.RetryOnConflict(clientretry.DefaultBackoff, func() error {
			node, err := client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
			if err != nil || node.Annotations[NodeIDAnnotation] == id {
				return err
			}
			metav1.SetMetaDataAnnotation(&node.ObjectMeta, NodeIDAnnotation, id)
			_, err = client.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{})
			return err
		})
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("the backup is restored, but node %s has not got its name back: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// takeRestore is the leader's answer to another replica, which has seen to it that an administrator asks.
func (n *node) takeRestore(w http.ResponseWriter, r *http.Request) {
	err := func() error {
		if caller, known := r.Context().Value(callerKey{}).(pki.NodeIdentity); !known || !caller.Replica {
			return errors.New("only a replica may ask for a restore")
		}
		control := http.NewResponseController(w)
		if err := errors.Join(control.SetReadDeadline(time.Time{}), control.SetWriteDeadline(time.Time{})); err != nil {
			return err
		}
		info, err := n.restoreHere(r.Context(), http.MaxBytesReader(w, r.Body, maxBackupBytes), r.URL.Query().Has(AnyClusterParameter))
		if err != nil {
			return err
		}
		return writeInfo(w, info)
	}()
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

func writeInfo(w http.ResponseWriter, info consensus.BackupInfo) error {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(info); err != nil {
		panic(http.ErrAbortHandler) // whoever asked has gone
	}
	return nil
}
