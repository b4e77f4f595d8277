package standard

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"

	"github.com/podvine/podvine/agent/api/auth"
	"github.com/podvine/podvine/agent/pki"
)

// RequestHeader is an administrator's own front proxy, beside the one by which members speak to aggregated servers: whoever shows
// a certificate of its authority may say in headers who a user is. The zero value is none.
type RequestHeader struct {
	// ClientCAFile holds the authority's certificates in PEM. It is followed.
	ClientCAFile string
	// AllowedNames are the common names that count; none is any.
	AllowedNames []string
	// The headers, in the order in which they are looked at, and what the names of those of extras begin with.
	UsernameHeaders, UIDHeaders, GroupHeaders, ExtraHeadersPrefix []string
}

// Check reports what is wrong, by the name of the flag.
func (h RequestHeader) Check(fault func(flag, format string, args ...any)) {
	for flag, list := range map[string][]string{
		"requestheader-allowed-names": h.AllowedNames, "requestheader-username-headers": h.UsernameHeaders, "requestheader-uid-headers": h.UIDHeaders,
		"requestheader-group-headers": h.GroupHeaders, "requestheader-extra-headers-prefix": h.ExtraHeadersPrefix,
	} {
		if slices.ContainsFunc(list, func(s string) bool { return strings.TrimSpace(s) == "" }) {
			fault(flag, "an empty name")
		}
		if len(list) > 0 && h.ClientCAFile == "" {
			fault(flag, "without --requestheader-client-ca-file nobody may say who a user is")
		}
	}
	if h.ClientCAFile != "" && len(h.UsernameHeaders) == 0 {
		fault("requestheader-username-headers", "--requestheader-client-ca-file is given, but no header that names the user")
	}
}

// FrontProxies are those that a member trusts. Make them with [NewFrontProxies].
type FrontProxies struct {
	each []*authenticatorfactory.RequestHeaderConfig
	// all of them as one: what is taken from requests before anybody else sees them, and what aggregated servers are told.
	all *authenticatorfactory.RequestHeaderConfig
}

// NewFrontProxies reads the authority of the administrator's proxy, if there is one.
func NewFrontProxies(keys *pki.PKI, own RequestHeader) (*FrontProxies, error) {
	usual := auth.FrontProxy(keys.FrontProxy(), pki.FrontProxyUser)
	p := &FrontProxies{each: []*authenticatorfactory.RequestHeaderConfig{usual}, all: usual}
	if own.ClientCAFile == "" {
		return p, nil
	}
	var errs []error
	own.Check(func(flag, format string, args ...any) {
		errs = append(errs, fmt.Errorf("--%s: %s", flag, fmt.Sprintf(format, args...)))
	})
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	ca, err := dynamiccertificates.NewDynamicCAContentFromFile("request-header", own.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("read the front proxy's authority: %w", err)
	}
	list := func(l []string) headerrequest.StringSliceProvider { return headerrequest.StaticStringSlice(l) }
	p.each = append(p.each, &authenticatorfactory.RequestHeaderConfig{
		CAContentProvider: ca, AllowedClientNames: list(own.AllowedNames), UsernameHeaders: list(own.UsernameHeaders), UIDHeaders: list(own.UIDHeaders),
		GroupHeaders: list(own.GroupHeaders), ExtraHeaderPrefixes: list(own.ExtraHeadersPrefix),
	})
	both := func(of func(*authenticatorfactory.RequestHeaderConfig) headerrequest.StringSliceProvider) headerrequest.StringSliceProvider {
		return list(joined(of(p.each[0]).Value(), of(p.each[1]).Value()))
	}
	p.all = &authenticatorfactory.RequestHeaderConfig{
		CAContentProvider: dynamiccertificates.NewUnionCAContentProvider(usual.CAContentProvider, ca),
		UsernameHeaders: both(func(c *authenticatorfactory.RequestHeaderConfig) headerrequest.StringSliceProvider {
			return c.UsernameHeaders
		}),
		UIDHeaders: both(func(c *authenticatorfactory.RequestHeaderConfig) headerrequest.StringSliceProvider {
			return c.UIDHeaders
		}),
		GroupHeaders: both(func(c *authenticatorfactory.RequestHeaderConfig) headerrequest.StringSliceProvider {
			return c.GroupHeaders
		}),
		ExtraHeaderPrefixes: both(func(c *authenticatorfactory.RequestHeaderConfig) headerrequest.StringSliceProvider {
			return c.ExtraHeaderPrefixes
		}),
		AllowedClientNames: list(anyOrUnion(usual.AllowedClientNames.Value(), own.AllowedNames)),
	}
	return p, nil
}

// joined joins two lists, each string once.
func joined(list, more []string) []string {
	list = slices.Clone(list)
	for _, item := range more {
		if !slices.Contains(list, item) {
			list = append(list, item)
		}
	}
	return list
}

// anyOrUnion joins two lists of names of which an empty one stands for any.
func anyOrUnion(list, more []string) []string {
	if len(list) == 0 || len(more) == 0 {
		return []string{}
	}
	return joined(list, more)
}
