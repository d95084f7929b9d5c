package access

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
)

func request(from string, change ...func(*http.Request)) *http.Request {
	r := httptest.NewRequest("GET", "/v2/", nil)
	r.RemoteAddr = from
	for _, c := range change {
		c(r)
	}
	return r
}

func basic(user, password string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(user, password) }
}

func bearer(r *http.Request) { r.Header.Set("Authorization", "Bearer token") }

func certificate(name string) func(*http.Request) {
	return func(r *http.Request) {
		r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{{Subject: pkix.Name{CommonName: name}}}}}
	}
}

// unverified shows a certificate that nobody vouches for.
func unverified(r *http.Request) {
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{{Subject: pkix.Name{CommonName: "alice"}}}}
}

func TestNetworks(t *testing.T) {
	p := Policy{Anonymous: true, Networks: []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("2001:db8::/32")}}
	for from, want := range map[string]bool{
		"10.1.2.3:1000":               true,
		"11.1.2.3:1000":               false,
		"192.0.2.7:1":                 true,
		"192.0.2.8:1":                 false,
		"[::ffff:10.1.2.3]:1000":      true, // how a listener for both sees IPv4
		"[::ffff:11.1.2.3]:1000":      false,
		"[fe80::1%eth0]:1000":         true,
		"[2001:db8::1]:1000":          true,
		"[2001:db9::1]:1000":          false,
		"[::ffff:10.1.2.3%eth0]:1000": true,
		"@":                           false,
		"":                            false,
		"10.1.2.3":                    false,
		"[::a01:203]:1000":            false, // not mapped: another address
	} {
		_, _, err := p.Enter(request(from, basic("x", "y")), false)
		if refused := (*Refusal)(nil); (err == nil) != want || err != nil && (!errors.As(err, &refused) || *refused != Refusal{Reason: Network}) {
			t.Errorf("%s: %v", from, err)
		}
	}
	if _, _, err := (&Policy{Anonymous: true}).Enter(request("@"), false); err != nil {
		t.Errorf("without networks: %v", err)
	}
}

func TestWhoComesIn(t *testing.T) {
	passwords := open(t, "alice:"+hash("sesame")+"\n")
	const ask = challenge
	for _, tt := range []struct {
		name        string
		policy      Policy
		request     *http.Request
		forRegistry bool
		user        string
		refused     Refusal
	}{
		{"nobody", Policy{Anonymous: true}, request(""), false, "", Refusal{}},
		{"nobody, volunteering", Policy{Anonymous: true}, request("", basic("hub", "secret")), false, "", Refusal{}},
		{"nobody, not allowed", Policy{}, request("", basic("hub", "secret")), false, "", Refusal{Reason: Anonymous}},
		{"nobody, where there are passwords", Policy{Htpasswd: passwords}, request(""), false, "", Refusal{Anonymous, ask}},
		{"a token, where there are passwords", Policy{Htpasswd: passwords}, request("", bearer), false, "", Refusal{Anonymous, ask}},
		{"nobody, with or without password", Policy{Htpasswd: passwords, Anonymous: true}, request(""), false, "", Refusal{}},
		{"password", Policy{Htpasswd: passwords}, request("", basic("alice", "sesame")), false, "alice", Refusal{}},
		{"wrong password", Policy{Htpasswd: passwords}, request("", basic("alice", "wrong")), false, "", Refusal{Password, ask}},
		{"wrong password, where none is needed", Policy{Htpasswd: passwords, Anonymous: true}, request("", basic("alice", "wrong")), false, "", Refusal{Password, ask}},
		{"wrong user", Policy{Htpasswd: passwords}, request("", basic("bob", "sesame")), false, "", Refusal{Password, ask}},
		{"neither", Policy{Htpasswd: passwords}, request("", basic("", "")), false, "", Refusal{Anonymous, ask}},
		{"neither, where none is needed", Policy{Htpasswd: passwords, Anonymous: true}, request("", basic("", "")), false, "", Refusal{}},
		{"certificate", Policy{}, request("", certificate("alice")), false, "alice", Refusal{}},
		{"certificate of nobody", Policy{}, request("", certificate("")), false, "", Refusal{Reason: Anonymous}},
		{"certificate that was not verified", Policy{}, request("", unverified), false, "", Refusal{Reason: Anonymous}},
		{"certificate and wrong password", Policy{Htpasswd: passwords}, request("", certificate("alice"), basic("alice", "wrong")), false, "", Refusal{Password, ask}},
		{"certificate and password", Policy{Htpasswd: passwords}, request("", certificate("carol"), basic("alice", "sesame")), false, "alice", Refusal{}},
		{"for the registry", Policy{Htpasswd: passwords}, request("", bearer), true, "", Refusal{}},
		{"for the registry, by password", Policy{Anonymous: true}, request("", basic("hub", "secret")), true, "", Refusal{}},
		{"for us, where the registry is to judge", Policy{Htpasswd: passwords}, request("", basic("alice", "sesame")), true, "alice", Refusal{}},
		{"wrong, where the registry is to judge", Policy{Htpasswd: passwords}, request("", basic("alice", "wrong")), true, "", Refusal{Password, ask}},
		{"for the registry, with a certificate", Policy{}, request("", certificate("alice"), bearer), true, "alice", Refusal{}},
		{"for the registry, without", Policy{}, request("", bearer), true, "", Refusal{Reason: Anonymous}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			user, presented, err := tt.policy.Enter(tt.request, tt.forRegistry)
			if meant := tt.forRegistry && user == "" && err == nil || tt.name == "for the registry, with a certificate"; (presented != "") != meant ||
				meant && presented != tt.request.Header.Get("Authorization") {
				t.Errorf("for the registry: %q", presented)
			}
			var refused Refusal
			if r, ok := errors.AsType[*Refusal](err); ok {
				refused = *r
			}
			if user != tt.user || refused != tt.refused || err != nil && refused == (Refusal{}) {
				t.Errorf("%q, %v %+v; want %q, %+v", user, err, refused, tt.user, tt.refused)
			}
		})
	}
}

func TestWhoMayHaveWhat(t *testing.T) {
	corp := func(registry, repository string) bool { return registry == "locked" && repository == "corp/app" }
	registries := map[string]Registry{
		"locked": {Credentials: true, Exposed: func(repository string) bool { return repository == "base" }},
		"asks":   {Credentials: true, Client: true, Exposed: func(repository string) bool { return repository == "base" }},
		"lends":  {Client: true, Exposed: func(string) bool { return true }},
	}
	users := map[string]func(registry, repository string) bool{"alice": corp, "": func(string, string) bool { return true }}
	for _, tt := range []struct {
		user, registry, repository string
		open, closed               Grant // with the anonymous, and without
	}{
		{"", "locked", "corp/app", Shown, Shown},
		{"", "locked", "base", Everything, Shown},
		{"bob", "locked", "base", Everything, Everything},
		{"", "free", "corp/app", Open, Open},
		{"bob", "locked", "corp/app", Shown, Shown},
		{"alice", "locked", "corp/app", Everything, Everything},
		{"alice", "locked", "corp/other", Shown, Nothing},
		{"alice", "locked", "base", Everything, Nothing},
		{"alice", "free", "corp/app", Open, Nothing},
		{"", "asks", "corp/app", Presented, Presented},
		{"", "asks", "base", Everything, Presented}, // of those whom the registry is to judge nothing is known yet
		{"bob", "asks", "base", Everything, Everything},
		{"", "lends", "base", Presented, Presented},
		{"alice", "lends", "base", Presented, Nothing},
	} {
		for anonymous, want := range map[bool]Grant{true: tt.open, false: tt.closed} {
			p := Policy{Anonymous: anonymous, Users: users, Registries: registries}
			got, err := p.May(tt.user, tt.registry, tt.repository)
			refused, _ := errors.AsType[*Refusal](err)
			if got != want || (want == Nothing) != (err != nil) || err != nil && *refused != (Refusal{Reason: Pattern}) {
				t.Errorf("%+v, anonymous %t: %v, %v", tt, anonymous, got, err)
			}
		}
	}
}

func TestHiddenAsksOnlyWhoMayBeSomebodyElse(t *testing.T) {
	passwords := open(t, "alice:"+hash("sesame")+"\n")
	for _, tt := range []struct {
		policy Policy
		user   string
		want   Refusal
	}{
		{Policy{}, "", Refusal{Reason: Private}},
		{Policy{Htpasswd: passwords}, "", Refusal{Private, challenge}},
		{Policy{Htpasswd: passwords}, "alice", Refusal{Reason: Private}},
	} {
		if got := tt.policy.Hidden(tt.user); *got != tt.want {
			t.Errorf("%+v, want %+v", got, tt.want)
		}
	}
}
