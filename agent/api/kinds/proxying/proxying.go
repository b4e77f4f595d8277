// Package proxying is what nodes/proxy, pods/proxy and services/proxy have in common: methods, paths, the transport, and which addresses
// they may lead to.
//
// Role: a kind finds out where its object is, and this package passes the request on. It keeps no state but the transport's
// connections, of which none stays idle.
//
// Concurrency: everything may be used from any goroutine.
package proxying

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"path"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/registry/rest"
)

// Methods are those of a request that may be passed on.
func Methods() []string {
	return []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodHead, http.MethodOptions}
}

// Transport reaches what runs in pods and on nodes. As in Kubernetes nobody vouches for the certificates there, so they are not verified.
var Transport http.RoundTripper = &http.Transport{
	DisableKeepAlives: true, MaxIdleConnsPerHost: -1,
	TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, //nolint:gosec // as said
}

// Handler passes requests on to a location, for which below is the path, with its trailing slash kept.
func Handler(location *url.URL, below string, transport http.RoundTripper, responder rest.Responder) http.Handler {
	location.Path = path.Join("/", below)
	if strings.HasSuffix(below, "/") && location.Path != "/" {
		location.Path += "/"
	}
	return proxy.NewUpgradeAwareHandler(location, transport, true, false, proxy.NewErrorResponder(responder))
}

// Check refuses, as Kubernetes does, an address that leads back into this machine or to no host in particular: unspecified, loopback,
// link-local, multicast and broadcast ones.
func Check(ip net.IP) error {
	if !ip.IsGlobalUnicast() { // nor is nil
		return apierrors.NewBadRequest("address not allowed")
	}
	return nil
}

// CheckHost checks an address, or every address of a name.
func CheckHost(ctx context.Context, host string) error {
	if ip := net.ParseIP(host); ip != nil {
		return Check(ip)
	}
	found, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return apierrors.NewBadRequest(fmt.Sprintf("look up %s: %v", host, err))
	}
	if len(found) == 0 {
		return apierrors.NewBadRequest(fmt.Sprintf("look up %s: it has no address", host))
	}
	for _, address := range found {
		if err := Check(address.IP); err != nil {
			return err
		}
	}
	return nil
}
