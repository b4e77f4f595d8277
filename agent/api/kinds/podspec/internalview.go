package podspec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// apiPackages is where the types live that are shown by their Go names.
const apiPackages = "k8s.io/api/"

// InternalView wraps a value for an error text. Kubernetes prints the types that it keeps inside, which have no JSON
// names: every field appears, also the empty ones, under its Go name.
func InternalView(v any) json.Marshaler { return internalView{v} }

type internalView struct{ value any }

// MarshalJSON implements json.Marshaler.
func (v internalView) MarshalJSON() ([]byte, error) {
	var out bytes.Buffer
	err := writeInternal(&out, reflect.ValueOf(v.value))
	return out.Bytes(), err
}

func writeInternal(out *bytes.Buffer, v reflect.Value) error {
	if !v.IsValid() {
		out.WriteString("null")
		return nil
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if v.IsNil() {
			out.WriteString("null")
			return nil
		}
		return writeInternal(out, v.Elem())
	case reflect.Struct:
		if strings.HasPrefix(v.Type().PkgPath(), apiPackages) {
			return writeStruct(out, v)
		}
	case reflect.Slice:
		if !v.IsNil() && v.Type().Elem().Kind() != reflect.Uint8 {
			return writeList(out, v)
		}
	case reflect.Map:
		if !v.IsNil() && v.Type().Key().Kind() == reflect.String {
			return writeMap(out, v)
		}
	}
	data, err := json.Marshal(v.Interface())
	if err != nil {
		return fmt.Errorf("write %s: %w", v.Type(), err)
	}
	out.Write(data)
	return nil
}

func writeStruct(out *bytes.Buffer, v reflect.Value) error {
	out.WriteByte('{')
	first := true
	if err := writeFields(out, v, &first); err != nil {
		return err
	}
	out.WriteByte('}')
	return nil
}

// writeFields writes the fields of a struct, and those of the structs embedded in it as its own.
func writeFields(out *bytes.Buffer, v reflect.Value, first *bool) error {
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Anonymous && f.Type.Kind() == reflect.Struct && !strings.HasPrefix(f.Type.PkgPath(), apiPackages) {
			if err := writeTagged(out, v.Field(i), first); err != nil {
				return err
			}
			continue
		}
		if f.Anonymous && f.Type.Kind() == reflect.Struct {
			if err := writeFields(out, v.Field(i), first); err != nil {
				return err
			}
			continue
		}
		if !*first {
			out.WriteByte(',')
		}
		*first = false
		fmt.Fprintf(out, "%q:", f.Name)
		if err := writeInternal(out, v.Field(i)); err != nil {
			return err
		}
	}
	return nil
}

// writeTagged writes the fields of an embedded struct that keeps its JSON names (object metadata).
func writeTagged(out *bytes.Buffer, v reflect.Value, first *bool) error {
	data, err := json.Marshal(v.Interface())
	if err != nil {
		return fmt.Errorf("write %s: %w", v.Type(), err)
	}
	inner := bytes.TrimSuffix(bytes.TrimPrefix(data, []byte("{")), []byte("}"))
	if len(inner) == 0 {
		return nil
	}
	if !*first {
		out.WriteByte(',')
	}
	*first = false
	out.Write(inner)
	return nil
}

func writeList(out *bytes.Buffer, v reflect.Value) error {
	out.WriteByte('[')
	for i := range v.Len() {
		if i > 0 {
			out.WriteByte(',')
		}
		if err := writeInternal(out, v.Index(i)); err != nil {
			return err
		}
	}
	out.WriteByte(']')
	return nil
}

func writeMap(out *bytes.Buffer, v reflect.Value) error {
	values := map[string]reflect.Value{}
	for _, key := range v.MapKeys() {
		values[key.String()] = v.MapIndex(key)
	}
	out.WriteByte('{')
	for i, key := range slices.Sorted(maps.Keys(values)) {
		if i > 0 {
			out.WriteByte(',')
		}
		name, err := json.Marshal(key)
		if err != nil {
			return err
		}
		out.Write(name)
		out.WriteByte(':')
		if err := writeInternal(out, values[key]); err != nil {
			return err
		}
	}
	out.WriteByte('}')
	return nil
}
