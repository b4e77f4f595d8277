// Command testbox is what the containers of this package's tests run: one small
// static program that can be ill, loud, slow or chatty on demand.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		os.Exit(2)
	}
	args := os.Args[2:]
	switch os.Args[1] {
	case "sleep": // ends at once on SIGTERM, with code 0
		wait(args)
	case "stubborn": // ignores SIGTERM
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("stubborn")
		time.Sleep(24 * time.Hour)
	case "say": // prints, then exits with a code
		fmt.Println(strings.Join(args[1:], " "))
		exit(args[0])
	case "env":
		for _, e := range os.Environ() {
			fmt.Println(e)
		}
	case "cat":
		cat(args)
	case "ls":
		list(args)
	case "write":
		must(os.WriteFile(args[0], []byte(strings.Join(args[1:], " ")), 0o644))
	case "id":
		groups, err := os.Getgroups()
		must(err)
		host, err := os.Hostname()
		must(err)
		fmt.Printf("uid=%d gid=%d groups=%v host=%s pid=%d\n", os.Getuid(), os.Getgid(), groups, host, os.Getpid())
	case "count": // numbered lines at a rate in bytes a second
		count(args)
	case "echo": // a TCP server that echoes lines
		echo(args[0])
	case "http": // answers 200 while the file exists
		serve(args[0], args[1])
	case "fill": // uses memory
		fill(args[0])
	case "tee": // stdin to stdout, line by line
		tee()
	default:
		fmt.Fprintln(os.Stderr, "unknown", os.Args[1])
		os.Exit(2)
	}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func exit(code string) {
	n, err := strconv.Atoi(code)
	must(err)
	os.Exit(n)
}

func wait(args []string) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	d := 24 * time.Hour
	if len(args) > 0 {
		var err error
		d, err = time.ParseDuration(args[0])
		must(err)
	}
	select {
	case <-c:
		fmt.Println("terminated")
	case <-time.After(d):
	}
}

func cat(files []string) {
	for _, f := range files {
		b, err := os.ReadFile(f)
		must(err)
		fmt.Print(string(b))
	}
}

func list(dirs []string) {
	for _, d := range dirs {
		must(filepath.Walk(d, func(p string, i os.FileInfo, err error) error {
			if err != nil {
				return err
			}
			st := i.Sys().(*syscall.Stat_t)
			fmt.Printf("%s %v %d:%d\n", p, i.Mode(), st.Uid, st.Gid)
			return nil
		}))
	}
}

// lineBytes is the length of a numbered line.
const lineBytes = 100

func count(args []string) {
	rate, err := strconv.Atoi(args[0])
	must(err)
	const tick = 10 * time.Millisecond
	per := max(rate/lineBytes/100, 1)
	w := bufio.NewWriterSize(os.Stdout, 64<<10)
	n := 0
	for range time.Tick(tick) {
		for range per {
			fmt.Fprintf(w, "%012d %s\n", n, strings.Repeat("x", lineBytes-14))
			n++
		}
		must(w.Flush())
	}
}

func echo(addr string) {
	ln, err := net.Listen("tcp", addr)
	must(err)
	for {
		c, err := ln.Accept()
		must(err)
		go func() {
			defer c.Close()
			_, _ = io.Copy(c, c) // until the other side goes
		}()
	}
}

func serve(addr, file string) {
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if _, err := os.Stat(file); err != nil {
			http.Error(w, "ill", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "well")
	})
	must(http.ListenAndServe(addr, nil))
}

func fill(size string) {
	n, err := strconv.Atoi(size)
	must(err)
	b := make([]byte, n)
	for i := 0; i < n; i += 4096 {
		b[i] = 1
	}
	fmt.Println("filled")
	time.Sleep(time.Hour)
}

func tee() {
	s := bufio.NewScanner(os.Stdin)
	for s.Scan() {
		fmt.Println("got:", s.Text())
	}
	fmt.Println("end of input")
}
