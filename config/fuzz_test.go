package config

import (
	"bytes"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzLoad asserts that whatever loads is complete and loads again from what WriteYAML writes of it.
func FuzzLoad(f *testing.F) {
	f.Add(withoutFiles(wholeFile), "ENTREPOT_LOG_LEVEL=warn")
	f.Add("", "ENTREPOT_REGISTRIES=ghcr.io,quay.io")
	f.Add("registries: {a-b: {hosts: [x]}, a.b: }", "ENTREPOT_REGISTRIES_A_B_HOSTS=y")
	f.Add("cache: {max_size: 12.5%, tag_ttl: 1.5d}", "ENTREPOT_BANDWIDTH_UPSTREAM=1Gbit/s")
	f.Add("registries: {a.io: {endpoints: [{url: http://b.io}, {url: http://a.io, trusted: true}], connections: {per_blob: 8}}}", "")
	f.Add("registries: {a.io: {endpoints: [{url: http://a.io, trusted: false}], prefer: speed}}", "ENTREPOT_REGISTRIES_A_IO_CONNECTIONS_PER_ENDPOINT=1000")
	f.Add("cache: {pin: ['docker.io/{a,b}:[0-9]*'], scrub_rate: off}\nindex_dir: i", "ENTREPOT_CACHE_PIN=docker.io/**")
	f.Add("cache: {fill: whole, when_abandoned: park}", "ENTREPOT_BANDWIDTH_BACKGROUND=1MiB/s")
	f.Add("registries: {a.io: {endpoints: [{proxy: 'http://u:p@proxy:3128', dial: '[::1]:443', dns: '::1', url: https://a.io, insecure: true}]}}", "ENTREPOT_BANDWIDTH_PER_CLIENT=sat-sun 8bit/s, else 1MB/s")
	f.Add("registries: {docker.io: {credentials: [{username: u, password: p}, {exec: [a, b]}, {helper: ecr-login, lifetime: 1h}], tag_ttl: ['a:b 0']}}", "ENTREPOT_REGISTRIES_DOCKER_IO_EXPOSE=a,{b,c}/*")
	f.Add("access: {allow_clients: [10.0.0.0/8, '::1']}\noffline: true\nbandwidth: {time_zone: UTC, upstream: mon 22:00-06:00 1MB/s, else 0}", "ENTREPOT_ACCESS_ANONYMOUS=allow")
	f.Add("a: &a [*a, {<<: *a}]\n---\n", "ENTREPOT_CACHE_MAX_SIZE=")
	f.Add("data_dir: \"\\u2028 \\x85 \\t\"\nregistries: {a: {credentials: {username: \"\\x00\", password: \"~\"}}}", "")
	path := filepath.Join(f.TempDir(), "f.yaml")
	f.Fuzz(func(t *testing.T, text, variable string) {
		load := func(text []byte, environ ...string) (*Config, error) {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			return Load(path, environ)
		}
		c, err := load([]byte(text), variable)
		if err != nil {
			if strings.ContainsRune(strings.ReplaceAll(err.Error(), path, ""), '\x00') {
				t.Errorf("control character in %q", err)
			}
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := c.WriteYAML(&b); err != nil {
			t.Fatal(err)
		}
		again, err := load([]byte(putBack(b.String())))
		if err != nil {
			t.Fatalf("%v in\n%s", err, &b)
		}
		if diff := cmp.Diff(hideSecrets(c), again, cmp.Transformer("none", func(s []string) string { return strings.Join(s, ",") })); diff != "" {
			t.Errorf("%s in\n%s", diff, &b)
		}
	})
}

// withoutFiles leaves out of a configuration what names files: there are none where it is fuzzed.
func withoutFiles(text string) string {
	text = regexp.MustCompile(`(?m)^(tls|  htpasswd_file|  users|  localhost:5001):.*\n`).ReplaceAllString(text, "")
	return strings.ReplaceAll(text, "password_file: hub", "password: p")
}

// putBack puts other secrets in the places of those that WriteYAML has hidden.
func putBack(text string) string {
	return strings.NewReplacer("'"+hidden+"'", "putback", hidden, "putback").Replace(text)
}

// hideSecrets puts what putBack writes for a secret in its place.
func hideSecrets(c *Config) *Config {
	for _, registry := range c.Registries {
		for i := range registry.Credentials {
			if l := &registry.Credentials[i]; !l.Password.IsZero() {
				l.Password = NewSecret("putback")
			}
		}
		for i := range registry.Endpoints {
			p := &registry.Endpoints[i].Proxy
			if u := p.URL(); u != nil {
				if _, secret := u.User.Password(); secret {
					u.User = url.UserPassword(u.User.Username(), "putback")
					p.url = NewSecret(u.String())
				}
			}
		}
	}
	return c
}
