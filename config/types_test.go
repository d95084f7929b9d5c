package config

import (
	"encoding"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// text is what each value type is, as V with *V able to read.
type text[V any] interface {
	*V
	encoding.TextUnmarshaler
}

// parses checks what a text is read as, and how that is written.
func parses[V comparable, P text[V]](t *testing.T, in string, want V, out string) {
	t.Helper()
	var got V
	if err := P(&got).UnmarshalText([]byte(in)); err != nil || got != want {
		t.Errorf("%q: %#v, %v; want %#v", in, got, err, want)
	}
	if s := fmt.Sprint(got); s != out {
		t.Errorf("%q: written %q, want %q", in, s, out)
	}
}

// refuses checks the whole error for a text, and that nothing is set by it.
func refuses[V comparable, P text[V]](t *testing.T, in, want string) {
	t.Helper()
	var got, zero V
	if err := P(&got).UnmarshalText([]byte(in)); message(err) != want || got != zero {
		t.Errorf("%q: %v, error %v; want %s", in, got, err, want)
	}
}

func TestSize(t *testing.T) {
	parses(t, "0", Size(0), "0")
	parses(t, "1B", Size(1), "1B")
	parses(t, "200GiB", Size(200<<30), "200GiB")
	parses(t, "200 gib", Size(200<<30), "200GiB")
	parses(t, "10Gi", Size(10<<30), "10GiB")
	parses(t, "10G", Size(10e9), "10GB")
	parses(t, "1.5TB", Size(1.5e12), "1500GB")
	parses(t, "1234567B", Size(1234567), "1234567B")
	parses(t, "7EiB", Size(7<<60), "7EiB")
	const allowed = "; allowed: a size such as 200GiB or 500MB"
	refuses[Size](t, "", `"" is not a size`+allowed)
	refuses[Size](t, "200", `"200" has no unit`+allowed)
	refuses[Size](t, "-1GiB", `"-1GiB" is not a size`+allowed)
	refuses[Size](t, "1,5GiB", `"1,5GiB" is not a size`+allowed)
	refuses[Size](t, "1.5.5GiB", `"1.5.5GiB" is not a size`+allowed)
	refuses[Size](t, "1XB", `"1XB" is not a size`+allowed)
	refuses[Size](t, "0.1B", `"0.1B" is less than one byte`+allowed)
	refuses[Size](t, "8EiB", `"8EiB" is too large`+allowed)
	refuses[Size](t, "100EiB", `"100EiB" is too large`+allowed)
}

func TestSpace(t *testing.T) {
	parses(t, "0", Space{}, "0")
	parses(t, "200GiB", Space{Bytes: 200 << 30}, "200GiB")
	parses(t, "5%", Space{Percent: 5}, "5%")
	parses(t, "12.50%", Space{Percent: 12.5}, "12.5%")
	parses(t, "100%", Space{Percent: 100}, "100%")
	const allowed = "; allowed: a size such as 200GiB, or a percentage above 0% up to 100%"
	for _, in := range []string{"%", "0%", "-1%", "100.1%", "NaN%", "Inf%", "5 %%"} {
		refuses[Space](t, in, `"`+in+`" is not a percentage of a disk`+allowed)
	}
	refuses[Space](t, "5", `"5" has no unit`+allowed)
}

func TestDuration(t *testing.T) {
	parses(t, "0", Duration(0), "0s")
	parses(t, "60s", Duration(time.Minute), "1m")
	parses(t, "1h30m", Duration(90*time.Minute), "1h30m")
	parses(t, "120m", Duration(2*time.Hour), "2h")
	parses(t, "1h10m10s", Duration(time.Hour+10*time.Minute+10*time.Second), "1h10m10s")
	parses(t, "10m0s", Duration(10*time.Minute), "10m")
	parses(t, "100ms", Duration(100*time.Millisecond), "100ms")
	parses(t, "7d", Duration(7*day), "7d")
	parses(t, "1.5d", Duration(36*time.Hour), "1d12h")
	parses(t, "1d12h", Duration(36*time.Hour), "1d12h")
	parses(t, "48h", Duration(2*day), "2d")
	const allowed = "; allowed: a duration such as 90s, 1h30m or 7d"
	for _, in := range []string{"", "5", "soon", "d", "-1d", "1d-5h", "1d+5h", "1h1d", "1d1d", "1e3d", "1.1.1d"} {
		refuses[Duration](t, in, `"`+in+`" is not a duration`+allowed)
	}
	refuses[Duration](t, "-5s", `"-5s" is negative`+allowed)
	refuses[Duration](t, "106752d", `"106752d" is too long`+allowed)
	refuses[Duration](t, "106751d24h", `"106751d24h" is too long`+allowed)
}

func TestRate(t *testing.T) {
	parses(t, "0", Rate(0), "unlimited")
	parses(t, "unlimited", Rate(0), "unlimited")
	parses(t, "200Mbit/s", Rate(25e6), "25MB/s")
	parses(t, "1Gbit/s", Rate(125e6), "125MB/s")
	parses(t, "1.5 Gbit/s", Rate(187.5e6), "187500kB/s")
	parses(t, "8bit/s", Rate(1), "1B/s")
	parses(t, "20MB/s", Rate(20e6), "20MB/s")
	parses(t, "20MiB/s", Rate(20<<20), "20MiB/s")
	const allowed = "; allowed: bits as in 200Mbit/s, bytes as in 20MB/s or 20MiB/s, or unlimited"
	for _, in := range []string{"", "200", "200M", "200Mbit", "200M/s", "200Mb/s", "200Mibit/s", "bit/s", "/s", "-1MB/s", "20MB/h"} {
		refuses[Rate](t, in, `"`+in+`" is not a rate`+allowed)
	}
	refuses[Rate](t, "7bit/s", `"7bit/s" is less than one byte a second`+allowed)
}

func TestCount(t *testing.T) {
	parses(t, "1", Count(1), "1")
	parses(t, "24", Count(24), "24")
	parses(t, "2147483647", Count(1<<31-1), "2147483647")
	const allowed = "; allowed: a whole number from 1, such as 6"
	for _, in := range []string{"", "0", "-1", "+1", "06", "0x6", "6.0", "1e1", "1_0", "1,0", " 6", "six", "٦", "auto"} {
		refuses[Count](t, in, `"`+in+`" is not a count`+allowed)
	}
	for _, in := range []string{"2147483648", "99999999999999999999"} {
		refuses[Count](t, in, `"`+in+`" is too large`+allowed)
	}
}

func TestURL(t *testing.T) {
	parses(t, "https://ghcr.io", URL("https://ghcr.io"), "https://ghcr.io")
	parses(t, "HTTP://Localhost:5000/", URL("http://localhost:5000"), "http://localhost:5000")
	parses(t, "https://a_b.io/Harbor/proxy//", URL("https://a_b.io/Harbor/proxy"), "https://a_b.io/Harbor/proxy")
	parses(t, "https://[FD00::1]:443/x", URL("https://[fd00::1]:443/x"), "https://[fd00::1]:443/x")
	parses(t, "https://a.io/a%2Fb", URL("https://a.io/a%2Fb"), "https://a.io/a%2Fb")
	const allowed = "; allowed: a URL such as https://registry.example:5000/path"
	for _, in := range []string{"", "ghcr.io", "localhost:5000", "ftp://a.io", "/x", "//a.io"} {
		refuses[URL](t, in, `"`+in+`" is not an http or https URL`+allowed)
	}
	for _, in := range []string{"https://", "https:///x", "https:a.io", "https://:80", "https://a.io:0", "https://a.io:99999",
		"https://a..io", "https://é.io", "https://[fe80::1%25eth0]"} {
		refuses[URL](t, in, `"`+in+`" has no valid host`+allowed)
	}
	for _, in := range []string{"https://a.io:x", "https://a.io/a%2Fb c", "https://a.io/%", "https://a b.io"} {
		refuses[URL](t, in, `"`+in+`" is not a URL`+allowed)
	}
	refuses[URL](t, "https://u:p@a.io", "the URL has a user name (an @) in it; allowed: http or https, host, port and path; credentials have keys of their own")
	for _, in := range []string{"https://a.io?q", "https://a.io?", "https://a.io#f", "https://a.io#"} {
		refuses[URL](t, in, "the URL has a query or a fragment; allowed: http or https, host, port and path")
	}
}

func TestSecretShowsNowhere(t *testing.T) {
	type inside struct{ secret Secret }
	secret := NewSecret("hunter2")
	credentials := Login{Username: "u", Password: secret}
	for _, verb := range strings.Fields("%v %+v %#v %s %q %x %X %d %t %p %T") {
		for _, value := range []any{secret, &secret, credentials, &credentials, inside{secret}, []Secret{secret}} {
			if s := fmt.Sprintf(verb, value); strings.Contains(s, "hunter2") || strings.Contains(s, "68756e74657232") {
				t.Errorf("%s of %T: %s", verb, value, s)
			}
		}
	}
	data, err := json.Marshal(credentials)
	if want := `{"Username":"u","Password":"[hidden]","PasswordFile":"","DockerConfig":"","Helper":"","Exec":null,"Lifetime":"0s"}`; string(data) != want || err != nil {
		t.Errorf("%s, %v", data, err)
	}
	if s := fmt.Sprintf("%v %#v %v", secret, secret, Secret{}); s != `[hidden] config.Secret("[hidden]") ` {
		t.Error(s)
	}
	if secret.Reveal() != "hunter2" || !secret.Equal(NewSecret("hunter2")) || secret.Equal(Secret{}) || !NewSecret("").IsZero() {
		t.Error("the secret is not what it was made of")
	}
}

// rereads asserts that what is read is written so that it is read as the same.
func rereads[V comparable, P text[V]](t *testing.T, in string) (out string) {
	var first, second V
	if P(&first).UnmarshalText([]byte(in)) != nil {
		return ""
	}
	out = fmt.Sprint(first)
	if err := P(&second).UnmarshalText([]byte(out)); err != nil || first != second {
		t.Errorf("%q: %#v, written %q, read again %#v, %v", in, first, out, second, err)
	}
	return out
}

// roundTrips is rereads for what is never negative.
func roundTrips[V comparable, P text[V]](f *testing.F, seeds ...string) {
	for _, seed := range seeds {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		if out := rereads[V, P](t, in); strings.HasPrefix(out, "-") {
			t.Errorf("%q: negative: %s", in, out)
		}
	})
}

func FuzzSize(f *testing.F) {
	roundTrips[Size](f, "0", "200GiB", "1.5TB", "10 Gi", "1,5GB", "7.99EiB", "9223372036854775807B")
}

func FuzzSpace(f *testing.F) {
	roundTrips[Space](f, "5%", "0.1%", "100%", "NaN%", "0x1p-3%", "1e-320%", "10GB")
}

func FuzzDuration(f *testing.F) {
	roundTrips[Duration](f, "0", "60s", "7d", "1.5d", "1d12h", "106751.99d", "1ns", "1h0m1s", "106751d23h47m16.854775807s")
}

func FuzzRate(f *testing.F) {
	roundTrips[Rate](f, "unlimited", "200Mbit/s", "20MB/s", "20MiB/s", "1Gbit/s", "8bit/s", "0.1kbit/s")
}

func FuzzCount(f *testing.F) {
	roundTrips[Count](f, "1", "24", "0", "-1", "+6", "06", "1e3", "2147483648")
}

func FuzzURL(f *testing.F) {
	roundTrips[URL](f, "https://ghcr.io", "HTTP://A:80//x//", "https://[::1]:5/%2f", "https://a/%41%2F/", "http://a/b c", "http://a/;[]")
}

func FuzzSecret(f *testing.F) {
	f.Add("hunter2")
	f.Fuzz(func(t *testing.T, in string) {
		var s Secret
		if err := s.UnmarshalText([]byte(in)); err != nil || s.Reveal() != in || s.IsZero() != (in == "") {
			t.Errorf("%q: %q, %v", in, s.Reveal(), err)
		}
	})
}
