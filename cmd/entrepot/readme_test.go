package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/entrepot/entrepot/cache"
	"github.com/entrepot/entrepot/config"
)

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestReadmeListsEveryKey(t *testing.T) {
	text := readme(t)
	listed := 0
	for _, f := range config.Fields() {
		row := regexp.MustCompile("(?m)^\\| `" + regexp.QuoteMeta(f.Key) + "` \\| (.*?) \\| `" + regexp.QuoteMeta(f.Env) + "` \\| .+ \\|$").FindStringSubmatch(text)
		if row == nil {
			t.Errorf("the configuration table has no row for %s with %s", f.Key, f.Env)
			continue
		}
		listed++
		if f.Default != "" && row[1] != "`"+f.Default+"`" {
			t.Errorf("%s: the table says %s, the default is %s", f.Key, row[1], f.Default)
		}
	}
	if rows := strings.Count(text, "| `ENTREPOT_"); rows != listed {
		t.Errorf("the table has %d rows for %d keys", rows, listed)
	}
}

func TestReadmeConfigurationLoads(t *testing.T) {
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(readme(t), -1) {
		if strings.HasPrefix(block[1], "services:") {
			continue // a CI runner's file, not ours
		}
		file := filepath.Join(t.TempDir(), "entrepot.yaml")
		if err := os.WriteFile(file, []byte(block[1]), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(file, nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(c.Registries) != 3 || c.Bandwidth.Upstream.IsZero() {
			t.Errorf("%+v", c)
		}
	}
}

func TestReadmeNamesExistingMetrics(t *testing.T) {
	r := start(t, "http://127.0.0.1:1", nil)
	_, have := get(t, r.admin+"/metrics")
	for _, name := range regexp.MustCompile(`entrepot_[a-z_]+`).FindAllString(readme(t), -1) {
		if !strings.Contains(have, "# HELP "+name) {
			t.Errorf("README names %s, which is not there", name)
		}
	}
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

// TestReadmeShowsFiguresAsTheyArePrinted keeps the names of the lines in the README's example those of the command.
func TestReadmeShowsFiguresAsTheyArePrinted(t *testing.T) {
	var b strings.Builder
	s := stats{live: true, Stats: cache.Stats{Content: 1, Limit: 1, Oldest: time.Now()}}
	if err := s.print(&b, time.Now()); err != nil {
		t.Fatal(err)
	}
	text := readme(t)
	for line := range strings.Lines(b.String()) {
		if name := line[:len("on disk       ")]; !strings.Contains(text, "\n"+name) {
			t.Errorf("the README's example has no line %q", name)
		}
	}
}
