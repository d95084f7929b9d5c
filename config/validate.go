package config

import (
	"cmp"
	"errors"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Validate reports what does not fit together, one line each. What [Load] returns has passed it. It reads the password
// files, to report those that can't be read.
func (c *Config) Validate() error { return errors.Join(c.check(nil)...) }

// check is Validate that says where the values were given.
func (c *Config) check(from origins) []error {
	k := &checker{config: c, from: from}
	k.listeners()
	k.directories()
	names := slices.Sorted(maps.Keys(c.Registries))
	if _, ok := c.Registries[c.DefaultRegistry]; !ok {
		k.fail("default_registry", "%s is not configured; allowed: %s", quote(c.DefaultRegistry), list(names))
	}
	k.space()
	for i, pattern := range c.Cache.Pin {
		if registry, _, _, _ := pattern.cut(); !slices.Contains(names, registry) {
			k.fail(item("cache.pin", i), "the registry of %s is not configured; allowed: %s", quote(string(pattern)), list(names))
		}
	}
	hosts := map[string]string{}
	for _, name := range names {
		k.registry(name, hosts)
	}
	return k.errs
}

type checker struct {
	config *Config
	from   origins
	errs   []error
}

// fail reports that the value at key does not fit, unless what was given there was not taken: one error is enough.
func (k *checker) fail(key, format string, args ...any) {
	if from := k.from.of(key); !from.refused {
		k.errs = append(k.errs, from.errorf(key, format, args...))
	}
}

// directories checks the two directories. One moves aside an index that is damaged, so nothing else may be in it; and the other
// keeps files under names of its own.
func (k *checker) directories() {
	data, index := k.config.DataDir, k.config.IndexDir
	if data == "" {
		k.fail("data_dir", "is empty; allowed: a directory")
		return
	}
	if index == "" {
		return
	}
	if within(index, data) {
		k.fail("index_dir", "data_dir (%s) is in it; allowed: a directory of its own", quote(data))
	}
	for _, name := range []string{"blobs", "partial"} {
		if within(filepath.Join(data, name), index) {
			k.fail("index_dir", "is in %s, where content is; allowed: a directory of its own", quote(filepath.Join(data, name)))
		}
	}
}

// within reports whether a directory is another, or in it, by their names.
func within(outer, inner string) bool {
	path, err := filepath.Rel(outer, inner)
	return err == nil && path != ".." && !strings.HasPrefix(path, "../")
}

// LeastSize is the least that cache.max_size may be, in bytes: the index takes several MiB by itself, and with less than this there
// would hardly be room for one layer.
const LeastSize = 16 << 20

// space checks how much of the disk may be used.
func (k *checker) space() {
	const maxAllowed = "allowed: 16MiB or more, such as 200GiB, a percentage such as 80%%, or to leave the key out for no limit but the free space"
	switch size, given := k.config.Cache.MaxSize, k.given("cache.max_size"); {
	case given && size.IsZero():
		k.fail("cache.max_size", "0 would keep nothing; "+maxAllowed)
	case size.Percent == 0 && size.Bytes > 0 && size.Bytes < LeastSize:
		k.fail("cache.max_size", "%s has no room for an index and content; "+maxAllowed, size)
	}
	if k.config.Cache.MinFree.Percent == 100 {
		k.fail("cache.min_free", "100%% would leave no room to keep anything; allowed: a size such as 20GiB, or a percentage below 100%%")
	}
}

// given reports whether there is a value for the key.
func (k *checker) given(key string) bool {
	_, given := k.from[key]
	return given
}

// listeners checks the two addresses, and that both can be had.
func (k *checker) listeners() {
	host, port, ok := k.address("listen", k.config.Listen, "host:port or :port")
	if k.config.AdminListen == "" {
		return
	}
	adminHost, adminPort, adminOK := k.address("admin_listen", k.config.AdminListen, "host:port, :port, or off")
	if !ok || !adminOK || port != adminPort || port == 0 {
		return
	}
	if host != adminHost && !wildcard(host) && !wildcard(adminHost) {
		return
	}
	key := "admin_listen"
	if !k.given(key) {
		key = "listen"
	}
	k.fail(key, "listen (%s) and admin_listen (%s) take the same port; allowed: two ports, or admin_listen off",
		quote(k.config.Listen), quote(k.config.AdminListen))
}

func (k *checker) address(key, text, allowed string) (host string, port uint64, ok bool) {
	host, service, err := net.SplitHostPort(text)
	if err == nil {
		port, err = strconv.ParseUint(service, 10, 16)
	}
	if _, notIP := netip.ParseAddr(host); err != nil || host != "" && notIP != nil && !validHost(strings.ToLower(host)) {
		k.fail(key, "%s is not an address to listen on; allowed: %s, with a port up to 65535", quote(text), allowed)
		return "", 0, false
	}
	return host, port, true
}

// wildcard reports whether a listener on host takes its port on all addresses.
func wildcard(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

// More connections than these are a slip of the hand, or a burden to the registry, sooner than a gain.
const (
	mostPerBlob     Count = 8
	mostPerEndpoint Count = 1000
)

const hostAllowed = "allowed: host or host:port, such as registry.example:5000"

// registry checks one registry. Hosts maps the Host names claimed so far to their registries.
func (k *checker) registry(name string, hosts map[string]string) {
	registry, key := k.config.Registries[name], join("registries", name)
	switch {
	case name != CanonicalRegistry(name):
		k.fail(key, "%s is not the canonical name; allowed: %s", quote(name), CanonicalRegistry(name))
	case !validHost(name):
		k.fail(key, "%s is not the name of a registry; %s", quote(name), hostAllowed)
	}
	seen := map[string]bool{}
	for i, endpoint := range registry.Endpoints {
		switch at := item(key+".endpoints", i); {
		case endpoint.URL == "":
			k.fail(at+".url", "no url is given; allowed: a URL such as https://%s", clip(name))
		case seen[place(endpoint.URL)]:
			k.fail(at, "the endpoint %s is given twice; allowed: once", quote(endpoint.URL.String()))
		}
		seen[place(endpoint.URL)] = true
	}
	for i, host := range registry.Hosts {
		at := item(key+".hosts", i)
		switch other, taken := hosts[host]; {
		case !validHost(host):
			k.fail(at, "%s is not a Host name; %s", quote(host), hostAllowed)
		case taken && other == name:
			k.fail(at, "the host %s is given twice; allowed: once", quote(host))
		case taken:
			k.fail(at, "the host %s belongs to %s already; allowed: one registry for each host", quote(host), other)
		}
		if _, taken := hosts[host]; !taken {
			hosts[host] = name
		}
	}
	for i, host := range registry.TokenRealms {
		if !validHost(host) {
			k.fail(item(key+".token_realms", i), "%s is not a host; %s", quote(host), hostAllowed)
		}
	}
	k.count(registry.Connections.PerBlob, mostPerBlob, key+".connections.per_blob")
	k.count(registry.Connections.PerEndpoint, mostPerEndpoint, key+".connections.per_endpoint")
	k.credentials(registry.Credentials, key+".credentials")
}

// place is equal for two URLs of the same endpoint: no slash at the end makes another, nor a port that goes without saying.
func place(u URL) string {
	parsed, err := url.Parse(string(u))
	if err != nil {
		return string(u)
	}
	port := cmp.Or(parsed.Port(), map[string]string{"http": "80", "https": "443"}[parsed.Scheme])
	return parsed.Scheme + "://" + strings.ToLower(net.JoinHostPort(parsed.Hostname(), port)) + strings.TrimRight(parsed.EscapedPath(), "/")
}

// count checks a count, unless it was not given: [Load] gives all, whoever makes a configuration by hand perhaps not.
func (k *checker) count(n, most Count, key string) {
	if n < 0 || n > most {
		k.fail(key, "%d is out of bounds; allowed: 1 to %d", n, most)
	}
}

func item(key string, i int) string { return key + "[" + strconv.Itoa(i) + "]" }

func (k *checker) credentials(c Credentials, key string) {
	const allowed = "allowed: username with password or password_file"
	switch password, file := !c.Password.IsZero(), c.PasswordFile != ""; {
	case password && file:
		k.fail(key+".password_file", "password and password_file are both given; %s", allowed)
	case k.from.of(key + ".password").refused: // there is one, in a way
	case c.Username != "" && !password && !file:
		k.fail(key+".username", "a username without a password; %s", allowed)
	case c.Username == "" && password:
		k.fail(key+".password", "a password without a username; %s", allowed)
	case c.Username == "" && file:
		k.fail(key+".password_file", "a password_file without a username; %s", allowed)
	}
	if _, _, err := c.Resolve(); err != nil {
		k.fail(key+".password_file", "%s; allowed: a file that can be read and holds the password", err)
	}
}
