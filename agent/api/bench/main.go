// Command bench compares Podvine's store with etcd below the same API server: the same kinds, filters, authentication and
// authorization, the same clients over TLS, on the same disk, alternated in one run. It is a module of its own, so that
// the product does not depend on etcd.
//
//	go run . -rounds 5 -duration 5s [-fsync-delay 5ms] [-voters 3]
//	go run . -rounds 1 -memory
//	go run . -rounds 1 -sides podvine -operations create -profile /tmp/profiles
//
// Each server is a process of its own (etcd two, and with several voters each voter one), so that its CPU can be told from that of the clients. With
// -fsync-delay the data lies behind a FUSE file system that adds the delay to each fsync, for both alike.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

// settings are what a run is made with; they are printed above the results.
type settings struct {
	rounds     int
	duration   time.Duration
	clients    int
	bytes      int
	fsyncDelay time.Duration
	// voters are those of either side's quorum, all on this machine and its disk.
	voters     int
	dir        string
	operations []string
	sides      []string
	// memory asks for what the servers hold instead of what operations cost.
	memory bool
	// profile is a folder for profiles of the servers, "" for none.
	profile string
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var s settings
	var serve, dir string
	flag.IntVar(&s.rounds, "rounds", 5, "how often the two are alternated")
	flag.DurationVar(&s.duration, "duration", 4*time.Second, "length of each measurement")
	flag.IntVar(&s.clients, "clients", 32, "concurrent clients, each with a connection of its own")
	flag.IntVar(&s.bytes, "bytes", 1024, "size of a ConfigMap's content")
	flag.DurationVar(&s.fsyncDelay, "fsync-delay", 0, "added to each fsync")
	flag.IntVar(&s.voters, "voters", 1, "members of either side's quorum")
	flag.StringVar(&s.dir, "dir", "", "folder for the data (default: a temporary one)")
	only := flag.String("operations", strings.Join(operations(), ","), "which to measure; those that need objects come after create")
	sides := flag.String("sides", "podvine,etcd", "whom to measure; the first is compared with the second")
	flag.StringVar(&s.profile, "profile", "", "folder for a CPU profile of the API server in each measurement; the profile itself costs CPU")
	flag.BoolVar(&s.memory, "memory", false, "measure what the servers hold with 100,000 objects and 10,000 watches, instead of operations")
	flag.StringVar(&serve, "serve", "", "internal: be this server")
	flag.StringVar(&dir, "serve-dir", "", "internal: in this folder")
	flag.Parse()
	s.operations, s.sides = strings.Split(*only, ","), strings.Split(*sides, ",")
	var err error
	switch serve {
	case "":
		err = compare(ctx, s)
	default:
		err = runServer(ctx, serve, dir, s.voters)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}
