package dns

import "net/netip"

// Service is what names of a service are made of. Its JSON form goes to netd and to disk.
type Service struct {
	Namespace string `json:"ns"`
	Name      string `json:"name"`
	// ClusterIPs of the service; a headless one has none.
	ClusterIPs []netip.Addr `json:"ips,omitempty"`
	// ExternalName, when set, makes the name an alias and nothing else.
	ExternalName string `json:"external,omitempty"`
	Ports        []Port `json:"ports,omitempty"`
	// Endpoints of a headless service: those that are to be published.
	Endpoints []Endpoint `json:"endpoints,omitempty"`
}

// Port is a named port; ports without a name have no records of their own.
type Port struct {
	Name string `json:"name,omitempty"`
	// Protocol in lower case.
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port"`
}

// Endpoint is one address of a headless service.
type Endpoint struct {
	Addr netip.Addr `json:"ip"`
	// Hostname of the pod below the service's name, or empty.
	Hostname string `json:"hostname,omitempty"`
	Ports    []Port `json:"ports,omitempty"`
}

// Key is the service's "namespace/name".
func (s *Service) Key() string { return s.Namespace + "/" + s.Name }

func (s *Service) headless() bool { return len(s.ClusterIPs) == 0 && s.ExternalName == "" }

// Update changes records. With Full set, Upserts are everything there is.
type Update struct {
	Full    bool      `json:"full,omitempty"`
	Upserts []Service `json:"upserts,omitempty"`
	Deletes []string  `json:"deletes,omitempty"`
}
