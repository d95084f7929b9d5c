package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/entrepot/entrepot/e2e/testbed"
)

// needs is for systems whose program comes from the machine.
func needs(program string) func(context.Context, *scene) error {
	return func(context.Context, *scene) error {
		_, err := installed(program)
		return err
	}
}

// installed finds a program also where servers are that users don't have on their path.
func installed(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + program)
	}
	return path, err
}

// configured writes a configuration file and returns its path.
func (p place) configured(text string) (string, error) {
	file := filepath.Join(p.dir, "config")
	return file, os.WriteFile(file, []byte(text), 0o600)
}

// distribution is the registry's own mirror. It keeps no log of requests, which is to its advantage.
func distribution(_ context.Context, s *scene, p place) (testbed.Command, error) {
	file, err := p.configured(fmt.Sprintf(`version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q}
http: {addr: %q}
proxy: {remoteurl: "http://%s"}
`, filepath.Join(p.dir, "store"), p.address, p.upstream))
	return testbed.Command{
		Name:  peerRegistry,
		Path:  s.bed.Programs.Registry,
		Args:  []string{"serve", file},
		Env:   []string{"OTEL_TRACES_EXPORTER=none"}, // it would look for a collector otherwise
		Ready: answers("http://" + p.address + "/v2/"),
	}, err
}

// nginxMain is what both nginx have in common: files by sendfile, a line a request in the log as entrepot writes one (and
// buffered, as a busy nginx has it), as many workers as processors. The rest is said by DIR and MORE.
const nginxMain = `daemon off;
USER
worker_processes auto;
pid DIR/pid;
error_log stderr error;
events { worker_connections 4096; }
http {
	access_log DIR/access.log combined buffer=64k flush=1s;
	client_body_temp_path DIR/body;
	proxy_temp_path DIR/proxy;
	fastcgi_temp_path DIR/fastcgi;
	uwsgi_temp_path DIR/uwsgi;
	scgi_temp_path DIR/scgi;
	sendfile on;
	sendfile_max_chunk 2m;
	tcp_nopush on;
	tcp_nodelay on;
	aio off;
	keepalive_requests 1000000;
	open_file_cache max=10000 inactive=60s;
	etag on;
	types {}
	default_type application/octet-stream;
MORE
}
`

// nginxProxy is the cache: one transfer a key, nothing upstream says is a reason not to keep it, what is named by digest
// is kept for good. Tags are fresh for TTL seconds, and then asked for with the Etag.
const nginxProxy = `
	proxy_cache_path DIR/cache levels=1:2 keys_zone=cache:64m inactive=24h use_temp_path=off;
	upstream origin { server UPSTREAM; keepalive 64; keepalive_requests 1000000; }
	proxy_http_version 1.1;
	proxy_set_header Connection "";
	proxy_set_header Host UPSTREAM;
	proxy_buffering on;
	proxy_buffers 16 64k;
	proxy_buffer_size 64k;
	proxy_busy_buffers_size 128k;
	proxy_max_temp_file_size 16384m;
	proxy_read_timeout 1h;
	proxy_ignore_headers X-Accel-Expires Expires Cache-Control Set-Cookie Vary;
	proxy_cache cache;
	proxy_cache_key $uri;
	proxy_cache_lock on;
	proxy_cache_lock_timeout 1h;
	proxy_cache_lock_age 1h;
	proxy_cache_revalidate on;
	server {
		listen ADDRESS backlog=4096;
		location = /ready { return 200; }
		location / { proxy_pass http://origin; proxy_cache_valid 200 24h; }
		location ~ /manifests/[^:]+$ { proxy_pass http://origin; proxy_cache_valid 200 TTLs; }
	}`

// nginxStatic serves what lies in ROOT, manifests with their type.
const nginxStatic = `
	server {
		listen ADDRESS backlog=4096;
		root ROOT;
		location = /ready { return 200; }
		location / {}
		location ~ /manifests/ { default_type MEDIATYPE; }
	}`

func nginxCache(_ context.Context, s *scene, p place) (testbed.Command, error) {
	ttl := defaultTagTTL
	if p.tagTTL > 0 {
		ttl = p.tagTTL
	}
	return nginx(s, p, peerNginx, strings.NewReplacer("UPSTREAM", p.upstream, "TTL", seconds(ttl)).Replace(nginxProxy))
}

func nginxFiles(_ context.Context, s *scene, p place) (testbed.Command, error) {
	more := strings.NewReplacer("ROOT", s.files, "MEDIATYPE", ocispec.MediaTypeImageManifest).Replace(nginxStatic)
	return nginx(s, p, limitStatic, more)
}

func nginx(_ *scene, p place, name, more string) (testbed.Command, error) {
	path, err := installed("nginx")
	if err != nil {
		return testbed.Command{}, err
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // else its workers could not write to the directory
	}
	text := strings.Replace(nginxMain, "MORE", more, 1)
	file, err := p.configured(strings.NewReplacer("USER", user, "DIR", p.dir, "ADDRESS", p.address).Replace(text))
	return testbed.Command{
		Name:  name,
		Path:  path,
		Args:  []string{"-c", file, "-e", "stderr"},
		Ready: answers("http://" + p.address + "/ready"),
	}, err
}

// squid is an accelerator whose followers share the transfer of the first.
func squid(ctx context.Context, s *scene, p place) (testbed.Command, error) {
	path, err := installed("squid")
	if err != nil {
		return testbed.Command{}, err
	}
	host, port, err := net.SplitHostPort(p.upstream)
	if err != nil {
		return testbed.Command{}, err
	}
	if os.Geteuid() == 0 {
		// It gives up being root, and then needs a way to its directory and leave to write there.
		if err := errors.Join(os.Chmod(s.bed.Dir, 0o711), os.Chmod(p.dir, 0o777)); err != nil {
			return testbed.Command{}, err
		}
	}
	file, err := p.configured(strings.NewReplacer("ADDRESS", p.address, "HOST", host, "PORT", port, "DIR", p.dir).Replace(`
http_port ADDRESS accel defaultsite=HOST no-vhost
cache_peer HOST parent PORT 0 no-query no-digest originserver name=origin
http_access allow all
never_direct allow all
maximum_object_size 16 GB
cache_dir ufs DIR/cache 16384 16 64
cache_mem 64 MB
collapsed_forwarding on
refresh_pattern . 1440 100% 1440 override-expire ignore-private ignore-no-store
pid_filename none
cache_log DIR/cache.log
access_log stdio:DIR/access.log buffer-size=64KB
coredump_dir DIR
netdb_filename none
pinger_enable off
shutdown_lifetime 0 seconds
`))
	if err != nil {
		return testbed.Command{}, err
	}
	if err := os.Chmod(file, 0o644); err != nil {
		return testbed.Command{}, err
	}
	// The name is that of its shared memory, which is the machine's.
	args := []string{"-N", "-n", "bench" + strconv.Itoa(os.Getpid()), "-f", file}
	if _, err := testbed.Run(ctx, nil, path, append([]string{"-z"}, args...)...); err != nil {
		return testbed.Command{}, err
	}
	return testbed.Command{
		Name: peerSquid,
		Path: path,
		Args: args,
		Ready: func(ctx context.Context) error {
			conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.address)
			if err != nil {
				return err
			}
			return conn.Close()
		},
	}, nil
}

// floor is the program beside this one.
func floor(_ context.Context, s *scene, p place) (testbed.Command, error) {
	return testbed.Command{
		Name:  limitFloor,
		Path:  s.floor,
		Args:  []string{"files", p.address, s.files, ocispec.MediaTypeImageManifest},
		Ready: answers("http://" + p.address + "/ready"),
	}, nil
}

// leastFill is that program as a mirror that keeps nothing.
func leastFill(_ context.Context, s *scene, p place) (testbed.Command, error) {
	return testbed.Command{
		Name:  limitFill,
		Path:  s.floor,
		Args:  []string{"fill", p.address, p.dir, p.upstream},
		Ready: answers("http://" + p.address + "/v2/"),
	}, nil
}
