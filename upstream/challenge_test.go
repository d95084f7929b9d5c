package upstream

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseChallenges(t *testing.T) {
	type params = map[string]string
	for _, tt := range []struct {
		name    string
		headers []string
		want    []offer
	}{
		{"none", nil, nil},
		{"empty", []string{"", " , ,"}, nil},
		{"bearer", []string{`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/redis:pull"`},
			[]offer{{"bearer", params{"realm": "https://auth.docker.io/token", "service": "registry.docker.io", "scope": "repository:library/redis:pull"}}}},
		{"a scheme alone", []string{"Negotiate"}, []offer{{"negotiate", params{}}}},
		{"any case", []string{`bEARER REALM="R",Service=s`}, []offer{{"bearer", params{"realm": "R", "service": "s"}}}},
		{"spaces about everything", []string{"  Bearer   realm = \"r\" ,\t service\t=\ts  "}, []offer{{"bearer", params{"realm": "r", "service": "s"}}}},
		{"commas in quotes", []string{`Bearer realm="r",scope="repository:a:pull,push",error="x"`},
			[]offer{{"bearer", params{"realm": "r", "scope": "repository:a:pull,push", "error": "x"}}}},
		{"escapes in quotes", []string{`Basic realm="say \"hi\", \\ Bearer realm=x"`}, []offer{{"basic", params{"realm": `say "hi", \ Bearer realm=x`}}}},
		{"several in a header", []string{`Basic realm="a", Bearer realm="b", service="c", Digest nonce="d"`},
			[]offer{{"basic", params{"realm": "a"}}, {"bearer", params{"realm": "b", "service": "c"}}, {"digest", params{"nonce": "d"}}}},
		{"several headers", []string{`Basic realm="a"`, `Bearer realm="b"`}, []offer{{"basic", params{"realm": "a"}}, {"bearer", params{"realm": "b"}}}},
		{"schemes without parameters", []string{"Negotiate, Basic, Bearer realm=b"}, []offer{{"negotiate", params{}}, {"basic", params{}}, {"bearer", params{"realm": "b"}}}},
		{"token68", []string{`Negotiate YWJj/+==, Bearer realm="b"`}, []offer{{"negotiate", params{}}, {"bearer", params{"realm": "b"}}}},
		{"the first of two equal names", []string{`Bearer realm="a",realm="b"`}, []offer{{"bearer", params{"realm": "a"}}}},
		{"empty elements", []string{`,, Bearer ,realm="b",, service="c",`}, []offer{{"bearer", params{"realm": "b", "service": "c"}}}},
		{"parameters of nothing", []string{`realm="a", Bearer realm="b"`}, []offer{{"bearer", params{"realm": "b"}}}},
		{"parameters don't cross headers", []string{`Bearer service="a"`, `realm="b"`}, []offer{{"bearer", params{"service": "a"}}}},
		{"quotes that don't end", []string{`Bearer service="s",realm="https://auth.test`}, []offer{{"bearer", params{"service": "s", "realm": ""}}}},
		{"an escape at the end", []string{`Bearer realm="a\`}, []offer{{"bearer", params{"realm": ""}}}},
		{"rubbish between", []string{`"a, Bearer realm=x", @@@, Bearer realm="b"`}, []offer{{"bearer", params{"realm": "b"}}}},
		{"too many", []string{strings.Repeat("Basic,", 100)}, func() (all []offer) {
			for range maxChallenges {
				all = append(all, offer{"basic", params{}})
			}
			return all
		}()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := parseChallenges(tt.headers)
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(offer{})); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestBearerIsChosenBeforeBasic(t *testing.T) {
	for _, tt := range []struct {
		header string
		want   challenge
	}{
		{`Basic realm="a", Bearer realm="b",service="c"`, challenge{bearer, "b", "c"}},
		{`Bearer realm="b", Basic realm="a"`, challenge{bearer, "b", ""}},
		{`Bearer service="c", Basic realm="a"`, challenge{scheme: basic}},
		{`Negotiate, Basic`, challenge{scheme: basic}},
		{`Negotiate`, challenge{}},
	} {
		if got := choose([]string{tt.header}); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.header, got, tt.want)
		}
	}
}

func FuzzChallenge(f *testing.F) {
	for _, s := range []string{
		`Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a:pull,push"`,
		`Basic realm="a", Bearer realm="b"`, `Negotiate YWJj==, Bearer realm=b`, `Basic realm="\"\\`, `"",=,a=b,A`, "Bearer\trealm = \"\x00\"",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		found := parseChallenges([]string{s})
		if len(found) > maxChallenges {
			t.Errorf("%d challenges", len(found))
		}
		for _, c := range found {
			if c.scheme == "" || c.scheme != strings.ToLower(c.scheme) {
				t.Errorf("scheme %q", c.scheme)
			}
			for name, value := range c.params {
				if name == "" || name != strings.ToLower(name) || len(value) > len(s) {
					t.Errorf("parameter %q=%q", name, value)
				}
			}
			// What can be read can be written and read again.
			var params []string
			for name, value := range c.params {
				params = append(params, name+`="`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value)+`"`)
			}
			again := c.scheme + " " + strings.Join(params, ", ")
			if diff := cmp.Diff([]offer{c}, parseChallenges([]string{again}), cmp.AllowUnexported(offer{})); diff != "" {
				t.Errorf("%q from %q: %s", again, s, diff)
			}
		}
	})
}
