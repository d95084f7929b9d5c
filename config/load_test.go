package config

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// loadText loads a file that is named f.yaml in errors.
func loadText(t *testing.T, text string, environ []string, overrides ...Override) (*Config, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("f.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("hub", []byte("from-file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return Load("f.yaml", environ, overrides...)
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

const wholeFile = `listen: 127.0.0.1:80
admin_listen: off
data_dir: /var/lib/entrepot
index_dir: /srv/index
default_registry: GHCR.io
shutdown_grace: 1d12h
log: {level: debug, format: json}
cache:
  {max_size: 200GiB, min_free: 5%, pin: [Docker.io/alpine:3.*, ghcr.io/owner/**], scrub_rate: 20MiB/s, verify_after: 0,
  tag_ttl: 90s, fill: whole, when_abandoned: park, read_ahead: off}
registries:
  index.docker.io:
    credentials: {username: ci, password_file: hub}
  ghcr.io:
    endpoints: [{url: HTTPS://Near.Example:8443/v2proxy/, trusted: true}, {url: https://ghcr.io, trusted: false}]
    prefer: speed
    connections: {per_blob: 1, per_endpoint: 100}
    credentials: {username: 0123, password: s3cret}
    hosts: [GHCR.mirror.example, "[fd00::1]:5000"]
    token_realms: [auth.example]
  quay.io:
    connections: {per_blob: 8}
  localhost:5001: {}
bandwidth: {upstream: 200Mbit/s, background: 2MB/s}
`

func wholeConfig() *Config {
	return &Config{
		Listen:          "127.0.0.1:80",
		DataDir:         "/var/lib/entrepot",
		IndexDir:        "/srv/index",
		DefaultRegistry: "ghcr.io",
		ShutdownGrace:   Duration(36 * time.Hour),
		Log:             Log{Level: "debug", Format: "json"},
		Cache: Cache{
			MaxSize: Space{Bytes: 200 << 30}, MinFree: Space{Percent: 5},
			Pin:       []Pattern{"docker.io/library/alpine:3.*", "ghcr.io/owner/**"},
			ScrubRate: 20 << 20, TagTTL: Duration(90 * time.Second),
			Fill: "whole", WhenAbandoned: "park", ReadAhead: "off",
		},
		Registries: map[string]Registry{
			"docker.io": {
				Endpoints:   []Endpoint{{URL: "https://registry-1.docker.io", Trusted: true}},
				Prefer:      "order",
				Connections: Connections{PerBlob: 6, PerEndpoint: 24},
				Credentials: Credentials{Username: "ci", PasswordFile: "hub"},
			},
			"ghcr.io": {
				Endpoints:   []Endpoint{{URL: "https://near.example:8443/v2proxy", Trusted: true}, {URL: "https://ghcr.io"}},
				Prefer:      "speed",
				Connections: Connections{PerBlob: 1, PerEndpoint: 100},
				Credentials: Credentials{Username: "0123", Password: NewSecret("s3cret")},
				Hosts:       []string{"ghcr.mirror.example", "[fd00::1]:5000"},
				TokenRealms: []string{"auth.example"},
			},
			"quay.io": {
				Endpoints:   []Endpoint{{URL: "https://quay.io", Trusted: true}},
				Prefer:      "order",
				Connections: Connections{PerBlob: 8, PerEndpoint: 24},
			},
			"localhost:5001": {
				Endpoints:   []Endpoint{{URL: "https://localhost:5001", Trusted: true}},
				Prefer:      "order",
				Connections: Connections{PerBlob: 6, PerEndpoint: 24},
			},
		},
		Bandwidth: Bandwidth{Upstream: 25_000_000, Background: 2_000_000},
	}
}

func TestLoadGivesEveryField(t *testing.T) {
	got, err := loadText(t, wholeFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wholeConfig(), got); diff != "" {
		t.Error(diff)
	}
}

func TestNothingConfiguredIsTheDefault(t *testing.T) {
	for name, text := range map[string]string{
		"empty":         "",
		"comment":       "# nothing\n",
		"document mark": "---\n",
		"byte mark":     "\ufeff# nothing\n",
		"empty parts":   "log:\ncache:\nregistries:\n  # ghcr.io:\n",
		"empty entry":   "registries: {docker.io: {endpoints: , connections: , hosts: [], credentials: }}\n",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := loadText(t, text, []string{"HOME=/", "ENTREPOTS=1", "ENTREPOT_CONFIG=f.yaml"})
			if err != nil {
				t.Fatal(err)
			}
			want := Default()
			if name == "empty entry" {
				hub := defaultRegistry("docker.io")
				hub.Hosts = []string{}
				want.Registries["docker.io"] = hub
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	got, err := Load("", nil)
	if diff := cmp.Diff(Default(), got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
}

func TestSomeEndpointIsTrusted(t *testing.T) {
	const a, b, c = URL("https://a.io"), URL("https://b.io"), URL("https://c.io")
	for _, tt := range []struct {
		name, endpoints string
		environ         []string
		want            []Endpoint
	}{
		{"none marked", "[{url: https://a.io}, {url: https://b.io}]", nil, []Endpoint{{a, true}, {b, false}}},
		{"the last", "[{url: https://a.io}, {url: https://b.io, trusted: true}]", nil, []Endpoint{{a, false}, {b, true}}},
		{"several", "[{trusted: true, url: https://a.io}, {url: https://b.io}, {url: https://c.io, trusted: true}]", nil,
			[]Endpoint{{a, true}, {b, false}, {c, true}}},
		{"all", "[{url: https://a.io, trusted: true}, {url: https://b.io, trusted: true}]", nil, []Endpoint{{a, true}, {b, true}}},
		{"not the first", "[{url: https://a.io, trusted: false}, {url: https://b.io, trusted: true}]", nil,
			[]Endpoint{{a, false}, {b, true}}},
		{"not the second", "[{url: https://a.io}, {url: https://b.io, trusted: false}]", nil, []Endpoint{{a, true}, {b, false}}},
		{"no endpoint", "[]", nil, []Endpoint{{a, true}}},
		{"replaced by a variable", "[{url: https://a.io, trusted: false}, {url: https://b.io, trusted: true}]",
			[]string{"ENTREPOT_REGISTRIES_A_IO_ENDPOINTS=https://c.io,https://b.io"}, []Endpoint{{c, true}, {b, false}}},
		{"a refusal replaced by a variable", "[{url: https://a.io, trusted: false}]",
			[]string{"ENTREPOT_REGISTRIES_A_IO_ENDPOINTS=https://a.io"}, []Endpoint{{a, true}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first, err := loadText(t, "registries: {a.io: {endpoints: "+tt.endpoints+"}}\n", tt.environ)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, first.Registries["a.io"].Endpoints); diff != "" {
				t.Error(diff)
			}
			var b bytes.Buffer
			if err := first.WriteYAML(&b); err != nil {
				t.Fatal(err)
			}
			again, err := loadText(t, b.String(), nil)
			if diff := cmp.Diff(first, again); diff != "" || err != nil {
				t.Errorf("%v, %s in\n%s", err, diff, &b)
			}
		})
	}
}

func TestRegistryHasItsDefaultsWhereverItIsNamed(t *testing.T) {
	got, err := loadText(t, "registries: {a.io: , b.io: {connections: {per_endpoint: 1000}}}\n", []string{"ENTREPOT_REGISTRIES=c.io"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Connections{"docker.io": {6, 24}, "a.io": {6, 24}, "b.io": {6, 1000}, "c.io": {6, 24}} {
		if r := got.Registries[name]; r.Connections != want || r.Prefer != "order" {
			t.Errorf("%s: %+v, prefers %s; want %+v, order", name, r.Connections, r.Prefer, want)
		}
	}
}

// TestPackageDocHoldsTheWholeFile keeps the example of the package's doc comment loadable and complete.
func TestPackageDocHoldsTheWholeFile(t *testing.T) {
	source, err := os.ReadFile("config.go")
	if err != nil {
		t.Fatal(err)
	}
	doc, _, _ := strings.Cut(string(source), "\npackage config")
	var example strings.Builder
	for line := range strings.Lines(doc) {
		if rest, ok := strings.CutPrefix(line, "//\t"); ok {
			example.WriteString(strings.ReplaceAll(rest, "/run/secrets/hub", "hub"))
		}
	}
	if _, err := loadText(t, example.String(), nil); err != nil {
		t.Fatal(err)
	}
	for _, field := range Fields() {
		key := field.Key[strings.LastIndex(field.Key, ".")+1:] + ":"
		if !strings.Contains(example.String(), key) {
			t.Errorf("the example lacks %s", field.Key)
		}
	}
}

func TestOverridesWinAndAreNamed(t *testing.T) {
	environ := []string{"ENTREPOT_LISTEN=:81", "ENTREPOT_DATA_DIR=env"}
	got, err := loadText(t, "listen: :80\nregistries: {ghcr.io: }\ndefault_registry: GHCR.io\n", environ,
		Override{"--listen", "listen", ":82"},
		Override{"--admin-listen", "admin_listen", "off"},
		Override{"--upstream", "upstream", "http://localhost:5001/, http://localhost:5002"})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Listen, want.AdminListen, want.DataDir, want.DefaultRegistry = ":82", "", "env", "ghcr.io"
	want.Registries["ghcr.io"] = Registry{
		Endpoints:   []Endpoint{{"http://localhost:5001", true}, {"http://localhost:5002", false}},
		Prefer:      "order",
		Connections: Connections{PerBlob: 6, PerEndpoint: 24},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}

	_, err = Load("", nil,
		Override{"--listen", "listen", "here"},
		Override{"--upstream", "upstream", "localhost:5001"},
		Override{"--what", "no.such", "1"})
	wantErr := []string{
		`--upstream: "localhost:5001" is not an http or https URL; allowed: a URL such as https://registry.example:5000/path`,
		`--what: sets "no.such", which is no key`,
		`--listen: "here" is not an address to listen on; allowed: host:port or :port, with a port up to 65535`,
	}
	if diff := cmp.Diff(strings.Join(wantErr, "\n"), message(err)); diff != "" {
		t.Error(diff)
	}
}

func TestWriteYAMLLoadsAgainWithoutSecrets(t *testing.T) {
	for name, text := range map[string]string{"default": "", "whole": wholeFile, "percent": "cache: {max_size: 12.5%, min_free: 1TB, scrub_rate: off}\n"} {
		t.Run(name, func(t *testing.T) {
			want, err := loadText(t, text, nil)
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := want.WriteYAML(&b); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(b.String(), "s3cret") {
				t.Errorf("a secret shows in\n%s", &b)
			}
			if _, err := loadText(t, b.String(), nil); (err != nil) != strings.Contains(b.String(), hidden) {
				t.Errorf("with passwords hidden: %v", err)
			}
			got, err := loadText(t, putBack(b.String()), nil)
			if err != nil {
				t.Fatalf("%v in\n%s", err, &b)
			}
			if diff := cmp.Diff(hideSecrets(want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// putBack puts another password in the place of each that WriteYAML has hidden.
func putBack(text string) string {
	return strings.ReplaceAll(text, "      password: '"+hidden+"'\n", "      password: put back\n")
}

// hideSecrets puts what putBack writes for a secret in its place.
func hideSecrets(c *Config) *Config {
	for name, registry := range c.Registries {
		if !registry.Credentials.Password.IsZero() {
			registry.Credentials.Password = NewSecret("put back")
		}
		c.Registries[name] = registry
	}
	return c
}

func TestWriteYAMLText(t *testing.T) {
	c, err := loadText(t, wholeFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := c.WriteYAML(&b); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"admin_listen: ''", "shutdown_grace: 1d12h", "  max_size: 200GiB", "  min_free: 5%",
		"      password: '[hidden]'", "      username: '0123'", "  upstream: 25MB/s", "  background: 2MB/s", "  fill: whole",
		"  when_abandoned: park", "  scrub_rate: 20MiB/s", "  verify_after: 0s", "  pin:",
		"  - docker.io/library/alpine:3.*", "index_dir: /srv/index",
		"  read_ahead: 'off'", "    prefer: speed", "      per_blob: 1", "      per_endpoint: 100"} {
		if !slices.Contains(strings.Split(b.String(), "\n"), line) {
			t.Errorf("no line %q in\n%s", line, &b)
		}
	}
}

func TestResolveSeesAReplacedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	c := Credentials{Username: "u", PasswordFile: path}
	for _, tt := range []struct{ content, password, err string }{
		{"one\n", "one", ""},
		{"two\r\n", "two", ""},
		{" three \n\n", " three \n", ""},
		{"four", "four", ""},
		{"\n", "", "password file: " + path + " is empty"},
		{strings.Repeat("x", maxPassword+1), "", "password file: " + path + " is larger than 64KiB"},
	} {
		if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
			t.Fatal(err)
		}
		_, password, err := c.Resolve()
		if password != tt.password || message(err) != tt.err {
			t.Errorf("%.20q: %q, %v", tt.content, password, err)
		}
	}
	user, password, err := Credentials{Username: "u", Password: NewSecret("p")}.Resolve()
	if user != "u" || password != "p" || err != nil {
		t.Error(user, password, err)
	}
}

func TestCanonicalRegistry(t *testing.T) {
	for name, want := range map[string]string{
		"docker.io": "docker.io", "Index.Docker.IO": "docker.io", "registry-1.docker.io": "docker.io",
		"GHCR.io": "ghcr.io", "localhost:5000": "localhost:5000", "": "",
	} {
		if got := CanonicalRegistry(name); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

// FuzzLoad asserts that whatever loads is complete and loads again from what WriteYAML writes of it.
func FuzzLoad(f *testing.F) {
	f.Add(strings.ReplaceAll(wholeFile, "password_file: hub", "password: p"), "ENTREPOT_LOG_LEVEL=warn")
	f.Add("", "ENTREPOT_REGISTRIES=ghcr.io,quay.io")
	f.Add("registries: {a-b: {hosts: [x]}, a.b: }", "ENTREPOT_REGISTRIES_A_B_HOSTS=y")
	f.Add("cache: {max_size: 12.5%, tag_ttl: 1.5d}", "ENTREPOT_BANDWIDTH_UPSTREAM=1Gbit/s")
	f.Add("registries: {a.io: {endpoints: [{url: http://b.io}, {url: http://a.io, trusted: true}], connections: {per_blob: 8}}}", "")
	f.Add("registries: {a.io: {endpoints: [{url: http://a.io, trusted: false}], prefer: speed}}", "ENTREPOT_REGISTRIES_A_IO_CONNECTIONS_PER_ENDPOINT=1000")
	f.Add("cache: {pin: ['docker.io/{a,b}:[0-9]*'], scrub_rate: off}\nindex_dir: i", "ENTREPOT_CACHE_PIN=docker.io/**")
	f.Add("cache: {fill: whole, when_abandoned: park}", "ENTREPOT_BANDWIDTH_BACKGROUND=1MiB/s")
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
