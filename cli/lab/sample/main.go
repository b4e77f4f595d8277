// Command sample is the application that the lab's demonstration deploys: an HTTP server that says which pod answered. Its
// image holds nothing but this program, so it can also ask: `/app get URL` prints the answer, as curl would, `/app load URL
// DURATION` asks all the time and tells how many requests failed, and when, and `/app exit CODE DURATION` ends with the code after
// a while, as work does.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	act := serve
	switch {
	case len(os.Args) == 3 && os.Args[1] == "get":
		act = func() error { return get(os.Args[2]) }
	case len(os.Args) == 4 && os.Args[1] == "load":
		act = func() error { return load(os.Args[2], os.Args[3]) }
	case len(os.Args) == 4 && os.Args[1] == "exit":
		act = func() error { return exit(os.Args[2], os.Args[3]) }
	}
	if err := act(); err != nil {
		log.Fatal(err)
	}
}

// get prints the answer to one request.
func get(url string) error {
	const timeout = 5 * time.Second
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return ask(ctx, http.DefaultClient, url, os.Stdout)
}

// exit ends the process with the code once the duration is over. SIGTERM ends it sooner.
func exit(code, after string) error {
	number, err := strconv.Atoi(code)
	if err != nil {
		return fmt.Errorf("parse the exit code: %w", err)
	}
	duration, err := time.ParseDuration(after)
	if err != nil {
		return fmt.Errorf("parse the duration: %w", err)
	}
	time.Sleep(duration)
	os.Exit(number)
	return nil
}

// serve answers requests until it is told to end.
func serve() error {
	const shutdownTimeout = 5 * time.Second
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from %s, asked by %s for %s\n", name, r.RemoteAddr, r.URL.Path)
	})
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	server := &http.Server{Addr: ":8080", Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.ListenAndServe() }()
	log.Printf("%s listens on %s", name, server.Addr)
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	log.Print("ending")
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		return err
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
