package consensus

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/podvine/podvine/consensus/store"
)

// The store protocol is frames in both directions of one connection: length of the rest (32 bits, big-endian), kind (a
// byte), number (64 bits), payload. The dialing side asks, any number of questions at once; an answer bears the number of
// its question. Every answer begins with a commitPoint, and the other side sends one unasked when more is committed.
type frameKind uint8

const (
	framePropose frameKind = 1
	frameRead    frameKind = 2
	frameStatus  frameKind = 3
	framePing    frameKind = 4

	frameAnswer frameKind = 0x80
	frameCommit frameKind = 0x81
)

// answerCode is the first byte of an answer after the commit point.
type answerCode uint8

const (
	answerOK        answerCode = 0
	answerNotLeader answerCode = 1
	answerBusy      answerCode = 2
	answerUnknown   answerCode = 3
	answerRefused   answerCode = 4
)

const (
	frameHeadBytes = 4 + 1 + 8
	// maxFrameBytes bounds a message; a forwarded write must fit into one.
	maxFrameBytes = 32 << 20
)

var errFrame = errors.New("malformed message between replicas")

// commitPoint says that a leader of Term knows the entry Index, written in IndexTerm, to be committed.
type commitPoint struct {
	Term, Index, IndexTerm uint64
}

func (c commitPoint) encode(buf []byte) []byte {
	buf = binary.AppendUvarint(buf, c.Term)
	buf = binary.AppendUvarint(buf, c.Index)
	return binary.AppendUvarint(buf, c.IndexTerm)
}

// frame is one message.
type frame struct {
	kind    frameKind
	number  uint64
	payload []byte
}

func (f frame) encode() ([]byte, error) {
	size := frameHeadBytes - 4 + len(f.payload)
	if size > maxFrameBytes {
		return nil, fmt.Errorf("message of %d bytes exceeds %d", size, maxFrameBytes)
	}
	buf := make([]byte, 0, 4+size)
	buf = binary.BigEndian.AppendUint32(buf, uint32(size))
	buf = append(buf, byte(f.kind))
	buf = binary.BigEndian.AppendUint64(buf, f.number)
	return append(buf, f.payload...), nil
}

func readFrame(r *bufio.Reader) (frame, error) {
	var head [frameHeadBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return frame{}, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size < frameHeadBytes-4 || size > maxFrameBytes {
		return frame{}, fmt.Errorf("%w: %d bytes", errFrame, size)
	}
	f := frame{kind: frameKind(head[4]), number: binary.BigEndian.Uint64(head[5:])}
	f.payload = make([]byte, size-(frameHeadBytes-4))
	_, err := io.ReadFull(r, f.payload)
	return f, err
}

// answer is what a leader says to a question.
type answer struct {
	at   commitPoint
	code answerCode
	body []byte
}

func (a answer) encode() []byte {
	buf := a.at.encode(make([]byte, 0, 32+len(a.body)))
	return append(append(buf, byte(a.code)), a.body...)
}

func decodeAnswer(payload []byte) (answer, error) {
	at, rest, err := decodeCommit(payload)
	if err != nil || len(rest) == 0 {
		return answer{}, errFrame
	}
	return answer{at: at, code: answerCode(rest[0]), body: rest[1:]}, nil
}

func decodeCommit(payload []byte) (commitPoint, []byte, error) {
	var values [3]uint64
	for i := range values {
		v, n := binary.Uvarint(payload)
		if n <= 0 {
			return commitPoint{}, nil, errFrame
		}
		values[i], payload = v, payload[n:]
	}
	return commitPoint{Term: values[0], Index: values[1], IndexTerm: values[2]}, payload, nil
}

func encodeResult(r store.Result) []byte {
	buf := []byte{byte(r.Code), 0}
	if r.Duplicate {
		buf[1] = 1
	}
	buf = binary.AppendVarint(buf, r.Revision)
	buf = binary.AppendVarint(buf, r.FirstRevision)
	return binary.AppendVarint(buf, int64(r.FailedOp))
}

func decodeResult(body []byte) (store.Result, error) {
	if len(body) < 2 {
		return store.Result{}, errFrame
	}
	r := store.Result{Code: store.Code(body[0]), Duplicate: body[1] == 1}
	body = body[2:]
	var values [3]int64
	for i := range values {
		v, n := binary.Varint(body)
		if n <= 0 {
			return store.Result{}, errFrame
		}
		values[i], body = v, body[n:]
	}
	r.Revision, r.FirstRevision, r.FailedOp = values[0], values[1], int(values[2])
	return r, nil
}

func encodeCommand(c store.Command) []byte {
	g := store.Group{Commands: []store.Command{c}}
	return g.Encode(make([]byte, 0, 64+c.EncodedSizeBytes()))
}

func decodeCommand(body []byte) (store.Command, error) {
	g, err := store.DecodeGroup(body)
	if err != nil || len(g.Commands) != 1 {
		return store.Command{}, errFrame
	}
	return g.Commands[0], nil
}

// answerError turns the code of an answer into the error that it stands for.
func answerError(a answer) error {
	switch a.code {
	case answerOK:
		return nil
	case answerNotLeader:
		return fmt.Errorf("%w: %s", ErrNotLeader, a.body)
	case answerBusy:
		return fmt.Errorf("%w: %s", ErrBusy, a.body)
	case answerRefused:
		return fmt.Errorf("%w: %s", ErrStranger, a.body)
	default:
		return unknown(errors.New(string(a.body)))
	}
}
