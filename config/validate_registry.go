package config

import (
	"cmp"
	"net"
	"net/url"
	"strings"
)

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
	k.endpoints(name, registry.Endpoints, key+".endpoints")
	k.hosts(name, registry.Hosts, hosts, key+".hosts")
	for i, host := range registry.TokenRealms {
		if !validHost(host) {
			k.fail(item(key+".token_realms", i), "%s is not a host; %s", quote(host), hostAllowed)
		}
	}
	k.count(registry.Connections.PerBlob, mostPerBlob, key+".connections.per_blob")
	k.count(registry.Connections.PerEndpoint, mostPerEndpoint, key+".connections.per_endpoint")
	for i, glob := range registry.Expose {
		k.inRegistry(name, glob, item(key+".expose", i))
	}
	k.credentials(registry.Credentials, key+".credentials")
	k.tagRules(name, registry.TagTTL, key+".tag_ttl")
}

// credentials checks those of a registry.
func (k *checker) credentials(logins Logins, key string) {
	if len(logins) == 0 && k.filled(key, "an empty list has no credentials; %s, or to leave the key out for none", loginAllowed) {
		k.filled(key+".exec", execProblem)
	}
	for i, login := range logins {
		at := key
		if len(logins) > 1 {
			at = item(at, i)
		}
		k.login(login, at)
	}
}

// inRegistry checks a glob of a registry's repositories, all of which are in it anyway.
func (k *checker) inRegistry(name string, glob Glob, key string) {
	if first, rest, _ := strings.Cut(string(glob), "/"); CanonicalRegistry(first) == name {
		k.fail(key, "%s begins with the name of the registry, which goes without saying; allowed: %s", quote(string(glob)), clip(rest))
	}
}

// tagRules checks those of a registry. One after a rule for everything would never decide.
func (k *checker) tagRules(name string, rules []TagRule, key string) {
	var all *TagRule
	for i, rule := range rules {
		k.inRegistry(name, rule.Repository, item(key, i))
		switch {
		case all != nil:
			k.fail(item(key, i),
				"%s is never reached: %s before it is for everything, and the first that fits decides; allowed: to put it before that",
				quote(rule.String()), quote(all.String()))
		case rule.Repository == "**" && strings.Trim(rule.Tag, "*") == "":
			all = &rule
		}
	}
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

// endpoints checks those of a registry.
func (k *checker) endpoints(name string, endpoints []Endpoint, key string) {
	seen := map[string]bool{}
	for i, endpoint := range endpoints {
		switch at := item(key, i); {
		case endpoint.URL == "":
			k.fail(at+".url", "no url is given; allowed: a URL such as https://%s", clip(name))
		case seen[place(endpoint.URL)]:
			k.fail(at, "the endpoint %s is given twice; allowed: once", quote(endpoint.URL.String()))
		}
		seen[place(endpoint.URL)] = true
		k.endpoint(endpoint, item(key, i))
	}
}

// endpoint checks how one is reached.
func (k *checker) endpoint(e Endpoint, key string) {
	k.pair(key+".client_cert_file", e.ClientCertFile, key+".client_key_file", e.ClientKeyFile)
	k.authorities(key+".ca_file", e.CAFile)
	if e.Insecure && e.CAFile != "" {
		k.fail(key+".insecure", "insecure believes any certificate, so ca_file has no use; allowed: one of the two")
	}
	if !strings.HasPrefix(string(e.URL), "http://") {
		return
	}
	for _, part := range []struct {
		key   string
		given bool
	}{{".ca_file", e.CAFile != ""}, {".client_cert_file", e.ClientCertFile != ""}, {".insecure", e.Insecure}} {
		if part.given {
			k.fail(key+part.key, "the endpoint speaks plain http; allowed: an https url, or to leave the key out")
		}
	}
}

// hosts checks the Host names of a registry. Taken maps those claimed so far to their registries.
func (k *checker) hosts(name string, hosts []string, taken map[string]string, key string) {
	for i, host := range hosts {
		at := item(key, i)
		switch other, claimed := taken[host]; {
		case !validHost(host):
			k.fail(at, "%s is not a Host name; %s", quote(host), hostAllowed)
		case claimed && other == name:
			k.fail(at, "the host %s is given twice; allowed: once", quote(host))
		case claimed:
			k.fail(at, "the host %s belongs to %s already; allowed: one registry for each host", quote(host), other)
		}
		if _, claimed := taken[host]; !claimed {
			taken[host] = name
		}
	}
}
