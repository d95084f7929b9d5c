package index

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
)

// written makes an index whose records are in a table, and returns the options to open it and the table's name.
func written(t *testing.T) (Options, string) {
	t.Helper()
	o := Options{Dir: filepath.Join(t.TempDir(), "index")}
	x, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	repo := Repository{"docker.io", "library/alpine"}
	for i := range 1000 {
		if err := x.Confirm(repo, digest.FromBytes([]byte{byte(i), byte(i >> 8)}), Member{Size: int64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	tables, err := filepath.Glob(filepath.Join(o.Dir, "*.sst"))
	if err != nil || len(tables) != 1 {
		t.Fatalf("tables: %v, %v", tables, err)
	}
	return o, tables[0]
}

// names are those of all that is in the directory above an index.
func names(t *testing.T, o Options) (all []string) {
	t.Helper()
	for _, pattern := range []string{"*", "*/*"} {
		found, err := filepath.Glob(filepath.Join(filepath.Dir(o.Dir), pattern))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, found...)
	}
	return all
}

func TestInspectFindsWhatOpenWouldNot(t *testing.T) {
	if found := Inspect(Options{Dir: filepath.Join(t.TempDir(), "index")}); found != Missing {
		t.Errorf("nothing is there: %q", found)
	}
	o, table := written(t)
	before := names(t, o)
	if found := Inspect(o); found != "" {
		t.Errorf("as it was left: %q", found)
	}
	content, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	rotten := slices.Clone(content)
	rotten[100] ^= 1 // in the first of its blocks, which nobody reads to open it
	for name, damage := range map[string]func() error{
		"a flipped bit":  func() error { return os.WriteFile(table, rotten, 0o640) },
		"noise":          func() error { return os.WriteFile(table, []byte("noise"), 0o640) },
		"a missing file": func() error { return os.Remove(table) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		if found := Inspect(o); found == "" || found == Missing {
			t.Errorf("%s: %q", name, found)
		}
		if err := os.WriteFile(table, content, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if after := names(t, o); !slices.Equal(before, after) {
		t.Errorf("looking has made %v of %v", after, before)
	}
}

func TestRepairBeginsADamagedIndexAnew(t *testing.T) {
	o, table := written(t)
	if found, err := Repair(o); found != "" || err != nil {
		t.Errorf("nothing is wrong: %q, %v", found, err)
	}
	content, err := os.ReadFile(table)
	if err != nil {
		t.Fatal(err)
	}
	content[100] ^= 1
	if err := os.WriteFile(table, content, 0o640); err != nil {
		t.Fatal(err)
	}
	if found, err := Repair(o); found == "" || err != nil {
		t.Errorf("a rotten table: %q, %v", found, err)
	}
	if asides := o.asides(); len(asides) != 1 {
		t.Errorf("moved aside: %v", asides)
	}
	if found, err := Repair(o); found != "" || err != nil {
		t.Errorf("after that: %q, %v", found, err)
	}
}
