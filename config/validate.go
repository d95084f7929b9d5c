package config

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
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
	k.patterns("cache.pin", c.Cache.Pin, names)
	if c.Cache.RevalidateTimeout > mostPatience {
		k.fail("cache.revalidate_timeout", "%s is longer than clients wait; allowed: up to %s", c.Cache.RevalidateTimeout, mostPatience)
	}
	k.tls()
	k.access(names)
	hosts := map[string]string{}
	for _, name := range names {
		k.registry(name, hosts)
	}
	return k.errs
}

// mostPatience leaves of the half minute that clients wait for an answer what it takes to give them the last good one.
const mostPatience = Duration(20 * time.Second)

// patterns checks that the registries of patterns are there.
func (k *checker) patterns(key string, patterns []Pattern, names []string) {
	for i, pattern := range patterns {
		if registry, _, _, _ := pattern.cut(); !slices.Contains(names, registry) {
			k.fail(item(key, i), "the registry of %s is not configured; allowed: %s", quote(string(pattern)), list(names))
		}
	}
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

// filled reports whether the list at key has something in it, or was left out. One that was given with nothing in it fails: it
// looks like nothing, and would be what holds where the key is left out.
func (k *checker) filled(key, format string, args ...any) bool {
	empty := k.from[key].empty
	if empty {
		k.fail(key, format, args...)
	}
	return !empty
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

func item(key string, i int) string { return key + "[" + strconv.Itoa(i) + "]" }
