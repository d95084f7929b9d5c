package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestWhatIsWrongOfUpstreamsAndClients has the errors of how registries are reached, and of who may pull.
func TestWhatIsWrongOfUpstreamsAndClients(t *testing.T) {
	const users = "allowed: with access.htpasswd_file or tls.client_ca_file"
	for _, tt := range []struct {
		name, file string
		want       []string
	}{
		{"TLS", "tls:\n  cert_file: cert.pem\n  client_ca_file: hub\n", []string{
			"f.yaml:2: tls.cert_file: a certificate without its key; allowed: two PEM files, a certificate and its key",
			`f.yaml:3: tls.client_ca_file: "hub" has no certificate; allowed: a file with certificates in PEM`,
		}},
		{"TLS by halves", "tls:\n  key_file: key.pem\n  client_ca_file: ca.pem\n", []string{
			"f.yaml:2: tls.key_file: a key without its certificate; allowed: two PEM files, a certificate and its key",
			"f.yaml:3: tls.client_ca_file: clients show certificates over TLS alone; allowed: with cert_file and key_file",
		}},
		{"files", "tls:\n  cert_file: missing\n  key_file: .\naccess:\n  htpasswd_file: missing\n", []string{
			"f.yaml:2: tls.cert_file: stat missing: no such file or directory; allowed: two PEM files, a certificate and its key",
			"f.yaml:3: tls.key_file: . is not a regular file; allowed: two PEM files, a certificate and its key",
			"f.yaml:5: access.htpasswd_file: stat missing: no such file or directory; allowed: a file that can be read, with lines as htpasswd -B writes them",
		}},
		{"no pair", "tls:\n  cert_file: cert.pem\n  key_file: cert.pem\n", []string{
			`f.yaml:2: tls.cert_file: "cert.pem" and "cert.pem" are no pair: tls: found a certificate rather than a key in the PEM for the private key; allowed: two PEM files, a certificate and its key`,
		}},
		{"nobody", "access:\n  anonymous: deny\n  users:\n    alice: {pull: [docker.io/a]}\n", []string{
			"f.yaml:2: access.anonymous: nobody could say who they are, so nobody could pull; " + users,
			"f.yaml:3: access.users: nobody could say who they are; " + users,
		}},
		{"users", "access:\n  allow_clients: [10.0.0.1/8]\n  htpasswd_file: htpasswd\n  users:\n    a:b: {pull: [docker.io/a]}\n    bob: {}\n    eve:\n      pull: [a.io/b]\n    eve: {}\n", []string{
			`f.yaml:2: access.allow_clients[0]: "10.0.0.1/8" has bits beyond its prefix: 10.0.0.0/8 is the network, 10.0.0.1 the address; ` +
				"allowed: a network such as 10.0.0.0/8 or fd00::/8, or an address such as 192.0.2.7",
			"f.yaml:9: access.users.eve: given before, on line 7; allowed: once",
			`f.yaml:5: access.users.a:b: "a:b" is not a user's name; allowed: a text without colons and control characters`,
			`f.yaml:6: access.users.bob: "bob" may pull no more than everybody; allowed: pull, with patterns such as ghcr.io/corp/**`,
			`f.yaml:8: access.users.eve.pull[0]: the registry of "a.io/b" is not configured; allowed: docker.io`,
		}},
		{"tags of users", "access:\n  htpasswd_file: htpasswd\n  users:\n    alice:\n      pull: [\"tools:v*\", \"docker.io/tools:v*\", \"docker.io/corp/**:*\"]\n", []string{
			`f.yaml:5: access.users.alice.pull[0]: "tools:v*" names no repository; ` + patternAllowed,
			`f.yaml:5: access.users.alice.pull[1]: "docker.io/library/tools:v*" has a tag, but layers are asked for without one, so nobody could pull; allowed: docker.io/library/tools`,
			`f.yaml:5: access.users.alice.pull[2]: "docker.io/corp/**:*" has a tag, but layers are asked for without one, so nobody could pull; allowed: docker.io/corp/**`,
		}},
		{"lists of nothing", `access:
  allow_clients: []
  htpasswd_file: htpasswd
  users:
    alice:
      pull: []
registries:
  a.io:
    credentials: []
  b.io:
    credentials:
      exec: []
  c.io:
    credentials:
    - {username: u, exec: []}
    - {helper: h, exec: []}
  d.io: {credentials: , expose: [], hosts: []}
`, []string{
			"f.yaml:2: access.allow_clients: an empty list would let in everybody; allowed: networks such as 10.0.0.0/8, or to leave the key out for everybody",
			`f.yaml:5: access.users.alice: "alice" may pull no more than everybody; allowed: pull, with patterns such as ghcr.io/corp/**`,
			"f.yaml:9: registries.a.io.credentials: an empty list has no credentials; " + loginAllowed + ", or to leave the key out for none",
			"f.yaml:12: registries.b.io.credentials.exec: " + execProblem,
			"f.yaml:15: registries.c.io.credentials[0].exec: " + execProblem,
			"f.yaml:16: registries.c.io.credentials[1].exec: " + execProblem,
		}},
		{"tag rules", `registries:
  docker.io:
    tag_ttl:
    - latest 1m
    - docker.io/library/redis:latest 1m
    - "**:* 2m"
    - "corp/**:v* 1d"
    - "** 1d"
  a.io:
    tag_ttl: ["A.io/b 1m", "index.docker.io/b 1m", "a.io/**:latest 1m", "**:latest 1m", "** 2m"]
`, []string{
			`f.yaml:4: registries.docker.io.tag_ttl[0]: "latest" could be a repository or a tag; allowed: "**:latest 1m" for the tag, "latest:* 1m" for the repository`,
			`f.yaml:10: registries.a.io.tag_ttl[0]: "A.io/b" has what no name has; allowed: repository:tag and a duration, such as **:latest 1m or library/*:v[0-9]* 1d`,
			`f.yaml:10: registries.a.io.tag_ttl[2]: "a.io/**" begins with the name of the registry, which goes without saying; allowed: **`,
			`f.yaml:5: registries.docker.io.tag_ttl[1]: "docker.io/library/redis" begins with the name of the registry, which goes without saying; allowed: library/redis`,
			`f.yaml:7: registries.docker.io.tag_ttl[3]: "corp/**:v* 1d" is never reached: "**:* 2m" before it is for everything, and the first that fits decides; allowed: to put it before that`,
			`f.yaml:8: registries.docker.io.tag_ttl[4]: "**:* 1d" is never reached: "**:* 2m" before it is for everything, and the first that fits decides; allowed: to put it before that`,
		}},
		{"policy", "cache:\n  revalidate_timeout: 21s\n  on_upstream_delete: drop\nregistries:\n  a.io:\n    authorization: both\n    tag_ttl: [latest]\n    expose: [a.io/b, A/b]\n    quota_reserve: all\n    bandwidth: mon 1MB/s\n", []string{
			`f.yaml:3: cache.on_upstream_delete: "drop" is unknown; allowed: follow, keep`,
			`f.yaml:6: registries.a.io.authorization: "both" is unknown; allowed: mirror, client`,
			`f.yaml:7: registries.a.io.tag_ttl[0]: "latest" is not a pattern and a duration; allowed: repository:tag and a duration, such as **:latest 1m or library/*:v[0-9]* 1d`,
			`f.yaml:8: registries.a.io.expose[1]: "A/b" has what no name has; allowed: a repository without its registry and without a tag, such as library/alpine, corp/* or **`,
			`f.yaml:9: registries.a.io.quota_reserve: "all" is neither a share nor a count; allowed: a percentage below 100%, such as 10%, or a count, such as 20`,
			`f.yaml:10: registries.a.io.bandwidth: "mon 1MB/s" says nothing of all other times: end it with else and a rate, or with else unlimited; ` + planAllowed,
			`f.yaml:2: cache.revalidate_timeout: 21s is longer than clients wait; allowed: up to 20s`,
			`f.yaml:8: registries.a.io.expose[0]: "a.io/b" begins with the name of the registry, which goes without saying; allowed: b`,
		}},
		{"endpoints", `registries:
  a.io:
    endpoints:
    - url: https://a.io
      ca_file: ca.pem
      insecure: true
      client_cert_file: cert.pem
    - url: http://b.io
      insecure: true
      ca_file: hub
    - {url: https://c.io, proxy: "http://u:hunter2@p/x", dial: c.io, dns: c.io}
`, []string{
			"f.yaml:11: registries.a.io.endpoints[2].proxy: the proxy has more than a host and a port; " + proxyAllowed,
			`f.yaml:11: registries.a.io.endpoints[2].dial: "c.io" is not an address to connect to; allowed: host:port, such as 192.0.2.7:443`,
			`f.yaml:11: registries.a.io.endpoints[2].dns: "c.io" is not a DNS server; allowed: ip or ip:port, such as 192.0.2.53`,
			"f.yaml:7: registries.a.io.endpoints[0].client_cert_file: a certificate without its key; allowed: two PEM files, a certificate and its key",
			"f.yaml:6: registries.a.io.endpoints[0].insecure: insecure believes any certificate, so ca_file has no use; allowed: one of the two",
			`f.yaml:10: registries.a.io.endpoints[1].ca_file: "hub" has no certificate; allowed: a file with certificates in PEM`,
			"f.yaml:9: registries.a.io.endpoints[1].insecure: insecure believes any certificate, so ca_file has no use; allowed: one of the two",
			"f.yaml:10: registries.a.io.endpoints[1].ca_file: the endpoint speaks plain http; allowed: an https url, or to leave the key out",
			"f.yaml:9: registries.a.io.endpoints[1].insecure: the endpoint speaks plain http; allowed: an https url, or to leave the key out",
		}},
		{"ways to have credentials", `registries:
  a.io:
    credentials:
    - {username: u, password: p}
    - {username: u, helper: ecr-login}
    - {docker_config: hub, lifetime: 1h}
    - {exec: [a], helper: docker-credential-b}
    - {}
    - username: u
  b.io:
    credentials: [{docker_config: missing}]
  c.io:
    credentials: {exec: [""]}
  d.io:
    credentials: hunter2
`, []string{
			"f.yaml:15: registries.d.io.credentials: a single value is given; allowed: a mapping, or a list of mappings",
			"f.yaml:5: registries.a.io.credentials[1].username: a username besides helper, which has its own; " + loginAllowed,
			"f.yaml:6: registries.a.io.credentials[2].lifetime: what docker_config gives has none; allowed: with helper or exec",
			`f.yaml:6: registries.a.io.credentials[2].docker_config: "hub" is not JSON; allowed: a config.json of docker's`,
			"f.yaml:7: registries.a.io.credentials[3].exec: helper and exec are both given; " + loginAllowed,
			`f.yaml:7: registries.a.io.credentials[3].helper: "docker-credential-b" is not a helper; allowed: what follows docker-credential- in its name, such as ecr-login`,
			"f.yaml:8: registries.a.io.credentials[4]: neither a password nor where to get one is given; " + loginAllowed,
			"f.yaml:9: registries.a.io.credentials[5].username: a username without a password; " + loginAllowed,
			"f.yaml:11: registries.b.io.credentials.docker_config: stat missing: no such file or directory; allowed: a config.json of docker's",
			"f.yaml:13: registries.c.io.credentials.exec: it names no command; allowed: a command and its arguments, such as [aws, ecr, get-login-password]",
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

func TestVariablesOfSeveralCredentialsAndOfUsers(t *testing.T) {
	_, err := loadText(t, "registries: {a.io: {credentials: [{username: u, password: p}, {helper: x}]}}\n",
		[]string{"ENTREPOT_REGISTRIES_A_IO_CREDENTIALS_USERNAME=v", "ENTREPOT_ACCESS_USERS_ALICE_PULL=docker.io/a"})
	const path = "allowed: the path of a key, as in ENTREPOT_CACHE_MAX_SIZE"
	want := "ENTREPOT_ACCESS_USERS_ALICE_PULL: unknown variable; its user is not configured: name it in ENTREPOT_ACCESS_USERS; " + path + "\n" +
		"ENTREPOT_REGISTRIES_A_IO_CREDENTIALS_USERNAME: unknown variable; of several credentials no variable could say which is meant: set them in the file; " + path
	if diff := cmp.Diff(want, message(err)); diff != "" {
		t.Error(diff)
	}
	_, err = loadText(t, "", []string{"ENTREPOT_ACCESS_ALLOW_CLIENTS=", "ENTREPOT_REGISTRIES_DOCKER_IO_CREDENTIALS_EXEC=", "ENTREPOT_OFFLINE=1"})
	want = `ENTREPOT_OFFLINE: "1" is unknown; allowed: true, false` + "\n" +
		"ENTREPOT_ACCESS_ALLOW_CLIENTS: an empty list would let in everybody; allowed: networks such as 10.0.0.0/8, or to leave the key out for everybody\n" +
		"ENTREPOT_REGISTRIES_DOCKER_IO_CREDENTIALS_EXEC: " + execProblem
	if diff := cmp.Diff(want, message(err)); diff != "" {
		t.Error(diff)
	}
	c, err := loadText(t, "", []string{"ENTREPOT_REGISTRIES_DOCKER_IO_CREDENTIALS_EXEC=a"})
	if err != nil || len(c.Registries["docker.io"].Credentials) != 1 {
		t.Errorf("%+v, %v", c, err)
	}
}
