package config

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func TestNetwork(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.0/8": "10.0.0.0/8", "192.0.2.7": "192.0.2.7/32", "::1": "::1/128", "FD00::/8": "fd00::/8", "0.0.0.0/0": "0.0.0.0/0",
		"::ffff:192.0.2.7": "192.0.2.7/32",
	} {
		parses(t, in, Network{netip.MustParsePrefix(want)}, want)
	}
	const allowed = "; allowed: a network such as 10.0.0.0/8 or fd00::/8, or an address such as 192.0.2.7"
	for in, problem := range map[string]string{
		"":                   "is not a network",
		"localhost":          "is not a network",
		"10.0.0.0/33":        "is not a network",
		"10.1":               "is not a network",
		"10.0.0.1/8":         "has bits beyond its prefix: 10.0.0.0/8 is the network, 10.0.0.1 the address",
		"fe80::1%eth0":       "has a zone",
		"::ffff:10.0.0.0/96": "is IPv4 written as IPv6: write it as IPv4",
	} {
		refuses[Network](t, in, `"`+in+`" `+problem+allowed)
	}
}

func TestProxy(t *testing.T) {
	for in, want := range map[string]string{
		"environment":                  "environment",
		"none":                         "none",
		"http://Proxy.example:3128/":   "http://proxy.example:3128",
		"socks5://[::1]:1080":          "socks5://[::1]:1080",
		"http://me@proxy.example":      "http://me@proxy.example",
		"https://me:hunter2@p.example": "https://me:[hidden]@p.example",
	} {
		var p Proxy
		if err := p.UnmarshalText([]byte(in)); err != nil || p.String() != want || p.IsZero() != (in == "environment") || p.None() != (in == "none") {
			t.Errorf("%q: %v, %v", in, p, err)
		}
	}
	for in, problem := range map[string]string{
		"":                                   "is not an http, https or socks5 URL",
		"proxy.example:3128":                 "is not an http, https or socks5 URL",
		"ftp://u:hunter2@proxy.example":      "is not an http, https or socks5 URL",
		"http://u:hunter2@":                  "has no valid host",
		"http://proxy.example/x":             "has more than a host and a port",
		"http://u:hunter2@proxy.example/?x=": "has more than a host and a port",
		"http://u:hunter2@proxy.example:x":   "is not a URL",
	} {
		var p Proxy
		if err := p.UnmarshalText([]byte(in)); message(err) != "the proxy "+problem+"; "+proxyAllowed || !p.IsZero() {
			t.Errorf("%q: %v", in, err)
		}
	}
	var p Proxy
	if err := p.UnmarshalText([]byte("http://u:[hidden]@proxy.example")); message(err) != "its password is the mark of config check, not a password; "+proxyAllowed {
		t.Error(err)
	}
}

func TestProxyHidesItsPassword(t *testing.T) {
	var p Proxy
	if err := p.UnmarshalText([]byte("http://me:hunter2@proxy.example")); err != nil {
		t.Fatal(err)
	}
	if password, _ := p.URL().User.Password(); password != "hunter2" {
		t.Errorf("the password is %q", password)
	}
	type inside struct{ proxy Proxy }
	endpoint := Endpoint{Proxy: p}
	for _, verb := range strings.Fields("%v %+v %#v %s %q %x %X %d %t %p") {
		for _, value := range []any{p, &p, endpoint, &endpoint, inside{p}, []Endpoint{endpoint}} {
			if s := fmt.Sprintf(verb, value); strings.Contains(s, "hunter2") || strings.Contains(s, "68756e74657232") {
				t.Errorf("%s of %T: %s", verb, value, s)
			}
		}
	}
	if data, err := json.Marshal(endpoint); err != nil || strings.Contains(string(data), "hunter2") {
		t.Errorf("%s, %v", data, err)
	}
}

func TestWhereToConnect(t *testing.T) {
	parses(t, "192.0.2.7:443", Address("192.0.2.7:443"), "192.0.2.7:443")
	parses(t, "Near.example:5000", Address("near.example:5000"), "near.example:5000")
	parses(t, "[fd00::1]:443", Address("[fd00::1]:443"), "[fd00::1]:443")
	for _, in := range []string{"", "near.example", ":443", "near.example:", "near.example:0", "near.example:99999", "fd00::1:443", "https://near.example:443"} {
		refuses[Address](t, in, `"`+in+`" is not an address to connect to; allowed: host:port, such as 192.0.2.7:443`)
	}
	parses(t, "192.0.2.53", Resolver("192.0.2.53:53"), "192.0.2.53:53")
	parses(t, "192.0.2.53:5353", Resolver("192.0.2.53:5353"), "192.0.2.53:5353")
	parses(t, "fd00::53", Resolver("[fd00::53]:53"), "[fd00::53]:53")
	parses(t, "[fd00::53]:5353", Resolver("[fd00::53]:5353"), "[fd00::53]:5353")
	for _, in := range []string{"", "dns.example", "192.0.2.53:0", "192.0.2.53:", ":53"} {
		refuses[Resolver](t, in, `"`+in+`" is not a DNS server; allowed: ip or ip:port, such as 192.0.2.53`)
	}
}

func TestReserve(t *testing.T) {
	parses(t, "10%", Reserve{Percent: 10}, "10%")
	parses(t, "0.5%", Reserve{Percent: 0.5}, "0.5%")
	parses(t, "0%", Reserve{}, "0")
	parses(t, "0", Reserve{}, "0")
	parses(t, "20", Reserve{Count: 20}, "20")
	for r, want := range map[Reserve]int64{{Percent: 10}: 20, {Percent: 0.4}: 0, {}: 0, {Count: 30}: 30, {Count: 300}: 200} {
		if got := r.Of(200); got != want {
			t.Errorf("%s of 200 is %d, want %d", r, got, want)
		}
	}
	const allowed = "; allowed: a percentage below 100%, such as 10%, or a count, such as 20"
	for _, in := range []string{"%", "100%", "-1%", "-0%", "NaN%"} {
		refuses[Reserve](t, in, `"`+in+`" is not a share to keep back`+allowed)
	}
	for _, in := range []string{"", "-1", "1.5", "ten", "9999999999"} {
		refuses[Reserve](t, in, `"`+in+`" is neither a share nor a count`+allowed)
	}
}

func FuzzNetwork(f *testing.F) {
	roundTrips[Network](f, "10.0.0.0/8", "192.0.2.7", "fd00::/8", "::ffff:10.0.0.1", "fe80::1%eth0", "10.0.0.1/8")
}

func FuzzProxy(f *testing.F) {
	for _, seed := range []string{"none", "environment", "http://u:p@proxy:3128", "socks5://[::1]:1080", "http://a%40b:%5Bhidden%5D@c", "http://:p@a"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		var p, again Proxy
		if p.UnmarshalText([]byte(in)) != nil {
			return
		}
		password := ""
		if u := p.URL(); u != nil {
			password, _ = u.User.Password()
		}
		if len(password) > 6 && strings.Contains(p.String(), password) && !strings.Contains(p.URL().Host+p.URL().User.Username()+p.URL().Scheme+hidden, password) {
			t.Errorf("%q shows its password: %s", in, p)
		}
		if err := again.UnmarshalText([]byte(p.String())); (err == nil) == strings.Contains(p.String(), hidden) || err == nil && !again.Equal(p) {
			t.Errorf("%q: written %q, read again %q, %v", in, p, again, err)
		}
	})
}

func FuzzAddress(f *testing.F) { roundTrips[Address](f, "a:1", "[::1]:443", "a", "A:65535") }

func FuzzResolver(f *testing.F) {
	roundTrips[Resolver](f, "192.0.2.53", "[::1]:53", "::1", "fe80::1%a", "[fe80::1%a]:1")
}

func FuzzReserve(f *testing.F) { roundTrips[Reserve](f, "10%", "20", "1e-320%", "0x1p-3%", "007") }
