package proxy_test

import (
	"bytes"
	"crypto/sha512"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const dockerManifest = "application/vnd.docker.distribution.manifest.v2+json"

func TestPingIsAnsweredWhateverUpstreamDoes(t *testing.T) {
	u := newRegistry(t)
	m := newMirror(t, u, nil)
	u.stop()
	for _, path := range []string{"/v2/", "/v2", "/docker.io/v2/"} {
		a := m.get(path)
		a.expect(t, 200, []byte("{}"))
		if a.header.Get("Docker-Distribution-Api-Version") != "registry/2.0" || a.header.Get("WWW-Authenticate") != "" {
			t.Errorf("%s: %v", path, a.header)
		}
	}
	if a := m.get("/"); a.status != 200 || !bytes.Contains(a.body, []byte("registry-mirrors")) {
		t.Errorf("front page: %d %s", a.status, a.body)
	}
}

func TestWhateverWritesIsRefused(t *testing.T) {
	u := newRegistry(t)
	m := newMirror(t, u, nil)
	d := digest.FromString("x")
	for _, request := range []string{
		"POST /v2/library/a/blobs/uploads/", "PUT /v2/library/a/manifests/latest", "PATCH /v2/library/a/blobs/uploads/1",
		"DELETE " + digestPath("a", d), "DELETE " + blobPath("a", d), "GET /v2/library/a/blobs/uploads/1", "GET /v2/a/blobs/uploads/", "GET /v2/a/blobs/uploads", "POST /v2/", "PUT /x",
	} {
		method, path, _ := strings.Cut(request, " ")
		a := m.ask(method, path)
		a.expectError(t, 405, "UNSUPPORTED")
		if _, said := a.header["Allow"]; !said || !bytes.Contains(a.body, []byte("mirror")) {
			t.Errorf("%s: %v %s", request, a.header, a.body)
		}
	}
	if n := u.count(""); n > 0 {
		t.Errorf("upstream was asked: %q", u.log)
	}
}

func TestOddRequestsGetClearErrors(t *testing.T) {
	u := newRegistry(t)
	m := newMirror(t, u, nil)
	for path, want := range map[string]string{
		"/v2/library/A/manifests/x":                                "400 NAME_INVALID",
		"/v2/library/a/manifests/" + strings.Repeat("x", 129):      "404 MANIFEST_UNKNOWN",
		"/v2/library/a/manifests/.INVALID_MANIFEST_NAME":           "404 MANIFEST_UNKNOWN",
		"/v2/library/a/manifests/":                                 "404 MANIFEST_UNKNOWN",
		"/v2/library/a/manifests/.x:y":                             "400 DIGEST_INVALID",
		"/v2/library/a/manifests/sha256:abc":                       "400 DIGEST_INVALID",
		"/v2/library/a/blobs/latest":                               "400 DIGEST_INVALID",
		"/v2/library/a/blobs/md5:0cc175b9c0f1b6a831c399e269772661": "400 DIGEST_INVALID",
		"/v2/library/a/referrers/latest":                           "400 DIGEST_INVALID",
		"/v2/library/a/tags/list?n=x":                              "400 UNSUPPORTED",
		"/v2/library/a/tags/list?n=1000000000":                     "400 UNSUPPORTED",
		"/v2/library/a/tags/list?n=1&n=x":                          "400 UNSUPPORTED",
		"/v2/library/a/tags/list?last=a%00":                        "400 UNSUPPORTED",
		"/v2/library/a/tags/list?last=%FF":                         "400 UNSUPPORTED",
		"/v2/library/a/tags/list?last=" + strings.Repeat("x", 257): "400 UNSUPPORTED",
		"/v2/library/a/tags/list?x=" + strings.Repeat("x", 1024):   "400 UNSUPPORTED",
		"/v2/library/a/tags/list?x=%zz":                            "400 UNSUPPORTED",
		"/v2/library/a/manifests/x?ns=ghcr.io;x":                   "400 UNSUPPORTED",
		"/v2/?ns=%":                                                "400 UNSUPPORTED",
		"/v2/../../etc/passwd":                                     "404 UNSUPPORTED",
		"/v2/library/../a/manifests/x":                             "400 NAME_INVALID",
		"/v2/library//a/manifests/x":                               "400 NAME_INVALID",
		"/v2/library/a%2F..%2Fb/manifests/x":                       "400 NAME_INVALID",
		"/v2/library/a%00/manifests/x":                             "400 NAME_INVALID",
		"/v2/_catalog":                                             "404 UNSUPPORTED",
		"/v1/_ping":                                                "404 UNSUPPORTED",
		"//v2/":                                                    "404 UNSUPPORTED",
		"/v2/a/manifests/x?ns=unknown.example":                     "404 NAME_UNKNOWN",
		"/unknown.example/v2/a/manifests/x":                        "404 NAME_UNKNOWN",
		"/unknown.example/v2/":                                     "404 NAME_UNKNOWN",
	} {
		a := m.rawGet(path)
		status, code, _ := strings.Cut(want, " ")
		if fmt.Sprint(a.status) != status {
			t.Errorf("%s: %d %s, want %s", path, a.status, a.body, want)
			continue
		}
		a.expectError(t, a.status, code)
	}
	if n := u.count(""); n > 0 {
		t.Errorf("upstream was asked: %q", u.log)
	}
}

// rawGet sends a path as it is: net/http's client would tidy it up.
func (m *mirror) rawGet(path string) answer {
	m.t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(m.url, "http://"))
	if err != nil {
		m.t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.0\r\n\r\n", path)
	return readAnswer(m.t, conn)
}

func TestRanges(t *testing.T) {
	content := random(100_000)
	u := newRegistry(t)
	d := u.blob(content, "library/a")
	m := newMirror(t, u, nil)
	size := len(content)
	for round, temperature := range []string{"cold", "warm"} {
		for header, want := range map[string]struct {
			status   int
			from, to int
		}{
			"bytes=0-":                     {206, 0, size},
			"bytes=99-":                    {206, 99, size},
			"bytes=-1":                     {206, size - 1, size},
			"bytes=-1000000":               {206, 0, size},
			"bytes=10-19":                  {206, 10, 20},
			"bytes=99999-99999999":         {206, 99_999, size},
			"bytes=5-99999999999999999999": {206, 5, size},
			"bytes=100000-":                {416, 0, 0},
			"bytes=-0":                     {416, 0, 0},
			"bytes=99999999999999999999-":  {416, 0, 0},
			"bytes=20-10":                  {200, 0, size},
			"bytes=x":                      {200, 0, size},
			"lines=1-2":                    {200, 0, size},
			"bytes=0-0, 200000-":           {206, 0, 1},
		} {
			t.Run(temperature+" "+header, func(t *testing.T) {
				a := m.get(blobPath("a", d), "Range: "+header)
				if want.status == 416 {
					a.expectError(t, 416, "SIZE_INVALID")
					if got := a.header.Get("Content-Range"); got != "bytes */100000" {
						t.Errorf("Content-Range %q", got)
					}
					return
				}
				a.expect(t, want.status, content[want.from:want.to])
				if got, exact := a.header.Get("Content-Range"), fmt.Sprintf("bytes %d-%d/%d", want.from, want.to-1, size); want.status == 206 && got != exact {
					t.Errorf("Content-Range %q, want %q", got, exact)
				}
				if a.header.Get("Accept-Ranges") != "bytes" || a.header.Get("Content-Encoding") != "" {
					t.Errorf("%v", a.header)
				}
			})
		}
		m.settled()
		if n := u.count("GET "); n != 1 {
			t.Errorf("round %d: upstream saw %d GETs", round, n)
		}
	}
}

func TestSeveralRangesAtOnce(t *testing.T) {
	content := random(100_000)
	u := newRegistry(t)
	d := u.blob(content, "library/a")
	m := newMirror(t, u, nil)
	a := m.get(blobPath("a", d), "Range: bytes=10-19,50000-50099,-7")
	if a.status != 206 || a.err != nil {
		t.Fatal(a.status, a.err)
	}
	_, params, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(bytes.NewReader(a.body), params["boundary"])
	for _, want := range [][]byte{content[10:20], content[50_000:50_100], content[len(content)-7:]} {
		p, err := parts.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(p); err != nil || !bytes.Equal(got, want) {
			t.Errorf("part %v: %d bytes, %v", p.Header, len(got), err)
		}
	}
}

func TestConditions(t *testing.T) {
	content := random(1000)
	u := newRegistry(t)
	d := u.blob(content, "library/a")
	m := newMirror(t, u, nil)
	etag := `"` + d.String() + `"`
	if got := m.get(blobPath("a", d)).header.Get("ETag"); got != etag {
		t.Errorf("ETag %s", got)
	}
	m.get(blobPath("a", d), "Range: bytes=5-9", "If-Range: "+etag).expect(t, 206, content[5:10])
	m.get(blobPath("a", d), "Range: bytes=5-9", `If-Range: "other"`).expect(t, 200, content)
	m.get(blobPath("a", d), "Range: bytes=5000-", `If-Range: "other"`).expect(t, 200, content)
	m.get(blobPath("a", d), "Range: bytes=5-9", "If-Range: Sat, 21 Nov 2026 04:00:00 GMT").expect(t, 200, content)
	m.get(blobPath("a", d), "If-None-Match: "+etag).expect(t, 304, []byte{})
	m.get(blobPath("a", d), "If-None-Match: *").expect(t, 304, []byte{})
	m.get(blobPath("a", d), `If-None-Match: "other", W/`+etag).expect(t, 304, []byte{})
	m.get(blobPath("a", d), `If-None-Match: "other"`, "If-None-Match: "+etag).expect(t, 304, []byte{})
	m.get(blobPath("a", d), `If-None-Match: "other"`).expect(t, 200, content)
	m.get(blobPath("a", d), "If-None-Match: "+etag, "Range: bytes=5000-").expect(t, 304, []byte{})
	m.get(blobPath("a", d), `If-None-Match: "other"`, "Range: bytes=5000-").expectError(t, 416, "SIZE_INVALID")
	m.get(blobPath("a", d), `If-Match: "other"`).expectError(t, 412, "UNSUPPORTED")
	m.get(blobPath("a", d), "If-Match: W/"+etag).expectError(t, 412, "UNSUPPORTED")
	m.get(blobPath("a", d), `If-Match: "other"`, "If-None-Match: "+etag, "Range: bytes=5000-").expectError(t, 412, "UNSUPPORTED")
	m.get(blobPath("a", d), `If-Match: "other", `+etag, "Range: bytes=5-9").expect(t, 206, content[5:10])
	m.get(blobPath("a", d), "If-Match: *").expect(t, 200, content)
	if a := m.ask("HEAD", blobPath("a", d), `If-Match: "other"`); a.status != 412 {
		t.Errorf("HEAD: %d", a.status)
	}
}

func TestAnyRangeOfNothingIsAll(t *testing.T) {
	u := newRegistry(t)
	d := u.blob([]byte{}, "library/a")
	for _, header := range []string{"bytes=0-", "bytes=5-9", "bytes=-1", "bytes=-0", "bytes=0-0,5-"} {
		m := newMirror(t, u, nil)
		for range 2 { // cold, and warm
			a := m.get(blobPath("a", d), "Range: "+header)
			a.expect(t, 200, []byte{})
			if a.header.Get("Content-Length") != "0" || a.header.Get("Content-Range") != "" {
				t.Errorf("%s: %v", header, a.header)
			}
			m.settled()
		}
	}
}

func TestHeadSaysWhatGetWould(t *testing.T) {
	u := newRegistry(t)
	layer := random(12345)
	d := u.image("library/a", "1", layer)
	m := newMirror(t, u, nil)
	for _, path := range []string{manifestPath("a", "1"), digestPath("a", d), blobPath("a", digest.FromBytes(layer))} {
		for _, temperature := range []string{"cold", "warm"} {
			head := m.ask("HEAD", path, acceptAll())
			get := m.get(path, acceptAll())
			if head.status != 200 || get.status != 200 || len(head.body) > 0 {
				t.Fatalf("%s %s: %d, %d", temperature, path, head.status, get.status)
			}
			names := []string{"Docker-Content-Digest", "Content-Length", "Content-Type", "ETag", "OCI-Namespace"}
			if strings.Contains(path, "/blobs/") {
				names = append(names, "Accept-Ranges", "X-Content-Type-Options")
			}
			for _, name := range names {
				if h, g := head.header.Get(name), get.header.Get(name); h != g || h == "" {
					t.Errorf("%s %s: %s is %q for HEAD and %q for GET", temperature, path, name, h, g)
				}
			}
			if h, g := slices.Sorted(maps.Keys(head.header)), slices.Sorted(maps.Keys(get.header)); temperature == "warm" &&
				(!slices.Equal(h, g) || len(g) > 8+1) { // ours, and Date
				t.Errorf("%s: HEAD has %q, GET %q", path, h, g)
			}
			m.settled()
		}
	}
}

func TestColdHeadOfBlobTransfersNothing(t *testing.T) {
	u := newRegistry(t)
	d := u.blob(random(5000), "library/a")
	m := newMirror(t, u, nil)
	a := m.ask("HEAD", blobPath("a", d))
	if a.status != 200 || a.header.Get("Content-Length") != "5000" || u.count("GET ") > 0 {
		t.Errorf("%d %v %q", a.status, a.header, u.log)
	}
}

func TestSHA512(t *testing.T) {
	content := random(1000)
	u := newRegistry(t)
	d := digest.NewDigestFromBytes(digest.SHA512, func() []byte { s := sha512.Sum512(content); return s[:] }())
	u.blobs["library/a@"+d.String()] = content
	body := `{"layers":[]}`
	md := digest.SHA512.FromString(body)
	u.manifests["library/a@"+md.String()] = manifest{ocispec.MediaTypeImageManifest, []byte(body)}
	u.fail(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, md.String()) { // a registry names the digest that it was asked for
			w.Header().Set("Docker-Content-Digest", md.String())
			w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			io.WriteString(w, body)
			return true
		}
		return false
	})
	m := newMirror(t, u, nil)
	for range 2 {
		m.get(blobPath("a", d)).expect(t, 200, content)
		m.get(digestPath("a", md)).expect(t, 200, []byte(body))
		m.settled()
	}
	if n := u.count("GET "); n != 2 {
		t.Errorf("%q", u.log)
	}
}

func TestEveryRouteLeadsToTheSameContent(t *testing.T) {
	hub, ghcr := newRegistry(t), newRegistry(t)
	content := random(1000)
	hub.blob(content, "library/a")
	d := ghcr.blob(content, "owner/app")
	m := newMirror(t, hub, map[string]*registry{"ghcr.io": ghcr})
	for path, namespace := range map[string]string{
		"/v2/library/a/blobs/":           "docker.io",
		"/v2/a/blobs/":                   "docker.io",
		"/v2/docker.io/a/blobs/":         "docker.io",
		"/docker.io/v2/library/a/blobs/": "docker.io",
		"/v2/ghcr.io/owner/app/blobs/":   "ghcr.io",
		"/ghcr.io/v2/owner/app/blobs/":   "ghcr.io",
	} {
		a := m.get(path + d.String())
		a.expect(t, 200, content)
		if got := a.header.Get("OCI-Namespace"); got != namespace {
			t.Errorf("%s: OCI-Namespace %q", path, got)
		}
	}
	m.get("/v2/owner/app/blobs/"+d.String(), "Host: ghcr.io.mirror.test").expect(t, 200, content)
	m.get("/v2/owner/app/blobs/"+d.String()+"?ns=ghcr.io").expect(t, 200, content)
	if n := hub.count("GET ") + ghcr.count("GET "); n != 1 {
		t.Errorf("%d transfers: %q %q", n, hub.log, ghcr.log)
	}
}

func TestTagsArePaged(t *testing.T) {
	u := newRegistry(t)
	u.lists["library/a/tags/list?n=2"] = list{`</v2/library/a/tags/list?last=b&n=2>; rel="next"`, `{"name":"library/a","tags":["a","b"]}`}
	u.lists["library/a/tags/list?last=b&n=2"] = list{"", `{"name":"library/a","tags":["c"]}`}
	m := newMirror(t, u, nil)
	a := m.get("/v2/a/tags/list?n=2&ns=docker.io")
	a.expect(t, 200, []byte(`{"name":"library/a","tags":["a","b"]}`))
	link := a.header.Get("Link")
	if link != `</v2/a/tags/list?last=b&n=2&ns=docker.io>; rel="next"` {
		t.Fatalf("Link %s", link)
	}
	next := strings.TrimSuffix(strings.TrimPrefix(link, "<"), `>; rel="next"`)
	a = m.get(next)
	a.expect(t, 200, []byte(`{"name":"library/a","tags":["c"]}`))
	if a.header.Get("Link") != "" {
		t.Errorf("the last page leads on to %s", a.header.Get("Link"))
	}
	m.get(next).expectVerdict(t, "hit")
	m.get("/v2/b/tags/list").expectError(t, 404, "NAME_UNKNOWN")
	u.stop()
	m.pass(1e12)
	a = m.get(next)
	a.expect(t, 200, []byte(`{"name":"library/a","tags":["c"]}`))
	if a.header.Get("Warning") == "" {
		t.Error("stale without saying so")
	}
}

func TestReferrers(t *testing.T) {
	u := newRegistry(t)
	d := digest.FromString("subject")
	body := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[` +
		`{"mediaType":"m","digest":"sha256:1","size":1,"artifactType":"sig"},{"mediaType":"m","digest":"sha256:2","size":1,"artifactType":"sbom"}],"annotations":{"x":"y"}}`
	u.lists["library/a/referrers/"+d.String()+"?"] = list{"", body}
	m := newMirror(t, u, nil)
	a := m.get("/v2/a/referrers/" + d.String())
	a.expect(t, 200, []byte(body))
	if got := a.header.Get("Content-Type"); got != ocispec.MediaTypeImageIndex {
		t.Errorf("type %q", got)
	}
	for filter, digests := range map[string]string{"sig": `"sha256:1"`, "sbom": `"sha256:2"`, "none": ""} {
		a := m.get("/v2/a/referrers/" + d.String() + "?artifactType=" + filter)
		if a.header.Get("OCI-Filters-Applied") != "artifactType" || strings.Count(string(a.body), `"digest"`) != min(1, len(digests)) ||
			!strings.Contains(string(a.body), digests) || !strings.Contains(string(a.body), `"manifests":[`) {
			t.Errorf("%s: %s", filter, a.body)
		}
	}
	if n := u.count("GET "); n != 1 {
		t.Errorf("upstream was asked %d times", n)
	}
	// Where upstream has no such API, clients must learn that, to use the tag schema.
	u.fail(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/referrers/") {
			http.Error(w, "404 page not found", 404)
			return true
		}
		return false
	})
	m.get("/v2/b/referrers/"+d.String()).expectError(t, 404, "UNSUPPORTED")
}
