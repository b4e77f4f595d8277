package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"sync"
	"time"
)

const (
	// loadClients ask at the same time, of either kind.
	loadClients = 8
	loadPause   = 20 * time.Millisecond
	// freshLimit bounds a request that needs a new connection, keptLimit one that goes through an open one: only its end
	// tells that nobody is there any more.
	freshLimit = 2 * time.Second
	keptLimit  = 20 * time.Second
)

// outcome counts the requests of one kind, and tells when failures came to be known and how long the slowest took. The HTTP
// client repeats a request by itself when a connection that it kept has ended: that is no failure, only slow.
type outcome struct {
	Requests, Failed          int
	Connections               int
	FirstFailure, LastFailure time.Time
	SlowestSeconds            float64

	mu sync.Mutex
}

// traced has the connections counted that a request opens.
func (o *outcome) traced(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		o.mu.Lock()
		defer o.mu.Unlock()
		if !got.Reused {
			o.Connections++
		}
	}})
}

func (o *outcome) note(took time.Duration, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.Requests++
	o.SlowestSeconds = max(o.SlowestSeconds, took.Seconds())
	if err == nil {
		return
	}
	o.Failed++
	o.LastFailure = time.Now()
	if o.FirstFailure.IsZero() {
		o.FirstFailure = o.LastFailure
	}
}

// load asks for a while, by new connections and by kept ones. It prints a line when all clients have asked once, and at the end
// how it went as JSON.
func load(url, span string) error {
	duration, err := time.ParseDuration(span)
	if err != nil {
		return fmt.Errorf("parse the duration: %w", err)
	}
	end := time.Now().Add(duration)
	var fresh, kept outcome
	var clients, first sync.WaitGroup
	for range loadClients {
		first.Add(2)
		clients.Go(func() { askUntil(end, url, freshLimit, &http.Transport{DisableKeepAlives: true}, &fresh, first.Done) })
		clients.Go(func() { askUntil(end, url, keptLimit, &http.Transport{}, &kept, first.Done) })
	}
	first.Wait()
	fmt.Println("all clients have asked")
	clients.Wait()
	return json.NewEncoder(os.Stdout).Encode(map[string]*outcome{"fresh": &fresh, "kept": &kept})
}

func askUntil(end time.Time, url string, limit time.Duration, transport *http.Transport, to *outcome, begun func()) {
	client := &http.Client{Transport: transport}
	once := sync.OnceFunc(begun)
	defer once()
	for ; time.Now().Before(end); time.Sleep(loadPause) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		start := time.Now()
		err := ask(to.traced(ctx), client, url, io.Discard)
		to.note(time.Since(start), err)
		cancel()
		once()
	}
}

func ask(ctx context.Context, client *http.Client, url string, answer io.Writer) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(answer, response.Body)
	return err
}
