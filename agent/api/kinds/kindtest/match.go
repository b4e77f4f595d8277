package kindtest

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// badRequest is a refusal without a field.
const badRequest field.ErrorType = "BadRequest"

// errorTypes maps the names of rows to types of errors.
func errorTypes() map[string]field.ErrorType {
	return map[string]field.ErrorType{
		"NotFound": field.ErrorTypeNotFound, "Required": field.ErrorTypeRequired, "Duplicate": field.ErrorTypeDuplicate,
		"Invalid": field.ErrorTypeInvalid, "NotSupported": field.ErrorTypeNotSupported, "Forbidden": field.ErrorTypeForbidden,
		"TooLong": field.ErrorTypeTooLong, "TooMany": field.ErrorTypeTooMany, "Internal": field.ErrorTypeInternal,
		"TypeInvalid": field.ErrorTypeTypeInvalid, "TooFew": field.ErrorTypeTooFew, "TooShort": field.ErrorTypeTooShort,
	}
}

func typeName(t field.ErrorType) string {
	for name, known := range errorTypes() {
		if known == t {
			return name
		}
	}
	return string(t)
}

// parseErrors splits a row's errors, sorted and each once.
func parseErrors(list string) ([]string, error) {
	if list == "" {
		return nil, nil
	}
	errs := strings.Split(list, "; ")
	for _, e := range errs {
		name, _, ok := strings.Cut(e, " ")
		if e == string(badRequest) {
			continue
		}
		if _, known := errorTypes()[name]; !ok || !known {
			return nil, fmt.Errorf("row's error %q is not of the form TYPE PATH", e)
		}
	}
	slices.Sort(errs)
	return slices.Compact(errs), nil
}

// valuesAt returns what a JSON document has at a path; "[]" and "{}" stand for every item.
func valuesAt(document any, path string) []any {
	values := []any{document}
	for step := range strings.SplitSeq(path, ".") {
		name := strings.TrimRight(step, "[]{}")
		var next []any
		for _, v := range values {
			object, ok := v.(map[string]any)
			if child := object[name]; ok && child != nil {
				next = append(next, items(child, strings.TrimPrefix(step, name))...)
			}
		}
		values = next
	}
	return values
}

// items opens lists and maps as often as the suffix says.
func items(value any, suffix string) []any {
	values := []any{value}
	for ; len(suffix) >= 2; suffix = suffix[2:] {
		var next []any
		for _, v := range values {
			switch v := v.(type) {
			case []any:
				next = append(next, v...)
			case map[string]any:
				for _, item := range v {
					next = append(next, item)
				}
			}
		}
		values = next
	}
	return values
}

// contains says where a document lacks a wanted value. A wanted null says nothing; lists must be as long.
func contains(have, want any, path string) error {
	switch want := want.(type) {
	case nil:
		return nil
	case map[string]any:
		object, ok := have.(map[string]any)
		if !ok {
			return fmt.Errorf("%s is %v, want an object", path, have)
		}
		for name, value := range want {
			if err := contains(object[name], value, strings.TrimPrefix(path+"."+name, ".")); err != nil {
				return err
			}
		}
		return nil
	case []any:
		list, ok := have.([]any)
		if !ok || len(list) != len(want) {
			return fmt.Errorf("%s is %v, want %v", path, have, want)
		}
		for i := range want {
			if err := contains(list[i], want[i], fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
		return nil
	}
	if !reflect.DeepEqual(have, want) {
		return fmt.Errorf("%s is %v, want %v", path, have, want)
	}
	return nil
}
