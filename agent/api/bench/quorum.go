package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/podvine/podvine/agent/api/apitest"
	"github.com/podvine/podvine/consensus"
)

// A quorum is several processes: voter 1 has the API server with it on Podvine's side, the others are followers. On both sides peers
// talk over Unix sockets, without TLS.

// followerPrefix and etcdPrefix name the processes of a quorum's members, with their number behind.
const (
	followerPrefix = "podvine-follower-"
	etcdPrefix     = "etcd-"
	formPause      = 10 * time.Millisecond
)

// children are the processes of a side with so many voters, in the order of their start.
func children(side string, voters int) []string {
	var names []string
	if side == "podvine" {
		for i := 2; i <= voters; i++ {
			names = append(names, followerPrefix+strconv.Itoa(i))
		}
		return append(names, servePodvine)
	}
	for i := 1; i <= voters; i++ {
		names = append(names, etcdPrefix+strconv.Itoa(i))
	}
	return append(names, serveEtcdAPI)
}

// numberOf reads the number behind the prefix.
func numberOf(name, prefix string) (int, bool) {
	digits, ok := strings.CutPrefix(name, prefix)
	number, err := strconv.Atoi(digits)
	return number, ok && err == nil
}

// voterID is the UUID of Podvine's voter of that number; the first is the API server's.
func voterID(number int) string {
	return apitest.ReplicaID[:len(apitest.ReplicaID)-2] + fmt.Sprintf("%02d", number)
}

func socketOf(dir, id, protocol string) string {
	return filepath.Join(dir, id[len(id)-2:]+"-"+protocol+".sock")
}

// unixNetwork connects replicas through sockets in the folder.
func unixNetwork(dir, id string) (*consensus.Network, error) {
	listen := func(protocol string) (net.Listener, error) { return net.Listen("unix", socketOf(dir, id, protocol)) }
	raft, err := listen(consensus.ProtocolRaft)
	if err != nil {
		return nil, err
	}
	store, err := listen(consensus.ProtocolStore)
	if err != nil {
		return nil, errors.Join(err, raft.Close())
	}
	return &consensus.Network{Raft: raft, Store: store, Dial: func(ctx context.Context, node, protocol string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "unix", socketOf(dir, node, protocol))
	}}, nil
}

// runFollower is a voter without an API server until ctx ends.
func runFollower(ctx context.Context, number int, dir string) error {
	id := voterID(number)
	network, err := unixNetwork(dir, id)
	if err != nil {
		return err
	}
	replica, err := consensus.Open(ctx, consensus.Config{
		Dir: filepath.Join(dir, "store-"+strconv.Itoa(number)), NodeID: id, ClusterID: apitest.ClusterID, Join: true, Network: network, ReserveBytes: -1,
	})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, readyFile+"-"+followerPrefix+strconv.Itoa(number)), nil, 0o600); err != nil {
		return errors.Join(err, replica.Close())
	}
	<-ctx.Done()
	return replica.Close()
}

// formQuorum has the leader take the followers as voters.
func formQuorum(ctx context.Context, leader *consensus.Replica, voters int) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for number := 2; number <= voters; number++ {
		id := voterID(number)
		if err := leader.AddStandby(ctx, id); err != nil {
			return err
		}
		for {
			err := leader.Promote(ctx, id)
			if err == nil {
				break
			}
			select {
			case <-ctx.Done():
				return errors.Join(ctx.Err(), err)
			case <-time.After(formPause):
			}
		}
	}
	return nil
}

// etcdSocket is where etcd's member of that number listens for clients: a Unix socket, the cheapest way there is.
func etcdSocket(dir string, number int) string {
	return filepath.Join(dir, fmt.Sprintf("etcd-%d.sock", number))
}

func unixURL(path string) url.URL { return url.URL{Scheme: "unix", Path: path} }

// runEtcd is one of etcd's members until ctx ends.
func runEtcd(ctx context.Context, number, voters int, dir string) error {
	// Peers take the name of their socket, in the working directory, from where other schemes have host and port.
	if err := os.Chdir(dir); err != nil {
		return err
	}
	peer := func(number int) url.URL { return url.URL{Scheme: "unix", Host: fmt.Sprintf("peer:%d", number)} }
	config := embed.NewConfig()
	config.Name = etcdPrefix + strconv.Itoa(number)
	config.Dir, config.LogLevel = filepath.Join(dir, config.Name), "error"
	client := unixURL(etcdSocket(dir, number))
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer(number)}, []url.URL{peer(number)}
	var members []string
	for i := 1; i <= voters; i++ {
		address := peer(i)
		members = append(members, etcdPrefix+strconv.Itoa(i)+"="+address.String())
	}
	config.InitialCluster = strings.Join(members, ",")
	config.QuotaBackendBytes = 8 << 30
	server, err := embed.StartEtcd(config)
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	defer server.Close()
	// With several members this one is ready when a majority is, which may be started after it.
	if err := os.WriteFile(filepath.Join(dir, readyFile+"-"+config.Name), nil, 0o600); err != nil {
		return err
	}
	select {
	case err := <-server.Err():
		return errors.Join(errors.New("etcd ended"), err)
	case <-ctx.Done():
		return nil
	}
}
