package podsecuritypolicy

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fill sets everything of a value, so that no two fields are the same.
func fill(r *rand.Rand, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(r, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			fill(r, v.Field(i))
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(r, v.Index(i))
		}
	case reflect.String:
		v.SetString(string(rune('a' + r.IntN(26))))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32, reflect.Int64:
		v.SetInt(int64(r.Int32()) - 1<<30)
	default:
		panic(v.Type().String())
	}
}

func filled(seed uint64) *PodSecurityPolicy {
	p := &PodSecurityPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p", Annotations: map[string]string{"a": "b"}}}
	fill(rand.New(rand.NewPCG(seed, 0)), reflect.ValueOf(&p.Spec).Elem())
	return p
}

// shared finds a pointer or list that both values have.
func shared(a, b reflect.Value, path string) string {
	switch a.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		if !a.IsNil() && a.UnsafePointer() == b.UnsafePointer() {
			return path
		}
	}
	switch a.Kind() {
	case reflect.Pointer:
		return shared(a.Elem(), b.Elem(), path)
	case reflect.Struct:
		for i := range a.NumField() {
			if found := shared(a.Field(i), b.Field(i), path+"."+a.Type().Field(i).Name); found != "" {
				return found
			}
		}
	}
	return ""
}

func TestCopiesShareNothing(t *testing.T) {
	p := filled(1)
	list := &PodSecurityPolicyList{ListMeta: metav1.ListMeta{ResourceVersion: "7"}, Items: []PodSecurityPolicy{*p}}
	again := list.DeepCopyObject().(*PodSecurityPolicyList)
	if !reflect.DeepEqual(list, again) || !reflect.DeepEqual(p, p.DeepCopyObject()) {
		t.Error("a copy is not the same")
	}
	if at := shared(reflect.ValueOf(list.Items[0].Spec), reflect.ValueOf(again.Items[0].Spec), "spec"); at != "" {
		t.Errorf("a copy shares %s", at)
	}
	if list.Items[0].Annotations["a"] = "c"; again.Items[0].Annotations["a"] != "b" {
		t.Error("a copy shares metadata")
	}
}

func TestProtobufRoundTrip(t *testing.T) {
	for seed := range uint64(50) {
		list := &PodSecurityPolicyList{ListMeta: metav1.ListMeta{ResourceVersion: "7"}, Items: []PodSecurityPolicy{*filled(seed), {}}}
		data, err := list.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		var again PodSecurityPolicyList
		if err := again.Unmarshal(data); err != nil || !reflect.DeepEqual(list, &again) {
			t.Fatalf("%v: got %+v, want %+v", err, again, list)
		}
	}
}

// TestProtobufIsKubernetes: the bytes are those that the types of k8s.io/api v0.24.17 made of the same policy.
func TestProtobufIsKubernetes(t *testing.T) {
	text, err := os.ReadFile("testdata/policy.json")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/policy.pb")
	if err != nil {
		t.Fatal(err)
	}
	var p, again PodSecurityPolicy
	if err := json.Unmarshal(text, &p); err != nil {
		t.Fatal(err)
	}
	p.TypeMeta = metav1.TypeMeta{}
	if err := again.Unmarshal(want); err != nil || !reflect.DeepEqual(p, again) {
		t.Errorf("%v: read %+v, want %+v", err, again, p)
	}
	got, err := p.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	var written PodSecurityPolicy
	if err := written.Unmarshal(got); err != nil || !reflect.DeepEqual(p, written) {
		t.Errorf("%v: wrote %+v, want %+v", err, written, p)
	}
	// Metadata has lost a field since, and the order of fields is free.
	if got, want := sorted(t, got), sorted(t, want); got != want {
		t.Errorf("wrote %q, want %q", got, want)
	}
}

// sorted are the fields of a policy's specification, by their numbers.
func sorted(t *testing.T, data []byte) string {
	t.Helper()
	fields := func(data []byte, wanted protowire.Number) (all []string) {
		for len(data) > 0 {
			n, _, size := protowire.ConsumeField(data)
			if size < 0 {
				t.Fatalf("malformed: %x", data)
			}
			if wanted == 0 || n == wanted {
				all = append(all, string(data[:size]))
			}
			data = data[size:]
		}
		slices.Sort(all)
		return all
	}
	specs := fields(data, 2)
	if len(specs) != 1 {
		t.Fatalf("%d specifications", len(specs))
	}
	_, _, tag := protowire.ConsumeTag([]byte(specs[0]))
	inner, _ := protowire.ConsumeBytes([]byte(specs[0])[tag:])
	return strings.Join(fields(inner, 0), "")
}

// FuzzUnmarshal: no bytes end the server, and what can be read can be written.
func FuzzUnmarshal(f *testing.F) {
	data, err := filled(1).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range [][]byte{data, data[:len(data)/2], {0x12, 0xff}, {0x12, 0x02, 0x08, 0x01}, {}} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var p PodSecurityPolicy
		if p.Unmarshal(data) != nil {
			return
		}
		if _, err := p.Marshal(); err != nil {
			t.Error(err)
		}
	})
}
