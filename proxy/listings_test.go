package proxy_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// follow returns where a Link header to the next page leads.
func (a answer) follow(t *testing.T) string {
	t.Helper()
	link := a.header.Get("Link")
	target, ok := strings.CutSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
	if !ok {
		t.Fatalf("%d, Link %q: %s", a.status, link, a.body)
	}
	return target
}

func TestOurLinkReachesThePageThatUpstreamsDoes(t *testing.T) {
	const first, second = `{"name":"library/a","tags":["a"]}`, `{"name":"library/a","tags":["b"]}`
	for name, query := range map[string]url.Values{
		"last is a tag":       {"last": {"a"}, "n": {"1"}},
		"last is opaque":      {"last": {"eyJ0YWciOiJhIn0=+/ <&>é"}, "n": {"1"}},
		"last is long":        {"last": {strings.Repeat("x", 256)}, "n": {"1"}},
		"next_page, as Quay":  {"next_page": {"gAAAAABnQ-x_w=="}, "n": {"1"}},
		"both, and something": {"next_page": {"x"}, "last": {"a"}, "cursor": {"1", "2"}},
	} {
		t.Run(name, func(t *testing.T) {
			u := newRegistry(t)
			u.lists["library/a/tags/list?n=1"] = list{"</v2/library/a/tags/list?" + query.Encode() + `>; rel="next"`, first}
			u.lists["library/a/tags/list?"+query.Encode()] = list{"", second}
			m := newMirror(t, u, nil)
			a := m.get("/v2/a/tags/list?n=1&last=&ns=docker.io")
			a.expect(t, 200, []byte(first))
			m.get(a.follow(t)).expect(t, 200, []byte(second))
		})
	}
}

func TestLinkThatCannotBeReadLeadsNowhere(t *testing.T) {
	u := newRegistry(t)
	u.lists["library/a/tags/list?"] = list{`</v2/library/a/tags/list?last=a;b&n=1>; rel="next"`, `{"tags":["a"]}`}
	m := newMirror(t, u, nil)
	if got := m.get("/v2/a/tags/list").header.Get("Link"); got != "" {
		t.Errorf("Link %s", got)
	}
}

func TestPagesOfReferrersKeepTheFilter(t *testing.T) {
	u := newRegistry(t)
	d := digest.FromString("subject")
	page := func(n string) string {
		return `{"manifests":[{"digest":"sha256:sig` + n + `","artifactType":"a/sig+x"},{"digest":"sha256:sbom` + n + `","artifactType":"sbom"}]}`
	}
	path := "library/a/referrers/" + d.String()
	u.lists[path+"?"] = list{"</v2/" + path + `?next_page=2>; rel="next"`, page("1")}
	u.lists[path+"?next_page=2"] = list{"", page("2")}
	m := newMirror(t, u, nil)
	a := m.get("/v2/a/referrers/" + d.String() + "?ns=docker.io&artifactType=" + url.QueryEscape("a/sig+x"))
	b := m.get(a.follow(t))
	for i, page := range []answer{a, b} {
		got := string(page.body)
		if page.status != 200 || !strings.Contains(got, "sha256:sig"+string(rune('1'+i))) || strings.Contains(got, "sbom") ||
			page.header.Get("OCI-Filters-Applied") != "artifactType" {
			t.Errorf("page %d: %d %v %s", i+1, page.status, page.header, got)
		}
	}
	if got := b.header.Get("Link"); got != "" {
		t.Errorf("the last page leads on to %s", got)
	}
}
