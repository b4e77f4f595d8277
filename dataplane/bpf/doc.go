// Package bpf holds the data plane's eBPF programs, compiled and embedded, and the one place that loads, pins and
// attaches them.
//
// Role: [OpenSockets] loads the programs that translate services where a connection starts (cgroup hooks),
// [OpenPackets] those that see packets (links of pods and links to the outside). Both share their maps, which are
// pinned below one folder of a bpf file system, so an agent that restarts finds every translation at work and takes it
// over without a gap: links are updated in place, never detached.
//
// Ownership: the maps of services are written by dataplane/services, the map of pods by dataplane/podnet; all others
// belong to the programs. The types of keys and values are in layout.go, their C twins in c/maps.h.
//
// Concurrency: the handles may be used by several goroutines; opening and attaching is for one at a time.
//
// Inspect: `ls /sys/fs/bpf/podvine/maps` and `bpftool map dump pinned …`. Change the C sources, then `go generate`
// (clang 14 or newer, libbpf's headers); what it generates is committed, so that building needs only Go.
package bpf
