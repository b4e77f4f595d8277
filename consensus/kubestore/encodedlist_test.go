package kubestore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apiserver/pkg/storage"
	"pgregory.net/rapid"
)

// wireEncoder is the encoder of responses in a format.
func wireEncoder(t testing.TB, mediaType string) runtime.Encoder {
	t.Helper()
	scheme := runtime.NewScheme()
	utilruntime.Must(corev1.AddToScheme(scheme))
	codecs := serializer.NewCodecFactory(scheme)
	info, ok := runtime.SerializerInfoForMediaType(codecs.SupportedMediaTypes(), mediaType)
	if !ok {
		t.Fatalf("no serializer for %s", mediaType)
	}
	return codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion)
}

func listConfigMaps(ctx context.Context, s storage.Interface, pred storage.SelectionPredicate) (runtime.Object, error) {
	return EncodedList(ctx, func(ctx context.Context) (runtime.Object, error) {
		list := &corev1.ConfigMapList{}
		return list, s.GetList(ctx, "/configmaps", storage.ListOptions{Recursive: true, Predicate: pred}, list)
	})
}

func drawConfigMap(t *rapid.T, i int) *corev1.ConfigMap {
	text := rapid.StringN(0, 300, -1)
	object := configMap(fmt.Sprintf("c%03d", i), text.Draw(t, "value"))
	object.GenerateName = rapid.SampledFrom([]string{"", "c"}).Draw(t, "prefix")
	object.UID = "d3b0f7c2-0000-4000-8000-000000000000"
	if rapid.Bool().Draw(t, "labelled") {
		object.Labels = map[string]string{"app": rapid.SampledFrom([]string{"x", "y"}).Draw(t, "app"), "z": "1", "a": "2"}
	}
	if rapid.Bool().Draw(t, "managed") {
		object.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "m", Operation: "Update", APIVersion: "v1", Time: new(metav1.Unix(1, 0)),
			FieldsV1: metav1.NewFieldsV1(`{"f:data":{}}`)}}
		object.OwnerReferences = []metav1.OwnerReference{{Name: "o", Controller: new(true)}}
	}
	if rapid.Bool().Draw(t, "binary") {
		object.BinaryData = map[string][]byte{"b": []byte(text.Draw(t, "content")), "a": {}}
	}
	return object
}

// pieceWriter notes the sizes of what is written.
type pieceWriter []int

// Write implements io.Writer.
func (w *pieceWriter) Write(p []byte) (int, error) {
	*w = append(*w, len(p))
	return len(p), nil
}

// TestEncodedListsAreTheLibrarys: whatever is stored, and in whatever format, the bytes are those of the list with its items.
func TestEncodedListsAreTheLibrarys(t *testing.T) {
	k := newKinds(t, Options{})
	s := k.configMaps(t)
	formats := []runtime.Encoder{wireEncoder(t, runtime.ContentTypeProtobuf), wireEncoder(t, runtime.ContentTypeJSON)}
	made := 0
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.IntRange(1, 5).Draw(rt, "more") {
			object := drawConfigMap(rt, made)
			mustCreate(t, s, "/configmaps/ns/"+object.Name, object, nil)
			made++
		}
		pred := storage.Everything
		pred.Limit = rapid.SampledFrom([]int64{0, 1, 7}).Draw(rt, "limit")
		if rapid.IntRange(0, 3).Draw(rt, "select") == 0 {
			pred.Label = labels.SelectorFromSet(labels.Set{"app": "x"})
			pred.GetAttrs = storage.DefaultNamespaceScopedAttr
		}
		plain, err := listConfigMaps(t.Context(), s, pred)
		if err != nil {
			rt.Fatal(err)
		}
		encoded, err := listConfigMaps(WithEncodedLists(t.Context()), s, pred)
		if err != nil {
			rt.Fatal(err)
		}
		if _, ok := encoded.(*encodedList); ok != (len(plain.(*corev1.ConfigMapList).Items) > 0) {
			rt.Fatalf("the list is a %T", encoded)
		}
		for _, format := range formats {
			var want, got bytes.Buffer
			if err := format.Encode(plain, &want); err != nil {
				rt.Fatal(err)
			}
			if err := format.Encode(encoded, &got); err != nil {
				rt.Fatal(err)
			}
			if !bytes.Equal(want.Bytes(), got.Bytes()) {
				rt.Fatalf("%s:\n%q\nwant\n%q", format.Identifier(), got.Bytes(), want.Bytes())
			}
			pieces := pieceWriter{}
			if err := format.Encode(encoded, &pieces); err != nil {
				rt.Fatal(err)
			}
			// Or the library's writer does not gather them, and compresses nothing.
			if _, ok := encoded.(*encodedList); ok && len(pieces) > 1 && pieces[0] > len(protobufPrefix) {
				rt.Fatalf("%s: the first piece has %d bytes", format.Identifier(), pieces[0])
			}
		}
	})
}

// TestEncodedListsGiveWay: entries that the library would write differently, and encoders that convert, get the real list.
func TestEncodedListsGiveWay(t *testing.T) {
	k := newKinds(t, Options{})
	s := k.configMaps(t)
	mustCreate(t, s, "/configmaps/ns/a", configMap("a", "x"), nil)
	ctx := WithEncodedLists(t.Context())
	encoded, err := listConfigMaps(ctx, s, storage.Everything)
	if err != nil {
		t.Fatal(err)
	}
	list, ok := encoded.(*encodedList)
	if !ok {
		t.Fatalf("the list is a %T", encoded)
	}
	if full := list.GetObject().(*corev1.ConfigMapList); len(full.Items) != 1 || full.ResourceVersion == "" {
		t.Fatalf("the object is %+v", full)
	}
	var b strings.Builder
	err = list.CacheEncode(runtime.Identifier("{"+protobufEncoder+"}"), func(o runtime.Object, w io.Writer) error {
		_, err := fmt.Fprintf(w, "%T of %d", o, len(o.(*corev1.ConfigMapList).Items))
		return err
	}, &b)
	if err != nil || b.String() != "*v1.ConfigMapList of 1" {
		t.Fatalf("an encoder of another format wrote %q, %v", b.String(), err)
	}
	// The absent content comes back as an empty one, which is written.
	differs := configMap("b", "x")
	differs.BinaryData = map[string][]byte{"absent": nil}
	mustCreate(t, s, "/configmaps/ns/b", differs, nil)
	if encoded, err = listConfigMaps(ctx, s, storage.Everything); err != nil {
		t.Fatal(err)
	}
	if full, ok := encoded.(*corev1.ConfigMapList); !ok || len(full.Items) != 2 {
		t.Fatalf("a list with an object that is not written as it is stored is a %T", encoded)
	}
}
