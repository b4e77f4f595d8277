package podspec

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// handler is what a probe or a hook does; exactly one of it.
type handler struct {
	exec  *corev1.ExecAction
	http  *corev1.HTTPGetAction
	tcp   *corev1.TCPSocketAction
	grpc  *corev1.GRPCAction
	sleep *corev1.SleepAction
}

func (c *checker) lifecycle(l *corev1.Lifecycle, path *field.Path) field.ErrorList {
	if l == nil {
		return nil
	}
	var errs field.ErrorList
	if h := l.PostStart; h != nil {
		errs = append(errs, c.handler(handler{exec: h.Exec, http: h.HTTPGet, tcp: h.TCPSocket, sleep: h.Sleep}, path.Child("postStart"))...)
	}
	if h := l.PreStop; h != nil {
		errs = append(errs, c.handler(handler{exec: h.Exec, http: h.HTTPGet, tcp: h.TCPSocket, sleep: h.Sleep}, path.Child("preStop"))...)
	}
	return errs
}

// probes checks the three probes of a container that runs for long.
func (c *checker) probes(ctr *corev1.Container, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if p, path := ctr.LivenessProbe, at.Child("livenessProbe"); p != nil {
		errs = append(errs, c.probe(p, path)...)
		errs = append(errs, succeedsOnce(p, path)...)
	}
	if p, path := ctr.ReadinessProbe, at.Child("readinessProbe"); p != nil {
		errs = append(errs, c.probe(p, path)...)
		if p.TerminationGracePeriodSeconds != nil {
			errs = append(errs, field.Invalid(path.Child("terminationGracePeriodSeconds"), *p.TerminationGracePeriodSeconds, "must not be set for readinessProbes"))
		}
	}
	if p, path := ctr.StartupProbe, at.Child("startupProbe"); p != nil {
		errs = append(errs, c.probe(p, path)...)
		errs = append(errs, succeedsOnce(p, path)...)
	}
	return errs
}

func succeedsOnce(p *corev1.Probe, path *field.Path) field.ErrorList {
	if p.SuccessThreshold == 1 {
		return nil
	}
	return field.ErrorList{field.Invalid(path.Child("successThreshold"), p.SuccessThreshold, "must be 1")}
}

func (c *checker) probe(p *corev1.Probe, path *field.Path) field.ErrorList {
	errs := c.handler(handler{exec: p.Exec, http: p.HTTPGet, tcp: p.TCPSocket, grpc: p.GRPC}, path)
	notNegative := func(value int32, name string) {
		errs = append(errs, apivalidation.ValidateNonnegativeField(int64(value), path.Child(name))...)
	}
	notNegative(p.InitialDelaySeconds, "initialDelaySeconds")
	notNegative(p.TimeoutSeconds, "timeoutSeconds")
	notNegative(p.PeriodSeconds, "periodSeconds")
	notNegative(p.SuccessThreshold, "successThreshold")
	notNegative(p.FailureThreshold, "failureThreshold")
	if s := p.TerminationGracePeriodSeconds; s != nil && *s <= 0 {
		errs = append(errs, field.Invalid(path.Child("terminationGracePeriodSeconds"), *s, "must be greater than 0"))
	}
	return errs
}

func (c *checker) handler(h handler, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	count := 0
	// Of several handlers the first is checked, the others are refused.
	visit := func(set bool, name string, check func(*field.Path) field.ErrorList) {
		if !set {
			return
		}
		if count++; count > 1 {
			errs = append(errs, field.Forbidden(path.Child(name), "may not specify more than 1 handler type"))
			return
		}
		errs = append(errs, check(path.Child(name))...)
	}
	visit(h.exec != nil, "exec", func(p *field.Path) field.ErrorList {
		if len(h.exec.Command) == 0 {
			return field.ErrorList{field.Required(p.Child("command"), "")}
		}
		return nil
	})
	visit(h.http != nil, "httpGet", func(p *field.Path) field.ErrorList { return httpGet(h.http, p) })
	visit(h.tcp != nil, "tcpSocket", func(p *field.Path) field.ErrorList { return ValidatePort(h.tcp.Port, p.Child("port")) })
	visit(h.grpc != nil, "grpc", func(p *field.Path) field.ErrorList {
		return ValidatePort(intstr.FromInt32(h.grpc.Port), p.Child("port"))
	})
	visit(h.sleep != nil, "sleep", func(p *field.Path) field.ErrorList {
		if s := h.sleep.Seconds; s < 0 || s > c.graceSeconds {
			return field.ErrorList{field.Invalid(p, s, fmt.Sprintf("must be non-negative and less than terminationGracePeriodSeconds (%d)", c.graceSeconds))}
		}
		return nil
	})
	if count == 0 {
		errs = append(errs, field.Required(path, "must specify a handler type"))
	}
	return errs
}

func httpGet(get *corev1.HTTPGetAction, path *field.Path) field.ErrorList {
	errs := required(get.Path, path.Child("path"))
	errs = append(errs, ValidatePort(get.Port, path.Child("port"))...)
	errs = append(errs, OneOf(get.Scheme, path.Child("scheme"), corev1.URISchemeHTTP, corev1.URISchemeHTTPS)...)
	for _, h := range get.HTTPHeaders {
		errs = append(errs, invalid(path.Child("httpHeaders"), h.Name, validation.IsHTTPHeaderName(h.Name))...)
	}
	return errs
}

// ValidatePort accepts a port number, or the name of a port.
func ValidatePort(port intstr.IntOrString, path *field.Path) field.ErrorList {
	switch port.Type {
	case intstr.Int:
		return invalid(path, port.IntValue(), validation.IsValidPortNum(port.IntValue()))
	case intstr.String:
		return invalid(path, port.StrVal, validation.IsValidPortName(port.StrVal))
	}
	return field.ErrorList{field.InternalError(path, fmt.Errorf("unknown type: %v", port.Type))}
}
