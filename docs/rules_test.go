// Package docs holds what is written for people, and the tests that keep it, and the shape of the code, true.
package docs

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	module           = "github.com/podvine/podvine/"
	maxFileLines     = 600
	maxFunctionLines = 70
)

type goPackage struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func goList(t *testing.T, args ...string) []goPackage {
	t.Helper()
	command := exec.Command("go", append([]string{"list", "-tags=bundle", "-json=ImportPath,Imports,TestImports,XTestImports"}, args...)...)
	command.Dir = ".."
	var stderr bytes.Buffer
	command.Stderr = &stderr
	out, err := command.Output()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, stderr.Bytes())
	}
	var packages []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			return packages
		}
		if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

// TestImportRules holds the direction of the architecture: the left side imports nothing of the right.
func TestImportRules(t *testing.T) {
	rules := []struct {
		from    string
		mustNot []string
	}{
		{"gossip", []string{"agent", "cli", "consensus", "dataplane"}},
		{"consensus", []string{"agent", "cli", "gossip", "dataplane"}},
		{"dataplane", []string{"agent", "cli", "gossip", "consensus"}},
		{"agent", []string{"cli"}},
		{"agent/api", []string{"agent/control", "agent/pods", "gossip", "dataplane"}},
		{"agent/control", []string{"agent/api", "agent/pods", "gossip", "dataplane", "consensus"}},
		{"agent/pods", []string{"agent/api", "agent/control", "gossip", "dataplane", "consensus"}},
		{"agent/pki", []string{"agent/api", "agent/control", "agent/pods", "gossip", "dataplane", "consensus"}},
	}
	// What tests alone may import across: the control loops together are tested on a whole API.
	wholeInTests := map[string]string{"agent/control": "agent/api/apitest"}
	within := func(path, folder string) bool {
		path = strings.TrimPrefix(path, module)
		return path == folder || strings.HasPrefix(path, folder+"/")
	}
	for _, p := range goList(t, "./...") {
		for _, rule := range rules {
			if !within(p.ImportPath, rule.from) {
				continue
			}
			for _, imported := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
				if wholeInTests[strings.TrimPrefix(p.ImportPath, module)] == strings.TrimPrefix(imported, module) {
					continue
				}
				for _, folder := range rule.mustNot {
					if strings.HasPrefix(imported, module) && within(imported, folder) {
						t.Errorf("%s imports %s", strings.TrimPrefix(p.ImportPath, module), strings.TrimPrefix(imported, module))
					}
				}
			}
		}
	}
}

func TestKubernetesItselfIsNotImported(t *testing.T) {
	for _, p := range goList(t, "-deps", "./...") {
		if p.ImportPath == "k8s.io/kubernetes" || strings.HasPrefix(p.ImportPath, "k8s.io/kubernetes/") {
			t.Errorf("%s is among the dependencies", p.ImportPath)
		}
	}
}

type source struct {
	path    string
	lines   int
	file    *ast.File
	fileSet *token.FileSet
}

func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

func (s source) imports(path string) bool {
	return slices.ContainsFunc(s.file.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == strconv.Quote(path) })
}

// sources parses every Go file of the tree that a person wrote.
func sources(t *testing.T) []source {
	t.Helper()
	var found []source
	fileSet := token.NewFileSet()
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if name != ".." && strings.HasPrefix(name, ".") || name == "packed" || name == "testdata" {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasPrefix(name, "zz_generated") || strings.Contains(name, "_bpfe") {
			return nil
		}
		file, err := parser.ParseFile(fileSet, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		if ast.IsGenerated(file) {
			return nil
		}
		found = append(found, source{strings.TrimPrefix(path, "../"), fileSet.File(file.Pos()).LineCount(), file, fileSet})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestFilesAndFunctionsFitAScreen(t *testing.T) {
	for _, s := range sources(t) {
		if s.lines > maxFileLines {
			t.Errorf("%s has %d lines, the limit is %d", s.path, s.lines, maxFileLines)
		}
		if s.isTest() {
			continue
		}
		for _, declaration := range s.file.Decls {
			function, ok := declaration.(*ast.FuncDecl)
			if !ok || function.Body == nil {
				continue
			}
			lines := s.fileSet.Position(function.End()).Line - s.fileSet.Position(function.Pos()).Line + 1
			if lines > maxFunctionLines && !isTable(function) {
				t.Errorf("%s: %s has %d lines, the limit is %d", s.path, function.Name, lines, maxFunctionLines)
			}
			if function.Name.Name == "init" && function.Recv == nil {
				t.Errorf("%s has an init function", s.path)
			}
		}
	}
}

// isTable tells whether a function does nothing but return one literal, which is data and not logic.
func isTable(function *ast.FuncDecl) bool {
	if len(function.Body.List) != 1 {
		return false
	}
	returned, ok := function.Body.List[0].(*ast.ReturnStmt)
	if !ok {
		return false
	}
	literal := false
	for _, result := range returned.Results {
		if unary, ok := result.(*ast.UnaryExpr); ok {
			result = unary.X
		}
		_, isLiteral := result.(*ast.CompositeLit)
		literal = literal || isLiteral
	}
	return literal
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	said := map[string]bool{}
	for _, s := range sources(t) {
		folder := filepath.Dir(s.path)
		if s.isTest() && folder != "docs" {
			continue
		}
		said[folder] = said[folder] || s.file.Doc != nil
	}
	for folder, ok := range said {
		if !ok {
			t.Errorf("%s has no package comment", folder)
		}
	}
}

// readsTheWorld tells of a call that another machine, or the same one later, would answer otherwise.
func readsTheWorld(call string) bool {
	// Methods of a *rand.Rand, which deciders are given, have other receivers.
	return call == "time.Now" || call == "time.Since" || call == "time.Until" || strings.HasPrefix(call, "rand.") && call != "rand.New"
}

// TestBannedCalls holds what no reviewer should have to look for.
func TestBannedCalls(t *testing.T) {
	banned := func(s source, call string) string {
		switch {
		case s.isTest() && slices.Contains([]string{"t.Skip", "t.Skipf", "t.SkipNow", "b.Skip"}, call):
			return "a test fails where it cannot run; it is not skipped"
		case !s.isTest() && strings.HasPrefix(s.path, "consensus/store/") && readsTheWorld(call):
			return "the state machine must do the same on every member"
		case !s.isTest() && strings.Contains(filepath.Base(s.path), "decide") && readsTheWorld(call):
			return "a decision is pure: time and randomness are its arguments"
		case s.isTest() && call == "time.Sleep" && !s.imports("testing/synctest"):
			return "a test waits for what it waits for; only virtual time may be slept away"
		}
		return ""
	}
	for _, s := range sources(t) {
		ast.Inspect(s.file, func(node ast.Node) bool {
			call, ok := node.(*ast.CallExpr)
			if !ok {
				return true
			}
			selector, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			receiver, ok := selector.X.(*ast.Ident)
			if !ok {
				return true
			}
			if why := banned(s, receiver.Name+"."+selector.Sel.Name); why != "" {
				t.Errorf("%s calls %s.%s: %s", s.fileSet.Position(call.Pos()), receiver.Name, selector.Sel.Name, why)
			}
			return true
		})
	}
}

func TestNamesSayWhatThingsAre(t *testing.T) {
	for _, s := range sources(t) {
		for _, element := range strings.Split(strings.TrimSuffix(strings.TrimSuffix(s.path, ".go"), "_test"), "/") {
			if slices.Contains([]string{"util", "utils", "common", "helper", "helpers", "manager", "base", "misc"}, element) {
				t.Errorf("%s has a name that says nothing", s.path)
			}
		}
	}
}
