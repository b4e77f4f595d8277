package kinds

import (
	"fmt"
	"net/url"
	"reflect"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/conversion"
	"k8s.io/apimachinery/pkg/runtime"
)

// addQueryOptions registers how the options of connect sub-resources are read from a request's query.
func addQueryOptions(scheme *runtime.Scheme) error {
	options := []runtime.Object{
		&corev1.PodLogOptions{}, &corev1.PodExecOptions{}, &corev1.PodAttachOptions{}, &corev1.PodPortForwardOptions{},
		&corev1.PodProxyOptions{}, &corev1.NodeProxyOptions{}, &corev1.ServiceProxyOptions{},
	}
	for _, o := range options {
		if err := scheme.AddConversionFunc((*url.Values)(nil), o, queryToOptions); err != nil {
			return err
		}
	}
	scheme.AddTypeDefaultingFunc(&corev1.PodLogOptions{}, func(obj any) {
		if o := obj.(*corev1.PodLogOptions); o.Stream == nil {
			all := corev1.LogStreamAll
			o.Stream = &all
		}
	})
	return nil
}

// queryToOptions sets each field of a flat options struct that the query names.
func queryToOptions(from, to any, scope conversion.Scope) error {
	query := *from.(*url.Values)
	v := reflect.ValueOf(to).Elem()
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		values, ok := query[name]
		if name == "" || !ok || len(values) == 0 {
			continue
		}
		if err := setFromQuery(v.Field(i), values, scope); err != nil {
			return fmt.Errorf("query parameter %s: %w", name, err)
		}
	}
	return nil
}

func setFromQuery(target reflect.Value, values []string, scope conversion.Scope) error {
	switch p := target.Addr().Interface().(type) {
	case *string:
		*p = values[0]
	case **string:
		*p = &values[0]
	case *bool:
		return runtime.Convert_Slice_string_To_bool(&values, p, scope)
	case **int64:
		return runtime.Convert_Slice_string_To_Pointer_int64(&values, p, scope)
	case **metav1.Time:
		return metav1.Convert_Slice_string_To_Pointer_v1_Time(&values, p, scope)
	case *[]string:
		*p = append([]string(nil), values...)
	case *[]int32:
		return setNumbers(p, values)
	default:
		return fmt.Errorf("no conversion to %s", target.Type())
	}
	return nil
}

func setNumbers(p *[]int32, values []string) error {
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			n, err := strconv.ParseInt(part, 10, 32)
			if err != nil {
				return err
			}
			*p = append(*p, int32(n))
		}
	}
	return nil
}
