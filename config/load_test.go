package config

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// loadText loads a file that is named f.yaml in errors.
func loadText(t *testing.T, text string, environ []string, overrides ...Override) (*Config, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile("f.yaml", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	namedFiles(t)
	return Load("f.yaml", environ, overrides...)
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
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
		{"none marked", "[{url: https://a.io}, {url: https://b.io}]", nil, []Endpoint{{URL: a, Trusted: true}, {URL: b}}},
		{"the last", "[{url: https://a.io}, {url: https://b.io, trusted: true}]", nil, []Endpoint{{URL: a}, {URL: b, Trusted: true}}},
		{"several", "[{trusted: true, url: https://a.io}, {url: https://b.io}, {url: https://c.io, trusted: true}]", nil,
			[]Endpoint{{URL: a, Trusted: true}, {URL: b}, {URL: c, Trusted: true}}},
		{"all", "[{url: https://a.io, trusted: true}, {url: https://b.io, trusted: true}]", nil, []Endpoint{{URL: a, Trusted: true}, {URL: b, Trusted: true}}},
		{"not the first", "[{url: https://a.io, trusted: false}, {url: https://b.io, trusted: true}]", nil,
			[]Endpoint{{URL: a}, {URL: b, Trusted: true}}},
		{"not the second", "[{url: https://a.io}, {url: https://b.io, trusted: false}]", nil, []Endpoint{{URL: a, Trusted: true}, {URL: b}}},
		{"no endpoint", "[]", nil, []Endpoint{{URL: a, Trusted: true}}},
		{"replaced by a variable", "[{url: https://a.io, trusted: false}, {url: https://b.io, trusted: true}]",
			[]string{"ENTREPOT_REGISTRIES_A_IO_ENDPOINTS=https://c.io,https://b.io"}, []Endpoint{{URL: c, Trusted: true}, {URL: b}}},
		{"a refusal replaced by a variable", "[{url: https://a.io, trusted: false}]",
			[]string{"ENTREPOT_REGISTRIES_A_IO_ENDPOINTS=https://a.io"}, []Endpoint{{URL: a, Trusted: true}}},
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
			example.WriteString(strings.NewReplacer("/run/secrets/", "", "/etc/entrepot/", "").Replace(rest))
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
	ghcr := defaultRegistry("ghcr.io")
	ghcr.Endpoints = []Endpoint{{URL: "http://localhost:5001", Trusted: true}, {URL: "http://localhost:5002"}}
	want.Registries["ghcr.io"] = ghcr
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
		"      password: '[hidden]'", "      username: '0123'", "  upstream: mon-fri 08:00-18:00 25MB/s, else unlimited", "  background: 2MB/s", "  fill: whole",
		"  when_abandoned: park", "  scrub_rate: 20MiB/s", "  verify_after: 0s", "  pin:",
		"  - docker.io/library/alpine:3.*", "index_dir: /srv/index",
		"  read_ahead: 'off'", "    prefer: speed", "      per_blob: 1", "      per_endpoint: 100"} {
		if !slices.Contains(strings.Split(b.String(), "\n"), line) {
			t.Errorf("no line %q in\n%s", line, &b)
		}
	}
}

func TestPasswordFileHoldsAPassword(t *testing.T) {
	path := filepath.Join(t.TempDir(), "password")
	for content, want := range map[string]string{
		"one\n":                            "",
		" two \n":                          "",
		"three":                            "",
		"\r\n":                             "password file: " + path + " is empty",
		strings.Repeat("x", maxPassword+1): "password file: " + path + " is larger than 64KiB",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := (Login{Username: "u", PasswordFile: path}).passwordFile(); message(err) != want {
			t.Errorf("%.20q: %v", content, err)
		}
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
