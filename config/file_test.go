package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWhatIsWrongInTheFile(t *testing.T) {
	const keys = "listen, tls, admin_listen, data_dir, index_dir, default_registry, shutdown_grace, offline, log, access, cache, registries, bandwidth"
	const host = "allowed: host or host:port, such as registry.example:5000"
	const both = loginAllowed
	for _, tt := range []struct {
		name, file string
		want       []string
	}{
		// Shape.
		{"unknown key", "cache:\n  tag_tl: 5s\n",
			[]string{"f.yaml:2: cache.tag_tl: unknown key; did you mean tag_ttl? allowed: max_size, min_free, pin, scrub_rate, verify_after, tag_ttl, revalidate_timeout, negative_ttl, on_upstream_delete, fill, when_abandoned, read_ahead"}},
		{"unknown key far from any", "zzzzzzzz: 1\n",
			[]string{"f.yaml:1: zzzzzzzz: unknown key; allowed: " + keys}},
		{"key that is no text", "\n? [listen]\n: 1\n",
			[]string{"f.yaml:2: unknown key; allowed: " + keys}},
		{"key that is an alias", "data_dir: &listen x\n*listen : :1\n",
			[]string{"f.yaml:2: unknown key; allowed: " + keys}},
		{"merge key", "<<: {listen: 1}\n",
			[]string{"f.yaml:1: <<: unknown key; allowed: " + keys}},
		{"unknown key in a list", "registries:\n  ghcr.io:\n    endpoints:\n    - url: https://a\n    - urk: https://b\n",
			[]string{
				"f.yaml:5: registries.ghcr.io.endpoints[1].urk: unknown key; did you mean url? allowed: url, trusted, ca_file, client_cert_file, client_key_file, insecure, proxy, dial, dns",
				"f.yaml:5: registries.ghcr.io.endpoints[1].url: no url is given; allowed: a URL such as https://ghcr.io",
			}},
		{"duplicate key", "listen: :1\ndata_dir: x\nlisten: :2\n",
			[]string{"f.yaml:3: listen: given before, on line 1; allowed: once"}},
		{"duplicate registry", "registries:\n  a.io: {}\n  a.io: {}\n",
			[]string{"f.yaml:3: registries.a.io: given before, on line 2; allowed: once"}},
		{"two names of one registry", "registries:\n  docker.io: {}\n  Registry-1.docker.io: {}\n",
			[]string{`f.yaml:3: registries.Registry-1.docker.io: another name of "docker.io", given on line 2; allowed: one of its names`}},
		{"root is a list", "- 1\n", []string{"f.yaml:1: a list is given; allowed: a mapping"}},
		{"wrong types", "listen: [a]\nlog: info\nregistries:\n  a.io:\n    hosts: a\n    endpoints: {url: x}\ncache: []\n",
			[]string{
				"f.yaml:1: listen: a list is given; allowed: a single value",
				"f.yaml:2: log: a single value is given; allowed: a mapping",
				"f.yaml:5: registries.a.io.hosts: a single value is given; allowed: a list",
				"f.yaml:6: registries.a.io.endpoints: a mapping is given; allowed: a list",
				"f.yaml:7: cache: a list is given; allowed: a mapping",
			}},
		{"no value", "cache:\n  max_size:\n",
			[]string{`f.yaml:2: cache.max_size: no value is given; allowed: a value ("" for an empty one), or to leave the key out`}},
		{"tag", "listen: !!binary aGk=\nlog: !custom {}\ndata_dir: !!int x\n",
			[]string{
				"f.yaml:1: listen: the value has a tag; allowed: values without tags",
				"f.yaml:2: log: the value has a tag; allowed: values without tags",
				"f.yaml:3: data_dir: the value has a tag; allowed: values without tags",
			}},
		{"alias", "listen: &a :1\ndata_dir: *a\n",
			[]string{"f.yaml:2: data_dir: " + noAlias}},
		{"alias to itself", "registries: &a {x.io: *a}\n",
			[]string{"f.yaml:1: registries.x.io: " + noAlias}},
		{"password that looks like an alias", "registries:\n docker.io:\n  credentials: {username: a, password: *hunter2}\n",
			[]string{"f.yaml:3: " + noAlias}},
		{"two documents", "listen: :1\n---\nlisten: :2\n",
			[]string{"f.yaml:2: a second document begins; allowed: one document"}},
		{"syntax", "listen: :1\nlog: {level: info\ncache: {}\n",
			[]string{"f.yaml:3: not valid YAML: did not find expected ',' or '}'"}},
		{"tab", "log:\n\tlevel: info\n",
			[]string{"f.yaml:2: not valid YAML: found character that cannot start any token"}},
		{"control character", "listen: :1\ndata_dir: \x00\n",
			[]string{"f.yaml:2: a byte that is not text; allowed: UTF-8 without control characters"}},
		{"not UTF-8", "listen: \xff\n",
			[]string{"f.yaml:1: a byte that is not text; allowed: UTF-8 without control characters"}},
		{"too large", strings.Repeat("#", maxFile+1),
			[]string{"configuration: f.yaml is larger than 1MiB"}},
		{"deep", strings.Repeat("[", 1<<20),
			[]string{"f.yaml:1: not valid YAML: exceeded max depth of 10000"}},

		// Values.
		{"values", "shutdown_grace: 5\nlog: {level: trace, format: text}\ncache:\n  max_size: 200\n  min_free: 0%\n  tag_ttl: -1s\nbandwidth: {upstream: 200}\n" +
			"registries:\n  a.io: {prefer: fastest}\n",
			[]string{
				`f.yaml:1: shutdown_grace: "5" is not a duration; allowed: a duration such as 90s, 1h30m or 7d`,
				`f.yaml:2: log.level: "trace" is unknown; allowed: debug, info, warn, error`,
				`f.yaml:2: log.format: "text" is unknown; allowed: auto, console, json`,
				`f.yaml:4: cache.max_size: "200" has no unit; allowed: a size such as 200GiB, or a percentage above 0% up to 100%`,
				`f.yaml:5: cache.min_free: "0%" is not a percentage of a disk; allowed: a size such as 200GiB, or a percentage above 0% up to 100%`,
				`f.yaml:6: cache.tag_ttl: "-1s" is negative; allowed: a duration such as 90s, 1h30m or 7d`,
				`f.yaml:7: bandwidth.upstream: "200" is not a rate; allowed: bits as in 200Mbit/s, bytes as in 20MB/s or 20MiB/s, or unlimited`,
				`f.yaml:9: registries.a.io.prefer: "fastest" is unknown; allowed: order, speed`,
			}},
		{"modes", "cache:\n  fill: parts\n  when_abandoned: drop\n  read_ahead: all\nbandwidth: {background: 5%}\n",
			[]string{
				`f.yaml:2: cache.fill: "parts" is unknown; allowed: auto, whole`,
				`f.yaml:3: cache.when_abandoned: "drop" is unknown; allowed: finish, park`,
				`f.yaml:4: cache.read_ahead: "all" is unknown; allowed: off, manifests, config, layers`,
				`f.yaml:5: bandwidth.background: "5%" is not a rate; allowed: bits as in 200Mbit/s, bytes as in 20MB/s or 20MiB/s, or unlimited`,
			}},
		{"connections", "registries:\n  a.io:\n    connections:\n      per_blob: 0\n      per_endpoint: -1\n" +
			"  b.io: {connections: {per_blob: 9, per_endpoint: 1001}}\n  c.io: {connections: 6}\n  d.io: {connections: {per_blob: , per_host: 1}}\n",
			[]string{
				`f.yaml:4: registries.a.io.connections.per_blob: "0" is not a count; allowed: a whole number from 1, such as 6`,
				`f.yaml:5: registries.a.io.connections.per_endpoint: "-1" is not a count; allowed: a whole number from 1, such as 6`,
				`f.yaml:7: registries.c.io.connections: a single value is given; allowed: a mapping`,
				`f.yaml:8: registries.d.io.connections.per_blob: no value is given; allowed: a value ("" for an empty one), or to leave the key out`,
				`f.yaml:8: registries.d.io.connections.per_host: unknown key; did you mean per_blob? allowed: per_blob, per_endpoint`,
				`f.yaml:6: registries.b.io.connections.per_blob: 9 is out of bounds; allowed: 1 to 8`,
				`f.yaml:6: registries.b.io.connections.per_endpoint: 1001 is out of bounds; allowed: 1 to 1000`,
			}},
		{"trusted", "registries:\n  a.io:\n    endpoints:\n    - {url: https://a.io, trusted: yes}\n    - {url: https://b.io, trusted: [true]}\n" +
			"    - {url: https://c.io, trusted: }\n    - {url: https://d.io, trusted: True}\n",
			[]string{
				`f.yaml:4: registries.a.io.endpoints[0].trusted: "yes" is unknown; allowed: true, false`,
				`f.yaml:5: registries.a.io.endpoints[1].trusted: a list is given; allowed: a single value`,
				`f.yaml:6: registries.a.io.endpoints[2].trusted: no value is given; allowed: a value ("" for an empty one), or to leave the key out`,
				`f.yaml:7: registries.a.io.endpoints[3].trusted: "True" is unknown; allowed: true, false`,
			}},
		{"no endpoint is trusted", "registries:\n  a.io:\n    endpoints:\n    - url: https://a.io\n      trusted: false\n    - url: https://b.io\n",
			[]string{
				"f.yaml:5: registries.a.io.endpoints[0].trusted: none of the endpoints is trusted; allowed: true for one of them, or to leave the key out for the first",
			}},
		{"URL", "registries:\n  a.io:\n    endpoints:\n    - url: ftp://a.io\n",
			[]string{
				`f.yaml:4: registries.a.io.endpoints[0].url: "ftp://a.io" is not an http or https URL; allowed: a URL such as https://registry.example:5000/path`,
			}},
		{"URL with /v2", "registries:\n  a.io:\n    endpoints: [{url: https://a.io/v2/}, {url: https://b.io/x/v2}, {url: https://c.io/%762}]\n",
			[]string{
				`f.yaml:3: registries.a.io.endpoints[0].url: "https://a.io/v2/" ends in /v2, which is added to it: leave /v2 out; allowed: a URL such as https://registry.example:5000/path`,
				`f.yaml:3: registries.a.io.endpoints[1].url: "https://b.io/x/v2" ends in /v2, which is added to it: leave /v2 out; allowed: a URL such as https://registry.example:5000/path`,
				`f.yaml:3: registries.a.io.endpoints[2].url: "https://c.io/%762" ends in /v2, which is added to it: leave /v2 out; allowed: a URL such as https://registry.example:5000/path`,
			}},
		{"endpoint that is a text", "registries:\n  a.io:\n    endpoints:\n    - https://u:hunter2@a.io\n",
			[]string{"f.yaml:4: registries.a.io.endpoints[0]: a single value is given; allowed: {url: …}, such as {url: https://registry.example:5000/path}"}},
		{"mark of a hidden password", "registries:\n  a.io:\n    credentials:\n      username: u\n      password: '[hidden]'\n",
			[]string{"f.yaml:5: registries.a.io.credentials.password: this is the mark of config check, not a password; allowed: the password itself, or a password_file"}},
		{"unknown key of credentials", "registries:\n  a.io:\n    credentials:\n      usrname: u\n      hunter2: x\n",
			[]string{
				"f.yaml:4: registries.a.io.credentials: unknown key; did you mean username? allowed: username, password, password_file, docker_config, helper, exec, lifetime",
				"f.yaml:5: registries.a.io.credentials: unknown key; allowed: username, password, password_file, docker_config, helper, exec, lifetime",
			}},

		// What does not fit together.
		{"max_size 0", "cache: {max_size: 0}\n",
			[]string{"f.yaml:1: cache.max_size: 0 would keep nothing; allowed: 16MiB or more, such as 200GiB, a percentage such as 80%, or to leave the key out for no limit but the free space"}},
		{"addresses", "listen: 5000\nadmin_listen: a b:80\n",
			[]string{
				`f.yaml:1: listen: "5000" is not an address to listen on; allowed: host:port or :port, with a port up to 65535`,
				`f.yaml:2: admin_listen: "a b:80" is not an address to listen on; allowed: host:port, :port, or off, with a port up to 65535`,
			}},
		{"port too large", "listen: :65536\n",
			[]string{`f.yaml:1: listen: ":65536" is not an address to listen on; allowed: host:port or :port, with a port up to 65535`}},
		{"one port for two", "listen: :80\nadmin_listen: 127.0.0.1:80\n",
			[]string{`f.yaml:2: admin_listen: listen (":80") and admin_listen ("127.0.0.1:80") take the same port; allowed: two ports, or admin_listen off`}},
		{"the port of the default", "\nlisten: 127.0.0.1:5001\n",
			[]string{`f.yaml:2: listen: listen ("127.0.0.1:5001") and admin_listen ("127.0.0.1:5001") take the same port; allowed: two ports, or admin_listen off`}},
		{"data_dir", "data_dir: ''\n", []string{"f.yaml:1: data_dir: is empty; allowed: a directory"}},
		{"default_registry", "registries: {a.io: }\ndefault_registry: b.io\n",
			[]string{`f.yaml:2: default_registry: "b.io" is not configured; allowed: a.io, docker.io`}},
		{"registry name", "registries:\n  a.io/x: {}\n  a.io:0: {}\n  '[::zz]': {}\n  \"a\\nb\": {}\n",
			[]string{
				`f.yaml:4: registries.[::zz]: "[::zz]" is not the name of a registry; ` + host,
				`f.yaml:5: registries.a?b: "a?b" is not the name of a registry; ` + host,
				`f.yaml:2: registries.a.io/x: "a.io/x" is not the name of a registry; ` + host,
				`f.yaml:3: registries.a.io:0: "a.io:0" is not the name of a registry; ` + host,
			}},
		{"duplicate endpoints", "registries:\n  a.io:\n    endpoints:\n    - url: https://m.io\n    - url: https://M.io/\n",
			[]string{`f.yaml:5: registries.a.io.endpoints[1]: the endpoint "https://m.io" is given twice; allowed: once`}},
		{"duplicate endpoints, one with the port", "registries:\n  a.io:\n    endpoints:\n    - url: https://m.io/hub\n    - url: http://m.io/hub\n    - url: https://m.io:443/hub\n",
			[]string{`f.yaml:6: registries.a.io.endpoints[2]: the endpoint "https://m.io:443/hub" is given twice; allowed: once`}},
		{"hosts", "registries:\n  a.io:\n    hosts: [m.io, M.io, https://m.io]\n    token_realms: [x/y]\n  b.io:\n    hosts:\n    - n.io\n    - m.io\n",
			[]string{
				`f.yaml:3: registries.a.io.hosts[1]: the host "m.io" is given twice; allowed: once`,
				`f.yaml:3: registries.a.io.hosts[2]: "https://m.io" is not a Host name; ` + host,
				`f.yaml:4: registries.a.io.token_realms[0]: "x/y" is not a host; ` + host,
				`f.yaml:8: registries.b.io.hosts[1]: the host "m.io" belongs to a.io already; allowed: one registry for each host`,
			}},
		{"credentials", `registries:
  a.io:
    credentials:
      username: u
      password: p
      password_file: hub
  b.io:
    credentials:
      username: u
  c.io:
    credentials:
      password: p
  d.io:
    credentials:
      password_file: hub
  e.io:
    credentials:
      username: u
      password_file: missing
  f.io:
    credentials: {username: u, password_file: .}
`,
			[]string{
				"f.yaml:6: registries.a.io.credentials.password_file: password and password_file are both given; " + both,
				"f.yaml:9: registries.b.io.credentials.username: a username without a password; " + both,
				"f.yaml:12: registries.c.io.credentials.password: a password without a username; " + both,
				"f.yaml:15: registries.d.io.credentials.password_file: a password_file without a username; " + both,
				"f.yaml:19: registries.e.io.credentials.password_file: password file: stat missing: no such file or directory; allowed: a file that can be read and holds the password",
				"f.yaml:21: registries.f.io.credentials.password_file: password file: . is not a regular file; allowed: a file that can be read and holds the password",
			}},
		{"all at once", "lisen: :1\nlog: {level: loud}\ndefault_registry: b.io\n",
			[]string{
				"f.yaml:1: lisen: unknown key; did you mean listen? allowed: " + keys,
				`f.yaml:2: log.level: "loud" is unknown; allowed: debug, info, warn, error`,
				`f.yaml:3: default_registry: "b.io" is not configured; allowed: docker.io`,
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := loadText(t, tt.file, nil)
			if diff := cmp.Diff(strings.Join(tt.want, "\n"), message(err)); diff != "" || c != nil {
				t.Errorf("config %v, error (-want +got):\n%s", c, diff)
			}
		})
	}
}

func TestFileThatCannotBeRead(t *testing.T) {
	_, err := Load("no/such/file.yaml", nil)
	if want := "configuration: open no/such/file.yaml: no such file or directory"; message(err) != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestErrorsRepeatNoSecret(t *testing.T) {
	for name, credentials := range map[string]string{
		"list":      "{username: u, password: [hunter2]}",
		"mapping":   "{username: u, password: {hunter2: x}}",
		"tag":       "{username: u, password: !hunter2 x}",
		"bad tag":   "{username: u, password: !!int hunter2}",
		"handle":    "{username: u, password: !hunter2!x y}",
		"alias":     "{username: u, password: *hunter2}",
		"no user":   "{password: hunter2}",
		"both":      "{username: u, password: hunter2, password_file: hub}",
		"no quotes": "{username: u, password: @hunter2}",
		"colon":     "{username: u, password: hunter2: }",
		"key":       "{username: u, hunter2: x}",
		"no space":  "{username: u, password:hunter2}",
		"flow key":  "{username: u, password: , hunter2}",
		"plain URL": "{}\n    endpoints: ['https://u:hunter2@a.io']",
		"in a URL":  "{}\n    endpoints: [{url: 'https://u:hunter2@a.io'}, {url: 'u:hunter2@a.io'}, {url: 'https://a.io?t=hunter2'}]",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadText(t, "registries:\n  a.io:\n    credentials: "+credentials+"\n", nil)
			if err == nil || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("error %v", err)
			}
		})
	}
}

// TestHostileFilesAreCheap loads files that multiply or repeat. It fails by the time-out of the
// tests, or by an error too long for a log.
func TestHostileFilesAreCheap(t *testing.T) {
	for name, text := range map[string]string{
		"aliases":    "registries:\n  a.io: &a {hosts: &h [" + strings.Repeat("z,", 1000) + "]}\n" + strings.Repeat("  ? b\n  : *a\n", 1<<13),
		"keys":       strings.Repeat("a:\n", 1<<14),
		"registries": "registries: {" + strings.Repeat("a: ,", 1<<14) + "}\n",
		"items":      "registries: {a.io: {hosts: [" + strings.Repeat("a,", 1<<14) + "]}}\n",
		"long key":   strings.Repeat("k", 1<<20-10) + ": 1\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadText(t, text, nil)
			if err == nil || strings.Count(err.Error(), "\n") > maxErrors || len(err.Error()) > 64<<10 {
				t.Errorf("error %.100v", err)
			}
		})
	}
	_, err := loadText(t, strings.Repeat("a:\n", maxErrors+1), nil)
	if !strings.HasSuffix(message(err), "\nand more: the first 100 errors are shown") {
		t.Error(err)
	}
}
