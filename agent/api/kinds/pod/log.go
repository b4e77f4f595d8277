package pod

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericrest "k8s.io/apiserver/pkg/registry/generic/rest"
)

// logREST is pods/log: the output of a container, as its node tells it.
type logREST struct{ *reach }

// New implements rest.Storage.
func (r *logREST) New() runtime.Object { return &corev1.Pod{} }

// Destroy implements rest.Storage.
func (r *logREST) Destroy() {}

// ProducesMIMETypes implements rest.StorageMetadata.
func (r *logREST) ProducesMIMETypes(string) []string { return []string{"text/plain"} }

// ProducesObject implements rest.StorageMetadata.
func (r *logREST) ProducesObject(string) any { return "" }

// NewGetOptions implements rest.GetterWithOptions.
func (r *logREST) NewGetOptions() (runtime.Object, bool, string) {
	return &corev1.PodLogOptions{}, false, ""
}

// OverrideMetricsVerb implements rest.StorageMetadata for metrics: reading a log is a connection.
func (r *logREST) OverrideMetricsVerb(verb string) string {
	if verb == "GET" {
		return "CONNECT"
	}
	return verb
}

// Get implements rest.GetterWithOptions.
func (r *logREST) Get(ctx context.Context, name string, options runtime.Object) (runtime.Object, error) {
	opts, ok := options.(*corev1.PodLogOptions)
	if !ok {
		return nil, fmt.Errorf("invalid options object: %#v", options)
	}
	if errs := validateLogOptions(opts); len(errs) > 0 {
		return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("PodLogOptions").GroupKind(), name, errs)
	}
	p, err := getPod(ctx, r.pods, name)
	if err != nil {
		return nil, err
	}
	container, err := chooseContainer(opts.Container, p)
	if err != nil {
		return nil, err
	}
	stream := &genericrest.LocationStreamer{
		ContentType:     "text/plain",
		Flush:           opts.Follow,
		ResponseChecker: genericrest.NewGenericHttpResponseChecker(corev1.Resource("pods/log"), name),
		RedirectChecker: genericrest.PreventRedirects,
	}
	if p.Spec.NodeName == "" {
		return stream, nil // A pod on no node has said nothing yet.
	}
	where, err := r.connect(ctx, p)
	if err != nil {
		return nil, err
	}
	stream.Location = where.url(where.containerPath("containerLogs", container), logQuery(opts))
	stream.Transport = where.connection.Transport
	if opts.InsecureSkipTLSVerifyBackend {
		stream.Transport = where.connection.InsecureTransport
	}
	return stream, nil
}

func logQuery(o *corev1.PodLogOptions) url.Values {
	query := url.Values{}
	flag := func(set bool, name string) {
		if set {
			query.Set(name, "true")
		}
	}
	number := func(n *int64, name string) {
		if n != nil {
			query.Set(name, strconv.FormatInt(*n, 10))
		}
	}
	flag(o.Follow, "follow")
	flag(o.Previous, "previous")
	flag(o.Timestamps, "timestamps")
	number(o.SinceSeconds, "sinceSeconds")
	number(o.TailLines, "tailLines")
	number(o.LimitBytes, "limitBytes")
	if o.SinceTime != nil {
		query.Set("sinceTime", o.SinceTime.Format(time.RFC3339))
	}
	if o.Stream != nil && *o.Stream != corev1.LogStreamAll {
		query.Set("stream", *o.Stream)
	}
	return query
}

func validateLogOptions(o *corev1.PodLogOptions) field.ErrorList {
	var errs field.ErrorList
	if o.TailLines != nil && *o.TailLines < 0 {
		errs = append(errs, field.Invalid(field.NewPath("tailLines"), *o.TailLines, "must be greater than or equal to 0"))
	}
	if o.LimitBytes != nil && *o.LimitBytes < 1 {
		errs = append(errs, field.Invalid(field.NewPath("limitBytes"), *o.LimitBytes, "must be greater than 0"))
	}
	switch {
	case o.SinceSeconds != nil && o.SinceTime != nil:
		errs = append(errs, field.Forbidden(field.NewPath(""), "at most one of `sinceTime` or `sinceSeconds` may be specified"))
	case o.SinceSeconds != nil && *o.SinceSeconds < 1:
		errs = append(errs, field.Invalid(field.NewPath("sinceSeconds"), *o.SinceSeconds, "must be greater than 0"))
	}
	if o.Stream == nil {
		return errs
	}
	streams := []string{corev1.LogStreamAll, corev1.LogStreamStderr, corev1.LogStreamStdout}
	switch *o.Stream {
	case corev1.LogStreamAll:
	case corev1.LogStreamStderr, corev1.LogStreamStdout:
		if o.TailLines != nil {
			errs = append(errs, field.Forbidden(field.NewPath(""), "`tailLines` and specific `stream` are mutually exclusive for now"))
		}
	default:
		errs = append(errs, field.NotSupported(field.NewPath("stream"), *o.Stream, streams))
	}
	return errs
}
