package config

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// Network is a range of addresses. A single address is a range of one. An IPv4 address is never written as IPv6.
type Network struct{ netip.Prefix }

// UnmarshalText parses 10.0.0.0/8, 192.0.2.7, fd00::/8 or fd00::7. Bits beyond the prefix are refused: it could be the address or the
// network that was meant.
func (n *Network) UnmarshalText(text []byte) error {
	raw := string(text)
	fail := func(problem string) error {
		return fmt.Errorf("%s %s; allowed: a network such as 10.0.0.0/8 or fd00::/8, or an address such as 192.0.2.7", quote(raw), problem)
	}
	if address, err := netip.ParseAddr(raw); err == nil {
		if address.Zone() != "" {
			return fail("has a zone")
		}
		address = address.Unmap()
		n.Prefix = netip.PrefixFrom(address, address.BitLen())
		return nil
	}
	prefix, err := netip.ParsePrefix(raw)
	switch {
	case err != nil:
		return fail("is not a network")
	case prefix.Addr().Is4In6():
		return fail("is IPv4 written as IPv6: write it as IPv4")
	case prefix != prefix.Masked():
		return fail("has bits beyond its prefix: " + prefix.Masked().String() + " is the network, " + prefix.Addr().String() + " the address")
	}
	n.Prefix = prefix
	return nil
}

// MarshalText returns String.
func (n Network) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// Equal reports whether two networks are the same.
func (n Network) Equal(other Network) bool { return n.Prefix == other.Prefix }

// Proxy says by which proxy an endpoint is reached. The zero Proxy is what the environment (HTTPS_PROXY, HTTP_PROXY, NO_PROXY) says.
// However it is printed, a password in its URL is not.
type Proxy struct {
	none bool
	url  Secret // it may hold a password
}

const proxyAllowed = "allowed: environment, none, or a URL such as http://proxy.example:3128 or socks5://proxy.example:1080"

// UnmarshalText parses environment, none, or the URL of a proxy. The URL is not repeated in errors.
func (p *Proxy) UnmarshalText(text []byte) error {
	raw := string(text)
	switch raw {
	case "environment":
		*p = Proxy{}
		return nil
	case "none":
		*p = Proxy{none: true}
		return nil
	}
	if strings.Contains(raw, hidden) {
		return fmt.Errorf("its password is the mark of config check, not a password; %s", proxyAllowed)
	}
	u, err := url.Parse(raw)
	problem := ""
	switch {
	case err != nil:
		problem = "is not a URL"
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5" && u.Scheme != "socks5h":
		problem = "is not an http, https or socks5 URL"
	case !validHost(strings.ToLower(u.Host)):
		problem = "has no valid host"
	case strings.Trim(u.Path, "/") != "" || strings.ContainsAny(raw, "?#"):
		problem = "has more than a host and a port"
	}
	if problem != "" {
		return fmt.Errorf("the proxy %s; %s", problem, proxyAllowed)
	}
	u.Host, u.Path, u.RawPath = strings.ToLower(u.Host), "", ""
	*p = Proxy{url: NewSecret(u.String())}
	return nil
}

// None reports whether there is to be no proxy, whatever the environment says.
func (p Proxy) None() bool { return p.none }

// URL returns the proxy with its password; nil if none is named.
func (p Proxy) URL() *url.URL {
	if p.url.IsZero() {
		return nil
	}
	u, err := url.Parse(p.url.Reveal())
	if err != nil {
		panic(err) // UnmarshalText wrote it
	}
	return u
}

// IsZero reports whether the environment decides.
func (p Proxy) IsZero() bool { return !p.none && p.url.IsZero() }

// Equal reports whether two proxies are the same, passwords included.
func (p Proxy) Equal(other Proxy) bool { return p.none == other.none && p.url.Equal(other.url) }

// MarshalText returns String.
func (p Proxy) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// GoString is String, so that %#v hides the password too.
func (p Proxy) GoString() string { return p.String() }

// String returns the proxy without its password.
func (p Proxy) String() string {
	u := p.URL()
	switch {
	case p.none:
		return "none"
	case u == nil:
		return "environment"
	}
	_, secret := u.User.Password()
	if !secret {
		return u.String()
	}
	user := url.User(u.User.Username()).String()
	u.User = nil
	return strings.Replace(u.String(), "://", "://"+user+":"+hidden+"@", 1)
}

// Address is a host and a port to connect to. The empty one is none.
type Address string

// UnmarshalText parses host:port.
func (a *Address) UnmarshalText(text []byte) error {
	address := strings.ToLower(string(text))
	if _, port, err := net.SplitHostPort(address); err != nil || port == "" || !validHost(address) {
		return fmt.Errorf("%s is not an address to connect to; allowed: host:port, such as 192.0.2.7:443", quote(string(text)))
	}
	*a = Address(address)
	return nil
}

// Resolver is a DNS server, ip:port. The empty one is none.
type Resolver string

// UnmarshalText parses ip or ip:port; the port of DNS goes without saying.
func (r *Resolver) UnmarshalText(text []byte) error {
	raw := string(text)
	server, err := netip.ParseAddrPort(raw)
	if address, errAddress := netip.ParseAddr(raw); errAddress == nil {
		server, err = netip.AddrPortFrom(address, 53), nil
	}
	if err != nil || server.Port() == 0 {
		return fmt.Errorf("%s is not a DNS server; allowed: ip or ip:port, such as 192.0.2.53", quote(raw))
	}
	*r = Resolver(server.String())
	return nil
}

// Reserve is how much of a limit is kept back: a share, or a count. The zero Reserve is nothing. Of the two fields at most one is not zero.
type Reserve struct {
	Percent float64 // 0 <= Percent < 100
	Count   int64
}

// UnmarshalText parses 10% or 20.
func (r *Reserve) UnmarshalText(text []byte) error {
	const allowed = "allowed: a percentage below 100%, such as 10%, or a count, such as 20"
	raw := string(text)
	if number, ok := strings.CutSuffix(raw, "%"); ok {
		percent, err := strconv.ParseFloat(number, 64)
		if err != nil || !(percent >= 0 && percent < 100) || strings.HasPrefix(number, "-") {
			return fmt.Errorf("%s is not a share to keep back; %s", quote(raw), allowed)
		}
		*r = Reserve{Percent: percent}
		return nil
	}
	n, err := strconv.ParseUint(raw, 10, 31)
	if err != nil {
		return fmt.Errorf("%s is neither a share nor a count; %s", quote(raw), allowed)
	}
	*r = Reserve{Count: int64(n)}
	return nil
}

// MarshalText returns String.
func (r Reserve) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// String returns the reserve as UnmarshalText reads it.
func (r Reserve) String() string {
	if r.Percent != 0 {
		return strconv.FormatFloat(r.Percent, 'f', -1, 64) + "%"
	}
	return strconv.FormatInt(r.Count, 10)
}

// Of returns how much of a limit is kept back.
func (r Reserve) Of(limit int64) int64 {
	if r.Percent != 0 {
		return int64(float64(limit) * r.Percent / 100)
	}
	return min(r.Count, limit)
}
