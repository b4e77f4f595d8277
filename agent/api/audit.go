package api

import (
	"errors"

	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/options"
)

// Audit configures the audit log. The zero value keeps none.
type Audit struct {
	// PolicyFile is an audit.k8s.io Policy; without one nothing is recorded.
	PolicyFile string
	// LogFile receives one JSON event a line.
	LogFile string
	// MaxSizeMegabytes, MaxBackups and MaxAgeDays rotate LogFile; 0 means no limit but for the size, which is 100.
	MaxSizeMegabytes, MaxBackups, MaxAgeDays int
}

func (a Audit) apply(c *genericapiserver.Config) error {
	if (a.PolicyFile == "") != (a.LogFile == "") {
		return errors.New("an audit policy and an audit log file need each other")
	}
	o := options.NewAuditOptions()
	o.PolicyFile = a.PolicyFile
	o.LogOptions.Path = a.LogFile
	o.LogOptions.MaxSize, o.LogOptions.MaxBackups, o.LogOptions.MaxAge = a.MaxSizeMegabytes, a.MaxBackups, a.MaxAgeDays
	return o.ApplyTo(c)
}
