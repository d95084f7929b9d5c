package main

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/entrepot/entrepot"

// arrows says which packages of ours each of ours may import: downwards only.
var arrows = map[string][]string{
	"cmd/entrepot":        {"config", "proxy", "proxy/access", "cache", "upstream", "upstream/bandwidth", "upstream/credential", "upstream/watched"},
	"config":              {},
	"proxy":               {"proxy/access", "cache", "upstream", "upstream/bandwidth"},
	"proxy/access":        {"upstream/watched"},
	"cache":               {"cache/disk", "cache/index", "cache/keeper", "cache/fill", "cache/relay", "upstream"},
	"cache/index":         {},
	"cache/keeper":        {"cache/disk", "cache/policy"},
	"cache/disk":          {},
	"cache/fill":          {},
	"cache/policy":        {},
	"cache/relay":         {},
	"upstream":            {"upstream/bandwidth", "upstream/credential", "upstream/watched"},
	"upstream/bandwidth":  {},
	"upstream/credential": {"upstream/watched"},
	"upstream/watched":    {},
}

// homes says where alone a library may be imported: each has one reason to be here, and leaks through nothing else.
var homes = map[string][]string{
	"github.com/dgraph-io/badger":          {"cache/index"},
	"github.com/gorilla/mux":               {"proxy"},
	"github.com/prometheus/client_golang":  {"proxy"},
	"github.com/spf13/cobra":               {"cmd/entrepot"},
	"golang.org/x/time":                    {"upstream/bandwidth"},
	"go.yaml.in/yaml":                      {"config"},
	"github.com/dustin/go-humanize":        {"cmd/entrepot", "config"},
	"github.com/bmatcuk/doublestar":        {"config"},
	"github.com/schollz/progressbar":       {"cmd/entrepot"},
	"github.com/cenkalti/backoff":          {"cache/fill", "cache/relay"},
	"go.uber.org/zap":                      {"cmd/entrepot", "proxy", "cache", "cache/index", "cache/keeper", "upstream", "upstream/credential"},
	"net/http":                             {"cmd/entrepot", "proxy", "proxy/access", "cache", "upstream"},
	"os":                                   {"cmd/entrepot", "config", "proxy", "cache", "cache/index", "cache/disk", "upstream/credential", "upstream/watched"},
	"os/exec":                              {"upstream/credential"},
	"golang.org/x/crypto":                  {"proxy/access"},
	"golang.org/x/sync/singleflight":       {"cache", "cache/keeper", "upstream"},
	"github.com/opencontainers/image-spec": {"proxy", "cache", "cache/index", "upstream"},
}

func TestArrowsRunDownwards(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, module+"/")
		allowed, known := arrows[name]
		if !known {
			t.Errorf("package %s has no place in the house: give it one in this test and in the README", name)
			continue
		}
		for _, imported := range p.Imports {
			if ours, ok := strings.CutPrefix(imported, module+"/"); ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s: the arrows run the other way", name, ours)
			}
			for library, at := range homes {
				if belongs(imported, library) && !slices.Contains(at, name) {
					t.Errorf("%s imports %s, whose place is in %v", name, imported, at)
				}
			}
		}
	}
}

// belongs reports whether a package is the library's. Of the standard library each package is one of its own.
func belongs(imported, library string) bool {
	return imported == library || strings.Contains(library, ".") && strings.HasPrefix(imported, library+"/")
}

type goPackage struct {
	ImportPath string
	Imports    []string
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []goPackage
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) < len(arrows) {
		t.Fatalf("%d packages of %d", len(all), len(arrows))
	}
	return all
}
