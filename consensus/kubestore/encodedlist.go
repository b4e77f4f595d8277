package kubestore

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"reflect"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/podvine/podvine/consensus/store"
)

// What a list in protobuf is made of: field numbers and wire types as the bytes that begin a field. Strings and messages alike
// are a length and then the content.
const (
	protobufPrefix = "k8s\x00"
	typeField      = 1<<3 | 2 // of the envelope: apiVersion and kind
	rawField       = 2<<3 | 2 // of the envelope: the object
	metadataField  = 1<<3 | 2 // of objects and lists
	itemsField     = 2<<3 | 2 // of lists
	versionField   = 6<<3 | 2 // of objects' metadata: the resource version
)

// emptyVersionBytes are those of an empty resource version: its tag and its length.
const emptyVersionBytes = 2

// scratchBytes hold what is written before an item, and a resource version.
const scratchBytes = 64

// protobufEncoder is in the identifier of encoders that write protobuf with its envelope.
const protobufEncoder = `"encoder":"protobuf"`

// What is known of the encoded form of an entry.
const (
	encodingUnknown uint32 = iota
	// encodingKept: the stored bytes with the resource version in its place are what the library would write.
	encodingKept
	// encodingDiffers: they are not, for instance because a newer default was added when they were read.
	encodingDiffers
)

type encodedKey struct{}

// WithEncodedLists returns the context of a request whose list is written in protobuf and looked at by nobody else.
func WithEncodedLists(ctx context.Context) context.Context {
	return context.WithValue(ctx, encodedKey{}, true)
}

type selectionKey struct{}

// selection is what a list selected, for one who writes it without making objects of it.
type selection struct {
	items []encodedItem
	// fill makes the list with that many of its items.
	fill func(items int) (runtime.Object, error)
}

// EncodedList returns what list returns; in a context of [WithEncodedLists] it may be a list whose items are not objects
// but what is stored of them, to be encoded only. The bytes are those that the list itself would be encoded to.
func EncodedList(ctx context.Context, list func(context.Context) (runtime.Object, error)) (runtime.Object, error) {
	if ctx.Value(encodedKey{}) == nil {
		return list(ctx)
	}
	s := &selection{}
	object, err := list(context.WithValue(ctx, selectionKey{}, s))
	if err != nil || len(s.items) == 0 {
		return object, err
	}
	return &encodedList{listObject: object.(listObject), selection: s}, nil
}

type listObject interface {
	runtime.Object
	metav1.ListInterface
}

// encodedList is a list without its items.
type encodedList struct {
	listObject
	*selection
}

var _ runtime.CacheableObject = (*encodedList)(nil)

// encodedItem is a stored object and its version. In plain, the object's metadata begins at begin; its empty resource version is
// at version; it ends at rest, and the object at end.
type encodedItem struct {
	plain                     []byte
	revision                  int64
	begin, version, rest, end uint32
}

// GetObject implements runtime.CacheableObject.
func (l *encodedList) GetObject() runtime.Object {
	full, err := l.fill(len(l.items))
	if err != nil {
		status := apierrors.NewInternalError(err).Status()
		return &status
	}
	return full
}

// DeepCopyObject implements runtime.Object.
func (l *encodedList) DeepCopyObject() runtime.Object { return l.GetObject().DeepCopyObject() }

// CacheEncode implements runtime.CacheableObject.
func (l *encodedList) CacheEncode(id runtime.Identifier, encode func(runtime.Object, io.Writer) error, w io.Writer) error {
	if strings.Contains(string(id), protobufEncoder) {
		if head, tail, ok := l.envelope(encode); ok {
			return l.write(head, tail, w)
		}
	}
	full, err := l.fill(len(l.items))
	if err != nil {
		return err
	}
	return encode(full, w)
}

// envelope is what the library puts before and after the items: taken from its own encoding of the list with one item, which
// must agree in that item too, so that a kind that is converted on its way out is not written as it is stored.
func (l *encodedList) envelope(encode func(runtime.Object, io.Writer) error) (head, tail []byte, ok bool) {
	var b, first bytes.Buffer
	probe, err := l.fill(1)
	if err != nil || encode(probe, &b) != nil || l.items[0].write(make([]byte, 0, scratchBytes), &first) != nil {
		return nil, nil, false
	}
	rest, ok := bytes.CutPrefix(b.Bytes(), []byte(protobufPrefix))
	if !ok {
		return nil, nil, false
	}
	kind, rest, ok := cutField(rest, typeField)
	if !ok {
		return nil, nil, false
	}
	raw, tail, ok := cutField(rest, rawField)
	if !ok {
		return nil, nil, false
	}
	metadata, ok := bytes.CutSuffix(raw, first.Bytes())
	if _, after, isField := cutField(metadata, metadataField); !ok || !isField || len(after) > 0 {
		return nil, nil, false
	}
	size := len(metadata)
	for i := range l.items {
		size += l.items[i].size()
	}
	head = appendField([]byte(protobufPrefix), typeField, kind)
	head = binary.AppendUvarint(append(head, rawField), uint64(size))
	return append(head, metadata...), tail, true
}

// write begins with the prefix alone, by which the library's writer knows an answer that comes in pieces: it gathers the first of
// them and compresses what is large.
func (l *encodedList) write(head, tail []byte, w io.Writer) error {
	for _, part := range [][]byte{head[:len(protobufPrefix)], head[len(protobufPrefix):]} {
		if _, err := w.Write(part); err != nil {
			return fmt.Errorf("write list: %w", err)
		}
	}
	scratch := make([]byte, 0, scratchBytes)
	for i := range l.items {
		if err := l.items[i].write(scratch, w); err != nil {
			return fmt.Errorf("write list: %w", err)
		}
	}
	if _, err := w.Write(tail); err != nil {
		return fmt.Errorf("write list: %w", err)
	}
	return nil
}

// locate finds the item's parts.
func (i *encodedItem) locate() bool {
	stored, ok := bytes.CutPrefix(i.plain, []byte(protobufPrefix))
	if !ok {
		return false
	}
	if _, stored, ok = cutField(stored, typeField); !ok {
		return false
	}
	object, tail, ok := cutField(stored, rawField)
	if !ok {
		return false
	}
	metadata, rest, ok := cutField(object, metadataField)
	if !ok {
		return false
	}
	at := metadata
	for len(at) > 0 && at[0] < versionField {
		if _, at, ok = cutField(at, at[0]); !ok {
			return false
		}
	}
	if len(at) < emptyVersionBytes || at[0] != versionField || at[1] != 0 {
		return false
	}
	i.end = uint32(len(i.plain) - len(tail))
	i.rest = i.end - uint32(len(rest))
	i.version, i.begin = i.rest-uint32(len(at)), i.rest-uint32(len(metadata))
	return true
}

// lengths are those of the object and of its metadata.
func (i *encodedItem) lengths() (object, metadata int) {
	metadata = int(i.rest-i.begin) - emptyVersionBytes + fieldSize(digits(i.revision))
	return fieldSize(metadata) + int(i.end-i.rest), metadata
}

// size is that of the item's field.
func (i *encodedItem) size() int {
	object, _ := i.lengths()
	return fieldSize(object)
}

// write writes the item's field.
func (i *encodedItem) write(scratch []byte, w io.Writer) error {
	object, metadata := i.lengths()
	head := binary.AppendUvarint(append(scratch[:0], itemsField), uint64(object))
	head = binary.AppendUvarint(append(head, metadataField), uint64(metadata))
	if _, err := w.Write(head); err != nil {
		return err
	}
	if _, err := w.Write(i.plain[i.begin:i.version]); err != nil {
		return err
	}
	version := append(scratch[:0], versionField, byte(digits(i.revision)))
	if _, err := w.Write(strconv.AppendInt(version, i.revision, 10)); err != nil {
		return err
	}
	_, err := w.Write(i.plain[i.version+emptyVersionBytes : i.end])
	return err
}

// selectEncoded leaves the entries to the context's selection if there is one and all can be written as they are stored.
func (r *resource) selectEncoded(ctx context.Context, items reflect.Value, entries []*store.Entry, fill func(int) (runtime.Object, error)) (bool, error) {
	s, ok := ctx.Value(selectionKey{}).(*selection)
	if !ok || r.unstructured || reflect.PointerTo(items.Type().Elem()) != r.owner {
		return false, nil
	}
	selected := make([]encodedItem, len(entries))
	for i, e := range entries {
		if i%ctxCheckEvery == 0 && ctx.Err() != nil {
			return false, ctx.Err()
		}
		a, err := r.attachment(ctx, e)
		if err != nil {
			return false, err
		}
		selected[i] = encodedItem{plain: a.Plain, revision: e.Revision}
		if !selected[i].locate() {
			return false, nil
		}
		state := a.Encoding.Load()
		if state == encodingUnknown {
			state = selected[i].check(a.Object)
			a.Encoding.Store(state)
		}
		if state != encodingKept {
			return false, nil
		}
	}
	s.items, s.fill = selected, fill
	return true, nil
}

// check compares the item with what the library makes of the object.
func (i *encodedItem) check(object any) uint32 {
	marshaler, ok := object.(interface{ Marshal() ([]byte, error) })
	if !ok {
		return encodingDiffers
	}
	want, err := marshaler.Marshal()
	if err != nil {
		return encodingDiffers
	}
	var b bytes.Buffer
	if err := i.write(make([]byte, 0, scratchBytes), &b); err != nil {
		return encodingDiffers
	}
	if got, rest, ok := cutField(b.Bytes(), itemsField); !ok || len(rest) > 0 || !bytes.Equal(got, want) {
		return encodingDiffers
	}
	return encodingKept
}

// cutField cuts a field off the front.
func cutField(from []byte, field byte) (content, rest []byte, ok bool) {
	if len(from) == 0 || from[0] != field || field&7 != 2 {
		return nil, nil, false
	}
	length, n := binary.Uvarint(from[1:])
	if n <= 0 || length > uint64(len(from)-1-n) {
		return nil, nil, false
	}
	at := 1 + n
	return from[at : at+int(length)], from[at+int(length):], true
}

func appendField(to []byte, field byte, content []byte) []byte {
	return append(binary.AppendUvarint(append(to, field), uint64(len(content))), content...)
}

// fieldSize is the size of a field with so long a content.
func fieldSize(length int) int { return 1 + (bits.Len64(uint64(length)|1)+6)/7 + length }

// digits is the length of a number in decimal.
func digits(n int64) int {
	count := 1
	for ; n >= 10; n /= 10 {
		count++
	}
	return count
}
