// Command testhealth is a gRPC health server whose services are as well as
// files say, for the tests of probes.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	health "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// server answers for the service NAME by the file NAME in its folder: absent,
// the service is unknown; "ill", it does not serve. The unnamed service is the
// file "default".
type server struct {
	health.UnimplementedHealthServer
	dir string
}

// Check implements the health protocol.
func (s server) Check(_ context.Context, r *health.HealthCheckRequest) (*health.HealthCheckResponse, error) {
	name := r.Service
	if name == "" {
		name = "default"
	}
	raw, err := os.ReadFile(filepath.Join(s.dir, filepath.Base(name)))
	if err != nil {
		return nil, status.Error(codes.NotFound, "unknown service")
	}
	out := &health.HealthCheckResponse{Status: health.HealthCheckResponse_SERVING}
	if string(raw) == "ill" {
		out.Status = health.HealthCheckResponse_NOT_SERVING
	}
	return out, nil
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: testhealth ADDRESS FOLDER")
		os.Exit(2)
	}
	ln, err := net.Listen("tcp", os.Args[1])
	if err == nil {
		srv := grpc.NewServer()
		health.RegisterHealthServer(srv, server{dir: os.Args[2]})
		err = srv.Serve(ln)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
