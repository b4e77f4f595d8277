package stream

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"
)

// limit bounds every wait of these tests.
const limit = 10 * time.Second

func dialled(t *testing.T, opts HubOptions) (*Hub, *Conn) {
	t.Helper()
	dir := t.TempDir()
	h, err := Serve(dir, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	c, err := Dial(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	for end := time.Now().Add(limit); ; {
		h.mu.Lock()
		n := len(h.clients)
		h.mu.Unlock()
		if n == 1 {
			return h, c
		}
		if time.Now().After(end) {
			t.Fatal("the client never came in")
		}
	}
}

// A client that stopped reading holds up the output; the end of the process must not find it in its way.
func TestCloseWhileAClientLags(t *testing.T) {
	h, _ := dialled(t, HubOptions{Lossless: true})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 8 * ClientBufferFrames {
			h.Publish(Out, bytes.Repeat([]byte("x"), 32<<10))
		}
	}()
	full := func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		for c := range h.clients {
			return len(c.out) == cap(c.out)
		}
		return false
	}
	for end := time.Now().Add(limit); !full(); {
		if time.Now().After(end) {
			t.Fatal("the client's queue never filled")
		}
	}
	h.Close()
	select {
	case <-done:
	case <-time.After(limit):
		t.Fatal("Publish waits for a client after Close")
	}
	h.Publish(Out, []byte("late"))
}

// What was published before the end arrives whole.
func TestCloseDeliversWhatIsQueued(t *testing.T) {
	h, c := dialled(t, HubOptions{Lossless: true})
	var want bytes.Buffer
	for i := range ClientBufferFrames {
		chunk := bytes.Repeat([]byte{byte(i)}, 100)
		want.Write(chunk)
		h.Publish(Out, chunk)
	}
	h.Close()
	var got bytes.Buffer
	for {
		_, data, err := c.Receive()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got.Write(data)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("received %d bytes of %d", got.Len(), want.Len())
	}
}
