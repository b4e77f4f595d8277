package docs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	// commandTimeout bounds one command of a page.
	commandTimeout = 2 * time.Minute
	// guideIndex lists the pages of the guide.
	guideIndex = "guide/README.md"
)

// command is a line that a reader types, and what the page says that it prints.
type command struct {
	line     int
	text     string
	expected []string
}

// commands returns what a page tells the reader to type: the lines of its `console` blocks that begin with "$ ", in order,
// each with the output that follows it. A line that ends with a backslash goes on in the next. A here-document
// stands in the block as it is typed.
func commands(page string) []command {
	var found []command
	var inside bool
	var until string // the end word of the here-document that is open
	for i, line := range strings.Split(page, "\n") {
		switch {
		case !inside:
			inside = strings.TrimSpace(line) == "```console"
		case until != "":
			last := &found[len(found)-1]
			last.text += "\n" + line
			if line == until {
				until = ""
			}
		case strings.TrimSpace(line) == "```":
			inside = false
		case len(found) > 0 && strings.HasSuffix(found[len(found)-1].text, "\\"):
			last := &found[len(found)-1]
			last.text = strings.TrimSuffix(last.text, "\\") + strings.TrimPrefix(strings.TrimSpace(line), "> ")
		case strings.HasPrefix(line, "$ "):
			found = append(found, command{line: i + 1, text: strings.TrimPrefix(line, "$ ")})
			if match := hereDocument.FindStringSubmatch(line); match != nil {
				until = match[1]
			}
		case len(found) > 0:
			last := &found[len(found)-1]
			last.expected = append(last.expected, line)
		}
	}
	return found
}

var hereDocument = regexp.MustCompile(`<<-?'?([A-Z]+)'?`)

// mismatch compares what a command printed with the page. In the page, "..." stands for anything within a line, and alone
// on a line for any number of lines; runs of spaces are equal, because tables align to what they hold. A page that
// shows no output accepts any.
func mismatch(expected []string, printed string) error {
	if len(expected) == 0 {
		return nil
	}
	var pattern strings.Builder
	pattern.WriteString(`(?s)\A`)
	for _, line := range expected {
		if strings.TrimSpace(line) == "..." {
			pattern.WriteString(`(?:[^\n]*\n)*?`)
			continue
		}
		fields := strings.Fields(line)
		for i, field := range fields {
			if i > 0 {
				pattern.WriteString(`[ \t]+`)
			}
			pattern.WriteString(strings.ReplaceAll(regexp.QuoteMeta(field), `\.\.\.`, `[^\n]*?`))
		}
		pattern.WriteString(`[ \t]*\n`)
	}
	pattern.WriteString(`\z`)
	var normalised strings.Builder
	for line := range strings.Lines(printed) {
		normalised.WriteString(strings.TrimSpace(line) + "\n")
	}
	if !regexp.MustCompile(pattern.String()).MatchString(normalised.String()) {
		return fmt.Errorf("the page says:\n%s\nit printed:\n%s", strings.Join(expected, "\n"), printed)
	}
	return nil
}

// TestPagesTellTheTruth types every command of the guide, page by page, into one lab, and compares what it prints with what
// the page says. Each line has a shell of its own; what it exports, the lines after it have too.
func TestPagesTellTheTruth(t *testing.T) {
	pages, err := filepath.Glob("guide/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(pages, "operations.md")
	environment := startLab(t)
	for _, page := range pages {
		t.Run(page, func(t *testing.T) {
			content, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			folder := t.TempDir()
			typed := commands(string(content))
			if len(typed) == 0 && page != guideIndex {
				t.Fatalf("%s has no command that could be tested", page)
			}
			environment := environment
			for _, c := range typed {
				if variable, ok := strings.CutPrefix(c.text, "export "); ok { // it is for the lines that follow
					environment = append(slices.Clip(environment), strings.ReplaceAll(variable, "$PWD", folder))
					continue
				}
				printed, err := run(t.Context(), folder, environment, c.text)
				if err != nil {
					t.Fatalf("%s:%d: $ %s\n%v\n%s", page, c.line, c.text, err, printed)
				}
				if err := mismatch(c.expected, printed); err != nil {
					t.Fatalf("%s:%d: $ %s\n%v", page, c.line, c.text, err)
				}
			}
		})
	}
}

// TestGuideIndexNamesEveryPage keeps a new page from being found by nobody.
func TestGuideIndexNamesEveryPage(t *testing.T) {
	index, err := os.ReadFile(guideIndex)
	if err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob("guide/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		if page != guideIndex && bytes.Count(index, []byte("]("+filepath.Base(page)+"): ")) != 1 {
			t.Errorf("%s does not list %s once, with what it is for", guideIndex, page)
		}
	}
}

// TestLinksLeadSomewhere follows every link of a page to a file of the repository, and to the heading in it.
func TestLinksLeadSomewhere(t *testing.T) {
	pages := []string{"../README.md"}
	for _, pattern := range []string{"*.md", "*/*.md"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, found...)
	}
	for _, page := range pages {
		content, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range link.FindAllStringSubmatch(string(content), -1) {
			if strings.Contains(match[1], "://") {
				continue
			}
			path, heading, _ := strings.Cut(match[1], "#")
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: link to %s: %v", page, match[1], err)
				continue
			}
			if heading != "" && !slices.Contains(headings(t, target), heading) {
				t.Errorf("%s: link to %s: no such heading", page, match[1])
			}
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// headings returns the names by which links reach the headings of a page, as GitHub makes them.
func headings(t *testing.T, page string) (names []string) {
	t.Helper()
	content, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(content)) {
		if title, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			name := strings.ReplaceAll(strings.ToLower(strings.TrimSpace(title)), " ", "-")
			names = append(names, notInHeadings.ReplaceAllString(name, ""))
		}
	}
	return names
}

var notInHeadings = regexp.MustCompile(`[^\p{L}\p{N}_-]`)

func run(ctx context.Context, folder string, environment []string, line string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", line)
	shell.Dir, shell.Env = folder, environment
	shell.WaitDelay = time.Second
	out, err := shell.CombinedOutput()
	return string(out), err
}

// startLab starts a lab of one for the pages and returns the environment in which their commands run: podvine and kubectl
// on the path, and KUBECONFIG.
func startLab(t *testing.T) []string {
	t.Helper()
	podvine := os.Getenv("PODVINE_BIN")
	if podvine == "" {
		t.Fatal("PODVINE_BIN names no binary: run the tests with `make test`")
	}
	const name = "pages"
	folder := t.TempDir()
	bin := filepath.Join(folder, "bin")
	for path, content := range map[string]string{
		filepath.Join(bin, "kubectl"): "#!/bin/sh\nexec " + podvine + " kubectl \"$@\"\n",
		filepath.Join(bin, "podvine"): "#!/bin/sh\nexec " + podvine + " \"$@\"\n",
	} {
		if err := os.MkdirAll(bin, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	kubeconfig := filepath.Join(folder, "kubeconfig")
	environment := append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "KUBECONFIG="+kubeconfig, "HOME="+folder, "LAB="+name)
	t.Cleanup(func() {
		out, err := exec.Command(podvine, "lab", "down", "--name", name).CombinedOutput()
		if err != nil {
			t.Errorf("end the lab: %v: %s", err, out)
		}
	})
	if out, err := run(t.Context(), folder, environment, "podvine lab up --name "+name+" --hosts 1 && podvine lab kubeconfig --name "+name+" > "+kubeconfig); err != nil {
		t.Fatalf("start the lab: %v: %s", err, out)
	}
	return environment
}

func TestCommandsAreFound(t *testing.T) {
	page := "text\n```console\n$ one\nprinted ...\n$ cat <<EOF\na\n```\nEOF\n$ three \\\n> four\n```\n```sh\n$ not this\n```\n"
	got := commands(page)
	want := []command{{3, "one", []string{"printed ..."}}, {5, "cat <<EOF\na\n```\nEOF", nil}, {9, "three four", nil}}
	equal := func(a, b command) bool {
		return a.line == b.line && a.text == b.text && slices.Equal(a.expected, b.expected)
	}
	if !slices.EqualFunc(got, want, equal) {
		t.Errorf("found %+v, want %+v", got, want)
	}
}

func TestMismatch(t *testing.T) {
	for _, c := range []struct {
		expected string
		printed  string
		same     bool
	}{
		{"NAME  AGE\nhello-... ...s", "NAME        AGE\nhello-x-y   5s\n", true},
		{"NAME  AGE\nhello", "NAME  AGE\nother\n", false},
		{"...\nlast", "a\nb\nlast\n", true},
		{"...\nlast", "a\nb\n", false},
		{"one", "one\ntwo\n", false},
	} {
		if err := mismatch(strings.Split(c.expected, "\n"), c.printed); (err == nil) != c.same {
			t.Errorf("%q against %q: %v", c.expected, c.printed, err)
		}
	}
	if !bytes.Contains([]byte(mismatch([]string{"a"}, "b\n").Error()), []byte("it printed")) {
		t.Error("a mismatch does not show what was printed")
	}
}
