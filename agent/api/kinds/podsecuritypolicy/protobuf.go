package podsecuritypolicy

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// The policies' form in protobuf is read off the tags of their fields, as the generated code of published types was made from
// them: a few objects a cluster do not need to be fast.

// Marshal writes the policy in protobuf.
func (p *PodSecurityPolicy) Marshal() ([]byte, error) { return marshal(reflect.ValueOf(p).Elem()) }

// Unmarshal reads the policy from protobuf.
func (p *PodSecurityPolicy) Unmarshal(data []byte) error {
	return unmarshal(data, reflect.ValueOf(p).Elem())
}

// Reset empties the policy.
func (p *PodSecurityPolicy) Reset() { *p = PodSecurityPolicy{} }

// Marshal writes the list in protobuf.
func (l *PodSecurityPolicyList) Marshal() ([]byte, error) { return marshal(reflect.ValueOf(l).Elem()) }

// Unmarshal reads the list from protobuf.
func (l *PodSecurityPolicyList) Unmarshal(data []byte) error {
	return unmarshal(data, reflect.ValueOf(l).Elem())
}

// Reset empties the list.
func (l *PodSecurityPolicyList) Reset() { *l = PodSecurityPolicyList{} }

// generated are types of others, which know their own form.
type generated interface {
	Marshal() ([]byte, error)
	Unmarshal([]byte) error
}

// number is a field's in protobuf, 0 for one that has none.
func number(f reflect.StructField) protowire.Number {
	parts := strings.SplitN(f.Tag.Get("protobuf"), ",", 3)
	if len(parts) < 2 {
		return 0
	}
	n, err := strconv.Atoi(parts[1])
	if err != nil {
		return 0
	}
	return protowire.Number(n)
}

func marshal(message reflect.Value) ([]byte, error) {
	var out []byte
	for i := range message.NumField() {
		n := number(message.Type().Field(i))
		if n == 0 {
			continue
		}
		values := []reflect.Value{message.Field(i)}
		switch value := values[0]; value.Kind() {
		case reflect.Slice:
			values = nil
			for item := range value.Len() {
				values = append(values, value.Index(item))
			}
		case reflect.Pointer:
			if values[0] = value.Elem(); value.IsNil() {
				continue
			}
		}
		for _, value := range values {
			var err error
			if out, err = appendValue(out, n, value); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func appendValue(out []byte, n protowire.Number, value reflect.Value) ([]byte, error) {
	switch value.Kind() {
	case reflect.Bool:
		return protowire.AppendVarint(protowire.AppendTag(out, n, protowire.VarintType), protowire.EncodeBool(value.Bool())), nil
	case reflect.Int32, reflect.Int64:
		return protowire.AppendVarint(protowire.AppendTag(out, n, protowire.VarintType), uint64(value.Int())), nil
	case reflect.String:
		return protowire.AppendString(protowire.AppendTag(out, n, protowire.BytesType), value.String()), nil
	case reflect.Struct:
		encode := func() ([]byte, error) { return marshal(value) }
		if value.CanAddr() && !own(value.Type()) {
			if other, ok := value.Addr().Interface().(generated); ok {
				encode = other.Marshal
			}
		}
		inner, err := encode()
		if err != nil {
			return nil, err
		}
		return protowire.AppendBytes(protowire.AppendTag(out, n, protowire.BytesType), inner), nil
	}
	return nil, fmt.Errorf("write a policy in protobuf: a field is a %s", value.Type())
}

// own says that a type is one of this package.
func own(t reflect.Type) bool { return t.PkgPath() == reflect.TypeFor[PodSecurityPolicy]().PkgPath() }

// errMalformed is what is said of bytes that are no policy.
var errMalformed = errors.New("read a policy from protobuf: malformed")

func unmarshal(data []byte, message reflect.Value) error {
	fields := map[protowire.Number]int{}
	for i := range message.NumField() {
		if n := number(message.Type().Field(i)); n != 0 {
			fields[n] = i
		}
	}
	for len(data) > 0 {
		n, form, size := protowire.ConsumeTag(data)
		if size < 0 {
			return errMalformed
		}
		data = data[size:]
		size = protowire.ConsumeFieldValue(n, form, data)
		if size < 0 {
			return errMalformed
		}
		if i, ok := fields[n]; ok {
			if err := setField(message.Field(i), form, data[:size]); err != nil {
				return err
			}
		} // else one of a later version
		data = data[size:]
	}
	return nil
}

// setField adds to a list, or sets what is no list.
func setField(field reflect.Value, form protowire.Type, data []byte) error {
	switch field.Kind() {
	case reflect.Slice:
		item := reflect.New(field.Type().Elem()).Elem()
		if err := setValue(item, form, data); err != nil {
			return err
		}
		field.Set(reflect.Append(field, item))
		return nil
	case reflect.Pointer:
		if field.IsNil() {
			field.Set(reflect.New(field.Type().Elem()))
		}
		return setValue(field.Elem(), form, data)
	}
	return setValue(field, form, data)
}

func setValue(value reflect.Value, form protowire.Type, data []byte) error {
	switch kind := value.Kind(); {
	case form == protowire.VarintType && (kind == reflect.Bool || kind == reflect.Int32 || kind == reflect.Int64):
		number, _ := protowire.ConsumeVarint(data)
		if kind == reflect.Bool {
			value.SetBool(protowire.DecodeBool(number))
		} else if value.OverflowInt(int64(number)) {
			return errMalformed
		} else {
			value.SetInt(int64(number))
		}
		return nil
	case form == protowire.BytesType && kind == reflect.String:
		text, _ := protowire.ConsumeString(data)
		value.SetString(text)
		return nil
	case form == protowire.BytesType && kind == reflect.Struct:
		inner, _ := protowire.ConsumeBytes(data)
		if other, ok := value.Addr().Interface().(generated); ok && !own(value.Type()) {
			return other.Unmarshal(inner)
		}
		return unmarshal(inner, value)
	}
	return errMalformed
}
