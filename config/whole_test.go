package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"
)

const wholeFile = `listen: 127.0.0.1:80
tls: {cert_file: cert.pem, key_file: key.pem, client_ca_file: ca.pem}
admin_listen: off
data_dir: /var/lib/entrepot
index_dir: /srv/index
default_registry: GHCR.io
shutdown_grace: 1d12h
offline: true
log: {level: debug, format: json}
access:
  allow_clients: [10.0.0.0/8, 192.0.2.7]
  anonymous: allow
  htpasswd_file: htpasswd
  users: {Alice: {pull: [ghcr.io/corp/**, Docker.io/tools-*]}}
cache:
  {max_size: 200GiB, min_free: 5%, pin: [Docker.io/alpine:3.*, ghcr.io/owner/**], scrub_rate: 20MiB/s, verify_after: 0,
  tag_ttl: 90s, revalidate_timeout: 1s, negative_ttl: 0, on_upstream_delete: keep, fill: whole, when_abandoned: park, read_ahead: off}
registries:
  index.docker.io:
    credentials: {username: ci, password_file: hub}
    tag_ttl: ["redis:latest 1m", "**:{v1,v2} 1d"]
    expose: [redis, corp/base-*]
    quota_reserve: 20
  ghcr.io:
    endpoints: [{url: HTTPS://Near.Example:8443/v2proxy/, trusted: true}, {url: https://ghcr.io, trusted: false}]
    prefer: speed
    connections: {per_blob: 1, per_endpoint: 100}
    credentials: {username: 0123, password: s3cret}
    authorization: client
    hosts: [GHCR.mirror.example, "[fd00::1]:5000"]
    token_realms: [auth.example]
    bandwidth: sat-sun 5MB/s, else 1MB/s
  quay.io:
    connections: {per_blob: 8}
    credentials: {exec: [get-password, -q], username: bot, lifetime: 1h}
  localhost:5001: {credentials: {docker_config: config.json}, quota_reserve: 0}
  b.example: {credentials: {helper: ecr-login}}
bandwidth:
  upstream: mon-fri 08:00-18:00 200Mbit/s, else unlimited
  background: 2MB/s
  clients: 1Gbit/s
  per_client: 20MB/s
  time_zone: Europe/Berlin
`

// plan parses a plan of the whole file.
func plan(text string) (p Plan) {
	if err := p.UnmarshalText([]byte(text)); err != nil {
		panic(err)
	}
	return p.In(Zone("Europe/Berlin").Location())
}

func wholeConfig() *Config {
	tenPercent := Reserve{Percent: 10}
	return &Config{
		Listen:          "127.0.0.1:80",
		TLS:             TLS{CertFile: "cert.pem", KeyFile: "key.pem", ClientCAFile: "ca.pem"},
		DataDir:         "/var/lib/entrepot",
		IndexDir:        "/srv/index",
		DefaultRegistry: "ghcr.io",
		ShutdownGrace:   Duration(36 * time.Hour),
		Offline:         true,
		Log:             Log{Level: "debug", Format: "json"},
		Access: Access{
			AllowClients: []Network{{netip.MustParsePrefix("10.0.0.0/8")}, {netip.MustParsePrefix("192.0.2.7/32")}},
			Anonymous:    "allow",
			HtpasswdFile: "htpasswd",
			Users:        map[string]User{"Alice": {Pull: []Pattern{"ghcr.io/corp/**", "docker.io/library/tools-*"}}},
		},
		Cache: Cache{
			MaxSize: Space{Bytes: 200 << 30}, MinFree: Space{Percent: 5},
			Pin:       []Pattern{"docker.io/library/alpine:3.*", "ghcr.io/owner/**"},
			ScrubRate: 20 << 20, TagTTL: Duration(90 * time.Second),
			RevalidateTimeout: Duration(time.Second), OnUpstreamDelete: "keep",
			Fill: "whole", WhenAbandoned: "park", ReadAhead: "off",
		},
		Registries: map[string]Registry{
			"docker.io": {
				Endpoints:     []Endpoint{{URL: "https://registry-1.docker.io", Trusted: true}},
				Prefer:        "order",
				Connections:   Connections{PerBlob: 6, PerEndpoint: 24},
				Credentials:   Logins{{Username: "ci", PasswordFile: "hub"}},
				Authorization: "mirror",
				TagTTL: []TagRule{{Repository: "library/redis", Tag: "latest", TTL: Duration(time.Minute)},
					{Repository: "**", Tag: "{v1,v2}", TTL: Duration(day)}},
				Expose:       []Glob{"library/redis", "corp/base-*"},
				QuotaReserve: Reserve{Count: 20},
				Bandwidth:    plan("unlimited"),
			},
			"ghcr.io": {
				Endpoints:     []Endpoint{{URL: "https://near.example:8443/v2proxy", Trusted: true}, {URL: "https://ghcr.io"}},
				Prefer:        "speed",
				Connections:   Connections{PerBlob: 1, PerEndpoint: 100},
				Credentials:   Logins{{Username: "0123", Password: NewSecret("s3cret")}},
				Authorization: "client",
				Hosts:         []string{"ghcr.mirror.example", "[fd00::1]:5000"},
				TokenRealms:   []string{"auth.example"},
				QuotaReserve:  tenPercent,
				Bandwidth:     plan("sat-sun 5MB/s, else 1MB/s"),
			},
			"quay.io": {
				Endpoints:     []Endpoint{{URL: "https://quay.io", Trusted: true}},
				Prefer:        "order",
				Connections:   Connections{PerBlob: 8, PerEndpoint: 24},
				Credentials:   Logins{{Username: "bot", Exec: []string{"get-password", "-q"}, Lifetime: Duration(time.Hour)}},
				Authorization: "mirror",
				QuotaReserve:  tenPercent,
				Bandwidth:     plan("unlimited"),
			},
			"localhost:5001": {
				Endpoints:     []Endpoint{{URL: "https://localhost:5001", Trusted: true}},
				Prefer:        "order",
				Connections:   Connections{PerBlob: 6, PerEndpoint: 24},
				Credentials:   Logins{{DockerConfig: "config.json"}},
				Authorization: "mirror",
				Bandwidth:     plan("unlimited"),
			},
			"b.example": {
				Endpoints:     []Endpoint{{URL: "https://b.example", Trusted: true}},
				Prefer:        "order",
				Connections:   Connections{PerBlob: 6, PerEndpoint: 24},
				Credentials:   Logins{{Helper: "ecr-login"}},
				Authorization: "mirror",
				QuotaReserve:  tenPercent,
				Bandwidth:     plan("unlimited"),
			},
		},
		Bandwidth: Bandwidth{
			Upstream: plan("mon-fri 08:00-18:00 25MB/s, else unlimited"), Background: plan("2MB/s"), Clients: plan("125MB/s"),
			PerClient: plan("20MB/s"), TimeZone: "Europe/Berlin",
		},
	}
}

// aHash is one that htpasswd -B made.
const aHash = "$2y$05$abcdefghijklmnopqrstuuMYSTpEoBLdR6dHtWoEHVbG0pFTGLPWq"

// namedFiles makes the files that configurations of these tests name, in the working directory.
func namedFiles(t *testing.T) {
	cert, key := certificate(t)
	for name, text := range map[string]string{
		"hub": "from-file\n", "cert.pem": cert, "key.pem": key, "ca.pem": cert, "htpasswd": "alice:" + aHash + "\n", "config.json": "{}",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// certificate is one in PEM that signs itself, and its key.
var certificate = func() func(*testing.T) (cert, key string) {
	var once sync.Once
	var cert, key string
	return func(t *testing.T) (string, string) {
		once.Do(func() {
			private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
			der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
			if err != nil {
				t.Fatal(err)
			}
			pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
			if err != nil {
				t.Fatal(err)
			}
			cert = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
			key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
		})
		return cert, key
	}
}()
