package kube

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"

	"github.com/podvine/podvine/dataplane/dns"
	"github.com/podvine/podvine/dataplane/services"
)

const (
	// keptAfter is how long the cluster may be silent at the start before what this node kept of it is used.
	keptAfter = time.Second
	// keepPause is the least time between two writes of it, and keepShare how many times longer than a write a pause is.
	keepPause = 5 * time.Second
	keepShare = 20
)

// keptKind and keptKey are where a [Keeper] has the services.
const keptKind, keptKey = "services", "all"

// Keeper holds values on the node's disk, encrypted, since what the API keeps secret is secret there too.
type Keeper interface {
	// Put replaces the value of that kind and key, whole or not at all.
	Put(kind, key string, value any) error
	// Get loads it into value, a pointer; one that is not there is a [fs.ErrNotExist].
	Get(kind, key string, value any) error
}

// kept is what a node keeps on its disk of the cluster's services: after a reboot its pods need them, whoever can be asked.
type kept struct {
	Zone     string                       `json:"zone,omitempty"`
	Services []*corev1.Service            `json:"services"`
	Slices   []*discoveryv1.EndpointSlice `json:"slices"`
}

// awaitView returns when the informers have synced. When that takes long, it serves what was kept meanwhile.
func (s *Source) awaitView(ctx context.Context) error {
	synced := make(chan bool, 1)
	go func() { synced <- cache.WaitForCacheSync(ctx.Done(), s.synced...) }()
	silent := time.After(keptAfter)
	pause := retryMin
	for {
		select {
		case ok := <-synced:
			if !ok {
				return fmt.Errorf("wait for services to sync: %w", ctx.Err())
			}
			return nil
		case <-silent:
		}
		silent = nil
		if err := s.serveKept(ctx); err != nil {
			s.config.Logger.Warn("serve the services of before this start", "err", err, "retry", pause)
			silent = time.After(pause)
			pause = min(2*pause, retryMax)
		}
	}
}

// serveKept hands on what was kept, if anything was.
func (s *Source) serveKept(ctx context.Context) error {
	if s.config.Keep == nil {
		return nil
	}
	var last kept
	err := s.config.Keep.Get(keptKind, keptKey, &last)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read kept services: %w", err)
	}
	behind := map[string][]*discoveryv1.EndpointSlice{}
	for _, slice := range last.Slices {
		keys, err := indexSlice(slice)
		if err != nil {
			return fmt.Errorf("read kept services: %w", err)
		}
		for _, key := range keys {
			behind[key] = append(behind[key], slice)
		}
	}
	here := place{node: s.config.NodeName, zone: last.Zone}
	var wanted []services.Service
	var known []dns.Service
	for _, object := range last.Services {
		slices := behind[object.Namespace+"/"+object.Name]
		if served(object) {
			wanted = append(wanted, convert(object, slices, here))
		}
		if named, ok := names(object, slices); ok {
			known = append(known, named)
		}
	}
	if s.config.Names != nil {
		s.config.Names.Set(known)
	}
	s.config.Logger.Info("the cluster is silent: serve the services of before this start", "services", len(wanted))
	return s.config.Proxy.Set(ctx, wanted)
}

// keep writes what the informers have, and returns how long to wait before it is done again.
func (s *Source) keep(here place) time.Duration {
	begun := time.Now()
	err := s.write(here)
	if err != nil {
		s.config.Logger.Warn("keep services for the next start", "err", err)
	}
	return max(keepPause, keepShare*time.Since(begun))
}

func (s *Source) write(here place) error {
	now := kept{Zone: here.zone}
	objects, err := s.services.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	for _, object := range objects {
		own := *object
		own.ManagedFields, own.Annotations = nil, withoutApplied(object.Annotations)
		now.Services = append(now.Services, &own)
	}
	for _, object := range s.slices.List() {
		slice, ok := object.(*discoveryv1.EndpointSlice)
		if !ok {
			return fmt.Errorf("keep %T", object)
		}
		own := *slice
		own.ManagedFields = nil
		now.Slices = append(now.Slices, &own)
	}
	return s.config.Keep.Put(keptKind, keptKey, now)
}

// withoutApplied leaves out kubectl's copy of the whole object.
func withoutApplied(annotations map[string]string) map[string]string {
	left := make(map[string]string, len(annotations))
	for key, value := range annotations {
		if key != corev1.LastAppliedConfigAnnotation {
			left[key] = value
		}
	}
	return left
}
