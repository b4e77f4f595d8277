package store

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// OpKind says what an operation does to its key.
type OpKind uint8

const (
	// OpPut writes a value.
	OpPut OpKind = 1
	// OpDelete removes the key. Removing an absent key unconditionally writes nothing.
	OpDelete OpKind = 2
	// OpCheck only tests the expectation.
	OpCheck OpKind = 3
)

const (
	// ExpectAny makes an operation unconditional.
	ExpectAny int64 = -1
	// ExpectAbsent makes an operation succeed only when the key does not exist.
	ExpectAbsent int64 = 0
)

const (
	// MaxKeyBytes bounds a table name and a key.
	MaxKeyBytes = 4 << 10
	// MaxValueBytes bounds one value; requests to the API end at 3 MiB.
	MaxValueBytes = 8 << 20
	// MaxOpsPerCommand bounds a transaction.
	MaxOpsPerCommand = 4096

	groupVersion = 1

	flagFenced  = 1 << 0
	flagDeduped = 1 << 1
)

// ErrMalformed reports a log entry that this version cannot read.
var ErrMalformed = errors.New("malformed log entry")

// Op is one operation on one key.
type Op struct {
	Kind  OpKind
	Table string
	Key   string
	// Expect is the revision that the key must have: a positive revision, [ExpectAbsent] or [ExpectAny].
	Expect int64
	// Value is what [OpPut] writes.
	Value []byte
	// ExpiresUnixMilli is when the leader may delete the key, by its own clock; 0 is never.
	ExpiresUnixMilli int64
}

// Command is applied whole or not at all.
type Command struct {
	// Term, when not 0, makes the command void in an entry of any other term: a loop that lost the lead writes nothing.
	Term uint64
	// Member and Sequence, when Member is not empty, make the command apply at most once.
	Member   string
	Sequence uint64
	Ops      []Op
}

// Group is one log entry: commands that share a disk write and nothing else.
type Group struct {
	// TimeUnixMilli is the proposer's clock. History ages by it.
	TimeUnixMilli int64
	// Proposer and Number name the group for the process that proposed it.
	Proposer uint64
	Number   uint64
	Commands []Command
}

// Validate tells whether every replica will read the command as it is meant.
func (c *Command) Validate() error {
	if len(c.Ops) == 0 || len(c.Ops) > MaxOpsPerCommand {
		return fmt.Errorf("command has %d operations, want 1 to %d", len(c.Ops), MaxOpsPerCommand)
	}
	if len(c.Member) > MaxKeyBytes {
		return fmt.Errorf("member name of %d bytes exceeds %d", len(c.Member), MaxKeyBytes)
	}
	for i := range c.Ops {
		op := &c.Ops[i]
		switch {
		case op.Kind != OpPut && op.Kind != OpDelete && op.Kind != OpCheck:
			return fmt.Errorf("unknown operation %d", op.Kind)
		case op.Table == "" || op.Key == "":
			return errors.New("operation without table or key")
		case len(op.Table) > MaxKeyBytes || len(op.Key) > MaxKeyBytes:
			return fmt.Errorf("key of %d bytes exceeds %d", max(len(op.Key), len(op.Table)), MaxKeyBytes)
		case len(op.Value) > MaxValueBytes:
			return fmt.Errorf("value of %d bytes exceeds %d", len(op.Value), MaxValueBytes)
		case op.Expect < ExpectAny:
			return fmt.Errorf("expected revision %d is negative", op.Expect)
		}
		for j := range i {
			if c.Ops[j].Key == op.Key && c.Ops[j].Table == op.Table {
				return fmt.Errorf("key %q appears twice in one transaction", op.Key)
			}
		}
	}
	return nil
}

// Encode appends the group's binary form to buf.
func (g *Group) Encode(buf []byte) []byte {
	buf = append(buf, groupVersion)
	buf = binary.AppendVarint(buf, g.TimeUnixMilli)
	buf = binary.AppendUvarint(buf, g.Proposer)
	buf = binary.AppendUvarint(buf, g.Number)
	buf = binary.AppendUvarint(buf, uint64(len(g.Commands)))
	for i := range g.Commands {
		buf = g.Commands[i].encode(buf)
	}
	return buf
}

// EncodedSizeBytes is an upper bound of what the command adds to a group.
func (c *Command) EncodedSizeBytes() int {
	n := len(c.Member) + 32
	for i := range c.Ops {
		n += len(c.Ops[i].Table) + len(c.Ops[i].Key) + len(c.Ops[i].Value) + 48
	}
	return n
}

func (c *Command) encode(buf []byte) []byte {
	flags := byte(0)
	if c.Term != 0 {
		flags |= flagFenced
	}
	if c.Member != "" {
		flags |= flagDeduped
	}
	buf = append(buf, flags)
	if c.Term != 0 {
		buf = binary.AppendUvarint(buf, c.Term)
	}
	if c.Member != "" {
		buf = appendBytes(buf, c.Member)
		buf = binary.AppendUvarint(buf, c.Sequence)
	}
	buf = binary.AppendUvarint(buf, uint64(len(c.Ops)))
	for i := range c.Ops {
		op := &c.Ops[i]
		buf = append(buf, byte(op.Kind))
		buf = appendBytes(buf, op.Table)
		buf = appendBytes(buf, op.Key)
		buf = binary.AppendVarint(buf, op.Expect)
		if op.Kind == OpPut {
			buf = binary.AppendVarint(buf, op.ExpiresUnixMilli)
			buf = appendBytes(buf, op.Value)
		}
	}
	return buf
}

func appendBytes[T string | []byte](buf []byte, b T) []byte {
	buf = binary.AppendUvarint(buf, uint64(len(b)))
	return append(buf, b...)
}

// DecodeGroup reads what [Group.Encode] wrote. Values alias data.
func DecodeGroup(data []byte) (*Group, error) {
	if len(data) == 0 {
		return nil, fmt.Errorf("%w: empty", ErrMalformed)
	}
	if data[0] != groupVersion {
		return nil, fmt.Errorf("%w: format %d, this program reads %d; upgrade it", ErrMalformed, data[0], groupVersion)
	}
	d := decoder{rest: data[1:]}
	g := &Group{TimeUnixMilli: d.varint(), Proposer: d.uvarint(), Number: d.uvarint()}
	n := d.uvarint()
	if n > uint64(len(d.rest)) {
		return nil, fmt.Errorf("%w: %d commands in %d bytes", ErrMalformed, n, len(d.rest))
	}
	g.Commands = make([]Command, n)
	for i := range g.Commands {
		d.command(&g.Commands[i])
	}
	if d.bad || len(d.rest) != 0 {
		return nil, fmt.Errorf("%w: truncated or trailing bytes", ErrMalformed)
	}
	return g, nil
}

// decoder reads a group front to back; after the first fault it returns zero values and bad is set.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) command(c *Command) {
	flags := d.byte()
	if flags&flagFenced != 0 {
		c.Term = d.uvarint()
	}
	if flags&flagDeduped != 0 {
		c.Member = string(d.bytes())
		c.Sequence = d.uvarint()
	}
	n := d.uvarint()
	if n == 0 || n > MaxOpsPerCommand || flags&^(flagFenced|flagDeduped) != 0 {
		d.bad = true
		return
	}
	c.Ops = make([]Op, n)
	for i := range c.Ops {
		op := &c.Ops[i]
		op.Kind = OpKind(d.byte())
		op.Table = string(d.bytes())
		op.Key = string(d.bytes())
		op.Expect = d.varint()
		if op.Kind == OpPut {
			op.ExpiresUnixMilli = d.varint()
			op.Value = d.bytes()
		}
	}
	if c.Validate() != nil {
		d.bad = true
	}
}

func (d *decoder) byte() byte {
	if d.bad || len(d.rest) == 0 {
		d.bad = true
		return 0
	}
	b := d.rest[0]
	d.rest = d.rest[1:]
	return b
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.rest)
	if d.bad || n <= 0 {
		d.bad = true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.rest)
	if d.bad || n <= 0 {
		d.bad = true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if d.bad || n > uint64(len(d.rest)) {
		d.bad = true
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}
