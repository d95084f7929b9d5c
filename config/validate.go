package config

import (
	"cmp"
	"errors"
	"maps"
	"net"
	"net/netip"
	"net/url"
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
	if c.DataDir == "" {
		k.fail("data_dir", "is empty; allowed: a directory")
	}
	names := slices.Sorted(maps.Keys(c.Registries))
	if _, ok := c.Registries[c.DefaultRegistry]; !ok {
		k.fail("default_registry", "%s is not configured; allowed: %s", quote(c.DefaultRegistry), list(names))
	}
	if _, given := from["cache.max_size"]; given && c.Cache.MaxSize.IsZero() {
		k.fail("cache.max_size", "0 would keep nothing; allowed: a size such as 200GiB, a percentage such as 80%%, "+
			"or to leave the key out for no limit but the free space")
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
	if _, given := k.from[key]; !given {
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
