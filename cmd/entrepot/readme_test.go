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

// recipes are the README's configurations. The files that they name are in a directory of the test's.
func recipes(t *testing.T) (all []string) {
	t.Helper()
	dir := t.TempDir()
	one := newIdentity(t, "readme")
	files := map[string][]byte{"cert.pem": one.cert, "key.pem": one.key, "ca.pem": one.cert, "config.json": []byte("{}"),
		"htpasswd": []byte("build:$2y$04$abcdefghijklmnopqrstuuMYSTpEoBLdR6dHtWoEHVbG0pFTGLPWq\n")}
	places := regexp.MustCompile(`(?:/run/secrets|/etc/entrepot)/([\w.-]+)`)
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(readme(t), -1) {
		if strings.HasPrefix(block[1], "services:") {
			continue // a CI runner's file, not ours
		}
		for _, place := range places.FindAllStringSubmatch(block[1], -1) {
			text := files[place[1]]
			if text == nil {
				text = []byte("s3cret")
			}
			replace(t, dir, map[string][]byte{place[1]: text})
		}
		all = append(all, places.ReplaceAllString(block[1], dir+"/$1"))
	}
	return all
}

func TestReadmeConfigurationsLoad(t *testing.T) {
	registries := make(map[string]bool)
	for _, text := range recipes(t) {
		file := filepath.Join(t.TempDir(), "entrepot.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(file, nil)
		if err != nil {
			t.Errorf("%v\n%s", err, text)
			continue
		}
		if len(config.Changes(config.Default(), c)) == 0 {
			t.Errorf("this configures nothing:\n%s", text)
		}
		for name := range c.Registries {
			registries[name] = true
		}
	}
	for _, name := range []string{
		"docker.io", "ghcr.io", "quay.io", "gcr.io", "europe-docker.pkg.dev", "registry.k8s.io", "123456789012.dkr.ecr.eu-central-1.amazonaws.com",
		"corp-registry.cn-hangzhou.cr.aliyuncs.com", "corp.tencentcloudcr.com", "corp.azurecr.io", "harbor.corp.example", "nexus.corp.example:8083",
		"artifactory.corp.example", "registry.gitlab.com", "registry.corp.example:5000",
	} {
		if !registries[name] {
			t.Errorf("there is no recipe for %s", name)
		}
	}
}

func TestReadmeNamesExistingMetrics(t *testing.T) {
	r := start(t, "http://127.0.0.1:1", nil)
	get(t, r.mirror+"/v2/library/redis/manifests/7") // rate limits are those of who was asked
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
