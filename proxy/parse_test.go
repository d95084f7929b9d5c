package proxy

import (
	"fmt"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// The grammar as distribution-spec 1.1 writes it, for the parsers to be held against.
var (
	specName = regexp.MustCompile(`^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$`)
	specTag  = regexp.MustCompile(`^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$`)
)

func FuzzName(f *testing.F) {
	for _, s := range []string{"redis", "library/redis", "a/b/c", "a..b", "a__b", "a___b", "a--b", "a-", "/a", "a/", "a//b", "A", "a.b/c_d", ".a", "a/../b", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want := specName.MatchString(s) && len(s) <= maxName && !strings.Contains(s, "\n")
		if got := validName(s); got != want {
			t.Errorf("validName(%q) = %v", s, got)
		}
	})
}

func FuzzReference(f *testing.F) {
	for _, s := range []string{"latest", "1.0", "_x", ".x", "-x", "a:b", "sha256:" + strings.Repeat("a", 64), "sha512:" + strings.Repeat("0", 128),
		"sha256:" + strings.Repeat("A", 64), "sha384:" + strings.Repeat("a", 96), "sha256:", strings.Repeat("x", 129), "md5:0cc175b9c0f1b6a831c399e269772661"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := parseReference(s)
		switch {
		case err != nil:
			if specTag.MatchString(s) && !strings.HasSuffix(s, "\n") {
				t.Errorf("%q is refused: %v", s, err)
			}
		case ref.Tag != "":
			if ref.Digest != "" || !specTag.MatchString(ref.Tag) {
				t.Errorf("%q became %+v", s, ref)
			}
		default:
			if ref.Digest.Validate() != nil || ref.String() != s {
				t.Errorf("%q became %+v", s, ref)
			}
		}
	})
}

func FuzzPath(f *testing.F) {
	f.Add("GET", "/v2/library/redis/manifests/latest", "docker.io", "")
	f.Add("GET", "/v2/a/blobs/b/blobs/sha256:x", "", "x.mirror.test")
	f.Add("GET", "/v2/ghcr.io/a/b/tags/list", "", "")
	f.Add("GET", "/v2//manifests//", "quay.io", "quay.io:443")
	routes := newRoutes([]Registry{{Name: "docker.io"}, {Name: "ghcr.io", Hosts: []string{"x.mirror.test"}}}, strings.ToLower, "docker.io")
	f.Fuzz(func(t *testing.T, method, path, ns, host string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path, r.URL.RawQuery, r.Host = path, url.Values{"ns": {ns}}.Encode(), host
		target, err := routes.parse(r, "", strings.TrimPrefix(path, "/v2/"))
		if err != nil {
			if _, ok := err.(*apiError); !ok {
				t.Errorf("%q: %v is no API error", path, err)
			}
			return
		}
		if !validName(strings.TrimPrefix(target.repo.Name, "library/")) || target.repo.Registry != "docker.io" && target.repo.Registry != "ghcr.io" {
			t.Errorf("%q became %+v", path, target)
		}
	})
}

func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-", "bytes=-5", "bytes=-0", "bytes=5-2", "bytes=0-0,2-3,-1", "bytes=,0-1,,", "items=0-1", "bytes", "bytes=a-b",
		"bytes=99999999999999999999-", "bytes=0-99999999999999999999", "bytes = 0-1", "bytes=0-1;q=1", "bytes=" + strings.Repeat("0-0,", 2000)} {
		f.Add(s, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		size = max(0, size)
		ranges, ok := parseRange(header)
		if ok != (len(ranges) > 0) || len(ranges) > maxRanges {
			t.Fatalf("%q: %v, %v", header, ranges, ok)
		}
		for _, br := range ranges {
			again, ok := parseSpec(br.String())
			if !ok || again != br {
				t.Errorf("%+v prints as %q, which is %+v", br, br, again)
			}
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["Range"] = []string{header}
		if err := normalizeRange(r, `"x"`, size); err == nil {
			if again, ok := parseRange(r.Header.Get("Range")); r.Header.Get("Range") != "" && !ok {
				t.Errorf("%q was normalized to %q: %v", header, r.Header.Get("Range"), again)
			}
		}
	})
}

func TestRegistryOfRequest(t *testing.T) {
	routes := newRoutes([]Registry{
		{Name: "docker.io"}, {Name: "ghcr.io", Hosts: []string{"ghcr.mirror.corp"}}, {Name: "localhost:5000"},
	}, func(s string) string {
		if s == "registry-1.docker.io" || s == "index.docker.io" {
			return "docker.io"
		}
		return strings.ToLower(s)
	}, "docker.io")
	for name, test := range map[string]struct {
		host, prefix, path string
		want               string // registry, repository, kind and reference; or the code of the error
	}{
		"default":                        {"", "", "library/redis/manifests/7", "docker.io library/redis manifest 7"},
		"official image":                 {"", "", "redis/manifests/7", "docker.io library/redis manifest 7"},
		"ns":                             {"", "", "owner/app/blobs/x?ns=ghcr.io", "ghcr.io owner/app blob x"},
		"ns in other case":               {"", "", "owner/app/blobs/x?ns=GHCR.io", "ghcr.io owner/app blob x"},
		"ns by an alias of docker.io":    {"", "", "redis/blobs/x?ns=registry-1.docker.io", "docker.io library/redis blob x"},
		"ns by another alias":            {"", "", "redis/blobs/x?ns=index.docker.io", "docker.io library/redis blob x"},
		"ns before host":                 {"ghcr.mirror.corp", "", "redis/blobs/x?ns=docker.io", "docker.io library/redis blob x"},
		"ns empty":                       {"", "", "ghcr.io/owner/app/blobs/x?ns=", "ghcr.io owner/app blob x"},
		"ns unknown":                     {"", "", "redis/blobs/x?ns=evil.example", "NAME_UNKNOWN"},
		"ns unknown, path known":         {"", "", "ghcr.io/redis/blobs/x?ns=169.254.169.254", "NAME_UNKNOWN"},
		"ns and path say the same":       {"", "", "ghcr.io/owner/app/blobs/x?ns=ghcr.io", "ghcr.io owner/app blob x"},
		"host":                           {"ghcr.mirror.corp", "", "app/tags/list", "ghcr.io app tags "},
		"host with port":                 {"ghcr.mirror.corp:5000", "", "app/tags/list", "ghcr.io app tags "},
		"host before path":               {"ghcr.mirror.corp", "", "docker.io/app/tags/list", "ghcr.io docker.io/app tags "},
		"path":                           {"", "", "ghcr.io/owner/app/referrers/x", "ghcr.io owner/app referrers x"},
		"path with port":                 {"", "", "localhost:5000/app/manifests/x", "localhost:5000 app manifest x"},
		"path of docker.io":              {"", "", "docker.io/redis/manifests/7", "docker.io library/redis manifest 7"},
		"path by alias":                  {"", "", "index.docker.io/redis/manifests/7", "docker.io library/redis manifest 7"},
		"path unknown":                   {"", "", "quay.io/owner/app/manifests/7", "NAME_UNKNOWN"},
		"before v2":                      {"", "ghcr.io", "owner/app/manifests/7", "ghcr.io owner/app manifest 7"},
		"before v2, unknown":             {"", "quay.io", "owner/app/manifests/7", "NAME_UNKNOWN"},
		"words of the API in a name":     {"", "", "ghcr.io/a/blobs/manifests/blobs/x", "ghcr.io a/blobs/manifests blob x"},
		"name that only looks like tags": {"", "", "ghcr.io/tags/list/manifests/x", "ghcr.io tags/list manifest x"},
		"upper case":                     {"", "", "Library/Redis/manifests/7", "NAME_INVALID"},
		"dots":                           {"", "", "../../etc/manifests/7", "NAME_INVALID"},
		"empty component":                {"", "", "library//redis/manifests/7", "NAME_INVALID"},
		"empty name":                     {"", "", "/manifests/7", "NAME_INVALID"},
		"named like uploads":             {"", "", "ghcr.io/a/blobs/uploads/manifests/7", "ghcr.io a/blobs/uploads manifest 7"},
		"catalog":                        {"", "", "_catalog", "UNSUPPORTED"},
		"nothing known":                  {"", "", "library/redis/whatever/7", "UNSUPPORTED"},
		"too long":                       {"", "", strings.Repeat("a", 256) + "/manifests/7", "NAME_INVALID"},
		"registry alone":                 {"", "", "ghcr.io/manifests/7", "UNSUPPORTED"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("GET", "/v2/"+strings.ReplaceAll(test.path, " ", "%20"), nil)
			r.Host = test.host
			got := ""
			target, err := routes.parse(r, test.prefix, strings.TrimPrefix(r.URL.Path, "/v2/"))
			if err != nil {
				got = err.(*apiError).code
			} else {
				got = fmt.Sprintf("%s %s %s %s", target.repo.Registry, target.repo.Name, target.kind, target.reference)
			}
			if got != test.want {
				t.Errorf("got %q (%v), want %q", got, err, test.want)
			}
		})
	}
}
