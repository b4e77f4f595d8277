package agent

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"
)

// A reader that takes nothing any more loses its connection, and so its place; one that is slow does not.
func TestStalledReaderOfAnImageIsCutOff(t *testing.T) {
	const patience = 500 * time.Millisecond
	ended := make(chan error, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writer := &steadyWriter{ResponseWriter: w, control: http.NewResponseController(w), patience: patience}
		chunk, size := make([]byte, 32<<10), 64<<20
		if r.URL.Path == "/slow" {
			size = 5 * len(chunk)
		}
		for range size / len(chunk) {
			if r.URL.Path == "/slow" {
				<-time.After(patience / 4) // all of it takes longer than the patience for one write
			}
			if _, err := writer.Write(chunk); err != nil {
				ended <- err
				return
			}
		}
		ended <- nil
	}))
	defer server.Close()
	slow, err := http.Get(server.URL + "/slow")
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Body.Close()
	if _, err := io.Copy(io.Discard, slow.Body); err != nil {
		t.Errorf("a slow transfer was cut off: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("a slow transfer: %v", err)
	}

	stalled, err := http.Get(server.URL + "/stalled")
	if err != nil {
		t.Fatal(err)
	}
	defer stalled.Body.Close()
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the transfer that stalls ends with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("a reader that takes nothing is served on and on")
	}
}
