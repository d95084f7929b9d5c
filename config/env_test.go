package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestEnvironmentGivesEveryField(t *testing.T) {
	environ := []string{
		"ENTREPOT_LISTEN=127.0.0.1:80",
		"ENTREPOT_TLS_CERT_FILE=cert.pem",
		"ENTREPOT_TLS_KEY_FILE=key.pem",
		"ENTREPOT_TLS_CLIENT_CA_FILE=ca.pem",
		"ENTREPOT_OFFLINE=true",
		"ENTREPOT_ACCESS_ALLOW_CLIENTS=10.0.0.0/8,192.0.2.7",
		"ENTREPOT_ACCESS_ANONYMOUS=allow",
		"ENTREPOT_ACCESS_HTPASSWD_FILE=htpasswd",
		"ENTREPOT_ACCESS_USERS=Alice",
		"ENTREPOT_ACCESS_USERS_ALICE_PULL=ghcr.io/corp/**, Docker.io/tools-*",
		"ENTREPOT_CACHE_REVALIDATE_TIMEOUT=1s",
		"ENTREPOT_CACHE_NEGATIVE_TTL=0",
		"ENTREPOT_CACHE_ON_UPSTREAM_DELETE=keep",
		"ENTREPOT_REGISTRIES_DOCKER_IO_TAG_TTL=redis:latest 1m,**:{v1,v2} 1d",
		"ENTREPOT_REGISTRIES_DOCKER_IO_EXPOSE=redis,corp/base-*",
		"ENTREPOT_REGISTRIES_DOCKER_IO_QUOTA_RESERVE=20",
		"ENTREPOT_REGISTRIES_GHCR_IO_AUTHORIZATION=client",
		"ENTREPOT_REGISTRIES_GHCR_IO_BANDWIDTH=sat-sun 5MB/s, else 1MB/s",
		"ENTREPOT_REGISTRIES_QUAY_IO_CREDENTIALS_USERNAME=bot",
		"ENTREPOT_REGISTRIES_QUAY_IO_CREDENTIALS_EXEC=get-password,-q",
		"ENTREPOT_REGISTRIES_QUAY_IO_CREDENTIALS_LIFETIME=1h",
		"ENTREPOT_REGISTRIES_LOCALHOST_5001_CREDENTIALS_DOCKER_CONFIG=config.json",
		"ENTREPOT_REGISTRIES_LOCALHOST_5001_QUOTA_RESERVE=0",
		"ENTREPOT_REGISTRIES_B_EXAMPLE_CREDENTIALS_HELPER=ecr-login",
		"ENTREPOT_BANDWIDTH_CLIENTS=1Gbit/s",
		"ENTREPOT_BANDWIDTH_PER_CLIENT=20MB/s",
		"ENTREPOT_BANDWIDTH_TIME_ZONE=Europe/Berlin",
		"ENTREPOT_ADMIN_LISTEN=off",
		"ENTREPOT_DATA_DIR=/var/lib/entrepot",
		"ENTREPOT_INDEX_DIR=/srv/index",
		"ENTREPOT_DEFAULT_REGISTRY=GHCR.io",
		"ENTREPOT_SHUTDOWN_GRACE=1d12h",
		"ENTREPOT_LOG_LEVEL=debug",
		"ENTREPOT_LOG_FORMAT=json",
		"ENTREPOT_CACHE_MAX_SIZE=200GiB",
		"ENTREPOT_CACHE_MIN_FREE=5%",
		"ENTREPOT_CACHE_PIN=Docker.io/alpine:3.*, ghcr.io/owner/**",
		"ENTREPOT_CACHE_SCRUB_RATE=20MiB/s",
		"ENTREPOT_CACHE_VERIFY_AFTER=0",
		"ENTREPOT_CACHE_TAG_TTL=90s",
		"ENTREPOT_CACHE_FILL=whole",
		"ENTREPOT_CACHE_WHEN_ABANDONED=park",
		"ENTREPOT_CACHE_READ_AHEAD=off",
		"ENTREPOT_REGISTRIES= ghcr.io, quay.io,,Index.docker.io,localhost:5001,b.example",
		"ENTREPOT_REGISTRIES_DOCKER_IO_CREDENTIALS_USERNAME=ci",
		"ENTREPOT_REGISTRIES_DOCKER_IO_CREDENTIALS_PASSWORD_FILE=hub",
		"ENTREPOT_REGISTRIES_GHCR_IO_ENDPOINTS=HTTPS://Near.Example:8443/v2proxy/, https://ghcr.io",
		"ENTREPOT_REGISTRIES_GHCR_IO_PREFER=speed",
		"ENTREPOT_REGISTRIES_GHCR_IO_CONNECTIONS_PER_BLOB=1",
		"ENTREPOT_REGISTRIES_GHCR_IO_CONNECTIONS_PER_ENDPOINT=100",
		"ENTREPOT_REGISTRIES_GHCR_IO_CREDENTIALS_USERNAME=0123",
		"ENTREPOT_REGISTRIES_GHCR_IO_CREDENTIALS_PASSWORD=s3cret",
		"ENTREPOT_REGISTRIES_GHCR_IO_HOSTS=GHCR.mirror.example,[fd00::1]:5000",
		"ENTREPOT_REGISTRIES_GHCR_IO_TOKEN_REALMS=auth.example",
		"ENTREPOT_REGISTRIES_QUAY_IO_CONNECTIONS_PER_BLOB=8",
		"ENTREPOT_BANDWIDTH_UPSTREAM=mon-fri 08:00-18:00 200Mbit/s, else unlimited",
		"ENTREPOT_BANDWIDTH_BACKGROUND=2MB/s",
	}
	got, err := loadText(t, "", environ)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(wholeConfig(), got); diff != "" {
		t.Error(diff)
	}
}

func TestEnvironmentWinsFieldByField(t *testing.T) {
	got, err := loadText(t, "registries:\n  ghcr.io:\n    hosts: [a.io, b.io]\n    credentials: {username: u, password: p}\n",
		[]string{"ENTREPOT_REGISTRIES_GHCR_IO_HOSTS=c.io", "ENTREPOT_REGISTRIES_GHCR_IO_CREDENTIALS_PASSWORD=q",
			"ENTREPOT_REGISTRIES=ghcr.io", "ENTREPOT_CACHE_TAG_TTL=0s"})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Cache.TagTTL = 0
	ghcr := defaultRegistry("ghcr.io")
	ghcr.Hosts, ghcr.Credentials = []string{"c.io"}, Logins{{Username: "u", Password: NewSecret("q")}}
	want.Registries["ghcr.io"] = ghcr
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWhatIsWrongInTheEnvironment(t *testing.T) {
	const path = "allowed: the path of a key, as in ENTREPOT_CACHE_MAX_SIZE"
	for _, tt := range []struct {
		name, file string
		environ    []string
		want       []string
	}{
		{"bad value", "cache: {tag_ttl: 5s}\n", []string{"ENTREPOT_CACHE_TAG_TTL=soon"},
			[]string{`ENTREPOT_CACHE_TAG_TTL: "soon" is not a duration; allowed: a duration such as 90s, 1h30m or 7d`}},
		{"empty value", "", []string{"ENTREPOT_LOG_LEVEL="},
			[]string{`ENTREPOT_LOG_LEVEL: "" is unknown; allowed: debug, info, warn, error`}},
		{"connections", "", []string{"ENTREPOT_REGISTRIES_DOCKER_IO_CONNECTIONS_PER_BLOB=9", "ENTREPOT_REGISTRIES_DOCKER_IO_CONNECTIONS_PER_ENDPOINT="},
			[]string{
				`ENTREPOT_REGISTRIES_DOCKER_IO_CONNECTIONS_PER_ENDPOINT: "" is not a count; allowed: a whole number from 1, such as 6`,
				`ENTREPOT_REGISTRIES_DOCKER_IO_CONNECTIONS_PER_BLOB: 9 is out of bounds; allowed: 1 to 8`,
			}},
		{"trust has no variable", "", []string{"ENTREPOT_REGISTRIES_DOCKER_IO_ENDPOINTS_TRUSTED=true"},
			[]string{"ENTREPOT_REGISTRIES_DOCKER_IO_ENDPOINTS_TRUSTED: unknown variable; did you mean ENTREPOT_REGISTRIES_DOCKER_IO_ENDPOINTS? " + path}},
		{"unknown", "", []string{"ENTREPOT_CACHE_TAG_TL=5s", "ENTREPOT_CONFG=x", "ENTREPOT_X=1"},
			[]string{
				"ENTREPOT_CACHE_TAG_TL: unknown variable; did you mean ENTREPOT_CACHE_TAG_TTL? " + path,
				"ENTREPOT_CONFG: unknown variable; did you mean ENTREPOT_CONFIG? " + path,
				"ENTREPOT_X: unknown variable; " + path,
			}},
		{"registry that is not there", "", []string{"ENTREPOT_REGISTRIES_QUAY_IO_HOSTS=a", "ENTREPOT_REGISTRIES_DOCKER_IO_HOST=a"},
			[]string{
				"ENTREPOT_REGISTRIES_DOCKER_IO_HOST: unknown variable; did you mean ENTREPOT_REGISTRIES_DOCKER_IO_HOSTS? " + path,
				"ENTREPOT_REGISTRIES_QUAY_IO_HOSTS: unknown variable; its registry is not configured: name it in ENTREPOT_REGISTRIES; " + path,
			}},
		{"flag for a variable", "", []string{"ENTREPOT_UPSTREAM=https://a.io"},
			[]string{"ENTREPOT_UPSTREAM: unknown variable; did you mean ENTREPOT_REGISTRIES_DOCKER_IO_ENDPOINTS? " + path}},
		{"flag for a variable, another default", "registries: {ghcr.io: }\ndefault_registry: GHCR.io\n", []string{"ENTREPOT_UPSTREAM=https://a.io"},
			[]string{"ENTREPOT_UPSTREAM: unknown variable; did you mean ENTREPOT_REGISTRIES_GHCR_IO_ENDPOINTS? " + path}},
		{"mark of a hidden password", "", []string{"ENTREPOT_REGISTRIES_DOCKER_IO_CREDENTIALS_USERNAME=u", "ENTREPOT_REGISTRIES_DOCKER_IO_CREDENTIALS_PASSWORD=[hidden]"},
			[]string{"ENTREPOT_REGISTRIES_DOCKER_IO_CREDENTIALS_PASSWORD: this is the mark of config check, not a password; allowed: the password itself, or a password_file"}},
		{"two registries of one name", "registries: {a-b: , a.b: }\n", []string{"ENTREPOT_REGISTRIES_A_B_HOSTS=x"},
			[]string{"ENTREPOT_REGISTRIES_A_B_HOSTS: stands for both registries.a-b.hosts and registries.a.b.hosts; allowed: to set these in the file"}},
		{"what does not fit together", "listen: :80\nregistries:\n  a.io: {hosts: [m.io]}\n",
			[]string{"ENTREPOT_ADMIN_LISTEN=:80", "ENTREPOT_REGISTRIES=b_/o", "ENTREPOT_REGISTRIES_DOCKER_IO_HOSTS=M.io",
				"ENTREPOT_CACHE_MAX_SIZE=0", "ENTREPOT_REGISTRIES_A_IO_CREDENTIALS_PASSWORD=hunter2", "ENTREPOT_DEFAULT_REGISTRY=c.io"},
			[]string{
				`ENTREPOT_ADMIN_LISTEN: listen (":80") and admin_listen (":80") take the same port; allowed: two ports, or admin_listen off`,
				`ENTREPOT_DEFAULT_REGISTRY: "c.io" is not configured; allowed: a.io, b_/o, docker.io`,
				`ENTREPOT_CACHE_MAX_SIZE: 0 would keep nothing; allowed: 16MiB or more, such as 200GiB, a percentage such as 80%, or to leave the key out for no limit but the free space`,
				`ENTREPOT_REGISTRIES_A_IO_CREDENTIALS_PASSWORD: a password without a username; ` + loginAllowed,
				`ENTREPOT_REGISTRIES: "b_/o" is not the name of a registry; allowed: host or host:port, such as registry.example:5000`,
				`ENTREPOT_REGISTRIES_DOCKER_IO_HOSTS: the host "m.io" belongs to a.io already; allowed: one registry for each host`,
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := loadText(t, tt.file, tt.environ)
			if diff := cmp.Diff(strings.Join(tt.want, "\n"), message(err)); diff != "" || c != nil {
				t.Errorf("config %v, error (-want +got):\n%s", c, diff)
			}
		})
	}
}

func TestFreeSpaceNeedNotBeKept(t *testing.T) {
	inFile, err := loadText(t, "cache: {min_free: 0}\n", nil)
	if err != nil {
		t.Fatal(err)
	}
	inEnvironment, err := Load("", []string{"ENTREPOT_CACHE_MIN_FREE=0"})
	if err != nil {
		t.Fatal(err)
	}
	if !inFile.Cache.MinFree.IsZero() || !inEnvironment.Cache.MinFree.IsZero() {
		t.Errorf("%v and %v are kept free", inFile.Cache.MinFree, inEnvironment.Cache.MinFree)
	}
}

func TestTwoRegistriesOfOneVariableMayBeInTheFile(t *testing.T) {
	if _, err := loadText(t, "registries: {a-b: , a.b: }\n", nil); err != nil {
		t.Error(err)
	}
}

func TestServiceLinksAreIgnored(t *testing.T) {
	got, err := Load("", []string{
		"ENTREPOT_SERVICE_HOST=10.0.0.1",
		"ENTREPOT_SERVICE_PORT=5000",
		"ENTREPOT_SERVICE_PORT_HTTP=5000",
		"ENTREPOT_PORT=tcp://10.0.0.1:5000",
		"ENTREPOT_PORT_5000_TCP=tcp://10.0.0.1:5000",
		"ENTREPOT_PORT_5000_TCP_ADDR=10.0.0.1",
		"ENTREPOT_PORT_5000_TCP_PORT=5000",
		"ENTREPOT_PORT_5000_TCP_PROTO=tcp",
		"ENTREPOT_ADMIN_SERVICE_HOST=10.0.0.2",
		"ENTREPOT_ADMIN_SERVICE_PORT=5001",
		"ENTREPOT_ADMIN_PORT=tcp://10.0.0.2:5001",
		"ENTREPOT_ADMIN_PORT_5001_TCP_ADDR=10.0.0.2",
	})
	if diff := cmp.Diff(Default(), got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	for _, variable := range []string{"ENTREPOT_LISTEN_PORT=80", "ENTREPOT_SERVICE=1", "ENTREPOT_PORTS=1"} {
		if _, err := Load("", []string{variable}); err == nil {
			t.Errorf("%s is ignored", variable)
		}
	}
}

func TestFieldsListsEveryKey(t *testing.T) {
	want := []Field{
		{"listen", "ENTREPOT_LISTEN", ":5000"},
		{"tls.cert_file", "ENTREPOT_TLS_CERT_FILE", ""},
		{"tls.key_file", "ENTREPOT_TLS_KEY_FILE", ""},
		{"tls.client_ca_file", "ENTREPOT_TLS_CLIENT_CA_FILE", ""},
		{"admin_listen", "ENTREPOT_ADMIN_LISTEN", "127.0.0.1:5001"},
		{"data_dir", "ENTREPOT_DATA_DIR", "./data"},
		{"index_dir", "ENTREPOT_INDEX_DIR", ""},
		{"default_registry", "ENTREPOT_DEFAULT_REGISTRY", "docker.io"},
		{"shutdown_grace", "ENTREPOT_SHUTDOWN_GRACE", "30s"},
		{"offline", "ENTREPOT_OFFLINE", ""},
		{"log.level", "ENTREPOT_LOG_LEVEL", "info"},
		{"log.format", "ENTREPOT_LOG_FORMAT", "auto"},
		{"access.allow_clients", "ENTREPOT_ACCESS_ALLOW_CLIENTS", ""},
		{"access.anonymous", "ENTREPOT_ACCESS_ANONYMOUS", "auto"},
		{"access.htpasswd_file", "ENTREPOT_ACCESS_HTPASSWD_FILE", ""},
		{"access.users", "ENTREPOT_ACCESS_USERS", ""},
		{"access.users.<name>.pull", "ENTREPOT_ACCESS_USERS_<NAME>_PULL", ""},
		{"cache.max_size", "ENTREPOT_CACHE_MAX_SIZE", ""},
		{"cache.min_free", "ENTREPOT_CACHE_MIN_FREE", "5%"},
		{"cache.pin", "ENTREPOT_CACHE_PIN", ""},
		{"cache.scrub_rate", "ENTREPOT_CACHE_SCRUB_RATE", "weekly"},
		{"cache.verify_after", "ENTREPOT_CACHE_VERIFY_AFTER", "30d"},
		{"cache.tag_ttl", "ENTREPOT_CACHE_TAG_TTL", "1m"},
		{"cache.revalidate_timeout", "ENTREPOT_CACHE_REVALIDATE_TIMEOUT", "2s"},
		{"cache.negative_ttl", "ENTREPOT_CACHE_NEGATIVE_TTL", "10s"},
		{"cache.on_upstream_delete", "ENTREPOT_CACHE_ON_UPSTREAM_DELETE", "follow"},
		{"cache.fill", "ENTREPOT_CACHE_FILL", "auto"},
		{"cache.when_abandoned", "ENTREPOT_CACHE_WHEN_ABANDONED", "finish"},
		{"cache.read_ahead", "ENTREPOT_CACHE_READ_AHEAD", "config"},
		{"registries", "ENTREPOT_REGISTRIES", "docker.io"},
		{"registries.<name>.endpoints", "ENTREPOT_REGISTRIES_<NAME>_ENDPOINTS", "https://<name>"},
		{"registries.<name>.prefer", "ENTREPOT_REGISTRIES_<NAME>_PREFER", "order"},
		{"registries.<name>.connections.per_blob", "ENTREPOT_REGISTRIES_<NAME>_CONNECTIONS_PER_BLOB", "6"},
		{"registries.<name>.connections.per_endpoint", "ENTREPOT_REGISTRIES_<NAME>_CONNECTIONS_PER_ENDPOINT", "24"},
		{"registries.<name>.credentials.username", "ENTREPOT_REGISTRIES_<NAME>_CREDENTIALS_USERNAME", ""},
		{"registries.<name>.credentials.password", "ENTREPOT_REGISTRIES_<NAME>_CREDENTIALS_PASSWORD", ""},
		{"registries.<name>.credentials.password_file", "ENTREPOT_REGISTRIES_<NAME>_CREDENTIALS_PASSWORD_FILE", ""},
		{"registries.<name>.credentials.docker_config", "ENTREPOT_REGISTRIES_<NAME>_CREDENTIALS_DOCKER_CONFIG", ""},
		{"registries.<name>.credentials.helper", "ENTREPOT_REGISTRIES_<NAME>_CREDENTIALS_HELPER", ""},
		{"registries.<name>.credentials.exec", "ENTREPOT_REGISTRIES_<NAME>_CREDENTIALS_EXEC", ""},
		{"registries.<name>.credentials.lifetime", "ENTREPOT_REGISTRIES_<NAME>_CREDENTIALS_LIFETIME", ""},
		{"registries.<name>.authorization", "ENTREPOT_REGISTRIES_<NAME>_AUTHORIZATION", "mirror"},
		{"registries.<name>.expose", "ENTREPOT_REGISTRIES_<NAME>_EXPOSE", ""},
		{"registries.<name>.tag_ttl", "ENTREPOT_REGISTRIES_<NAME>_TAG_TTL", ""},
		{"registries.<name>.quota_reserve", "ENTREPOT_REGISTRIES_<NAME>_QUOTA_RESERVE", "10%"},
		{"registries.<name>.bandwidth", "ENTREPOT_REGISTRIES_<NAME>_BANDWIDTH", ""},
		{"registries.<name>.hosts", "ENTREPOT_REGISTRIES_<NAME>_HOSTS", ""},
		{"registries.<name>.token_realms", "ENTREPOT_REGISTRIES_<NAME>_TOKEN_REALMS", ""},
		{"bandwidth.upstream", "ENTREPOT_BANDWIDTH_UPSTREAM", ""},
		{"bandwidth.background", "ENTREPOT_BANDWIDTH_BACKGROUND", ""},
		{"bandwidth.clients", "ENTREPOT_BANDWIDTH_CLIENTS", ""},
		{"bandwidth.per_client", "ENTREPOT_BANDWIDTH_PER_CLIENT", ""},
		{"bandwidth.time_zone", "ENTREPOT_BANDWIDTH_TIME_ZONE", ""},
	}
	if diff := cmp.Diff(want, Fields()); diff != "" {
		t.Error(diff)
	}
}

// TestValidateNamesTheKey checks a configuration made by hand, of which no line is known.
func TestValidateNamesTheKey(t *testing.T) {
	c := Default()
	c.Listen, c.ShutdownGrace = "", Duration(time.Second)
	c.Registries["Quay.io"] = Registry{}
	c.Registries["a.io"] = Registry{Connections: Connections{PerBlob: -1, PerEndpoint: 1001}}
	want := `listen: "" is not an address to listen on; allowed: host:port or :port, with a port up to 65535
registries.Quay.io: "Quay.io" is not the canonical name; allowed: quay.io
registries.a.io.connections.per_blob: -1 is out of bounds; allowed: 1 to 8
registries.a.io.connections.per_endpoint: 1001 is out of bounds; allowed: 1 to 1000`
	if diff := cmp.Diff(want, message(c.Validate())); diff != "" {
		t.Error(diff)
	}
}
