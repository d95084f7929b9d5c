package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestManifestComesWithItsDescriptor(t *testing.T) {
	w := newWorld(t)
	w.serve("https://registry.test", serveContent)
	r := w.registry(Options{UserAgent: "entrepot/1"}, "https://registry.test")
	d, body, err := r.Manifest(t.Context(), repo, "7", []string{manifestType, "application/json"})
	if err != nil {
		t.Fatal(err)
	}
	want := ocispec.Descriptor{MediaType: manifestType, Size: int64(len(content)), Digest: contentDigest}
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error(diff)
	}
	if string(body) != string(content) {
		t.Errorf("body %q", body)
	}
	asked := []heard{{"GET", "https://registry.test/v2/library/redis/manifests/7", http.Header{
		"Accept":          {manifestType + ", application/json"},
		"Accept-Encoding": {"identity"},
		"User-Agent":      {"entrepot/1"},
	}}}
	if diff := cmp.Diff(asked, w.requests()); diff != "" {
		t.Error(diff)
	}
}

func TestResolveReadsTheHeader(t *testing.T) {
	other := digest.FromString("other")
	for _, tt := range []struct {
		name      string
		reference string
		header    map[string]string
		want      ocispec.Descriptor
		err       string
	}{
		{"all stated", "7", map[string]string{"Content-Type": manifestType, "Content-Length": "19", "Docker-Content-Digest": contentDigest.String()},
			ocispec.Descriptor{MediaType: manifestType, Size: 19, Digest: contentDigest}, ""},
		{"type with parameters", "7", map[string]string{"Content-Type": manifestType + "; charset=utf-8", "Content-Length": "19"},
			ocispec.Descriptor{MediaType: manifestType, Size: 19}, ""},
		{"no digest", "7", map[string]string{"Content-Type": manifestType, "Content-Length": "19"},
			ocispec.Descriptor{MediaType: manifestType, Size: 19}, ""},
		{"ill-formed digest", "7", map[string]string{"Content-Type": manifestType, "Content-Length": "19", "Docker-Content-Digest": "sha256:beef"},
			ocispec.Descriptor{MediaType: manifestType, Size: 19}, ""},
		{"no size", "7", map[string]string{"Content-Type": manifestType, "Transfer-Encoding": "chunked"},
			ocispec.Descriptor{MediaType: manifestType, Size: -1}, ""},
		{"another digest for a tag", "7", map[string]string{"Content-Type": manifestType, "Content-Length": "19", "Docker-Content-Digest": other.String()},
			ocispec.Descriptor{MediaType: manifestType, Size: 19, Digest: other}, ""},
		{"another algorithm for a digest", contentDigest.String(),
			map[string]string{"Content-Type": manifestType, "Content-Length": "19", "Docker-Content-Digest": digest.SHA512.FromBytes(content).String()},
			ocispec.Descriptor{MediaType: manifestType, Size: 19}, ""},
		{"the canonical digest for another algorithm", digest.SHA512.FromBytes(content).String(),
			map[string]string{"Content-Type": manifestType, "Content-Length": "19", "Docker-Content-Digest": contentDigest.String()},
			ocispec.Descriptor{MediaType: manifestType, Size: 19}, ""},
		{"sha512 for a tag", "7",
			map[string]string{"Content-Type": manifestType, "Content-Length": "19", "Docker-Content-Digest": digest.SHA512.FromBytes(content).String()},
			ocispec.Descriptor{MediaType: manifestType, Size: 19, Digest: digest.SHA512.FromBytes(content)}, ""},
		{"sha384 for a tag", "7",
			map[string]string{"Content-Type": manifestType, "Content-Length": "19", "Docker-Content-Digest": digest.SHA384.FromBytes(content).String()},
			ocispec.Descriptor{MediaType: manifestType, Size: 19}, ""},
		{"another sha512 for a sha512", digest.SHA512.FromBytes(content).String(),
			map[string]string{"Content-Type": manifestType, "Content-Length": "19", "Docker-Content-Digest": digest.SHA512.FromString("x").String()},
			ocispec.Descriptor{}, "content of digest " + digest.SHA512.FromString("x").String() + " came in its place"},
		{"another digest for a digest", contentDigest.String(),
			map[string]string{"Content-Type": manifestType, "Content-Length": "19", "Docker-Content-Digest": other.String()},
			ocispec.Descriptor{}, "content of digest " + other.String() + " came in its place"},
		{"no type", "7", map[string]string{"Content-Type": "", "Content-Length": "19"}, ocispec.Descriptor{}, "manifest without a media type"},
		{"captive portal", "7", map[string]string{"Content-Type": "text/html; charset=utf-8"}, ocispec.Descriptor{}, "a web page came in its place"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.serve("https://registry.test", func(rw http.ResponseWriter, req *http.Request) {
				for name, value := range tt.header {
					rw.Header().Set(name, value)
				}
				if tt.header["Content-Type"] == "" {
					rw.Header()["Content-Type"] = nil
				}
			})
			got, err := w.registry(Options{}, "https://registry.test").Resolve(t.Context(), repo, tt.reference, nil)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if tt.err == "" {
				if err != nil {
					t.Error(err)
				}
			} else if e := asError(t, err); e.Answered() || !strings.HasSuffix(e.Error(), tt.err) {
				t.Errorf("error %v (answered %t), want %s", e, e.Answered(), tt.err)
			}
			if n := w.count("HEAD "); n != len(w.lines()) {
				t.Errorf("requests %q", w.lines())
			}
		})
	}
}

func TestUnfitManifestIsNoAnswer(t *testing.T) {
	ofType := func(h http.HandlerFunc) http.HandlerFunc {
		return func(rw http.ResponseWriter, req *http.Request) {
			rw.Header().Set("Content-Type", manifestType)
			h(rw, req)
		}
	}
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc
		err    string
	}{
		{"states too large a size", ofType(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", strconv.Itoa(MaxManifest+1))
			rw.WriteHeader(http.StatusOK)
		}), "content of more than 8388608 bytes"},
		{"endless", ofType(func(rw http.ResponseWriter, req *http.Request) {
			for page := make([]byte, 1<<16); ; {
				if _, err := rw.Write(page); err != nil {
					return
				}
			}
		}), "content of more than 8388608 bytes"},
		{"encoded", ofType(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Encoding", "gzip")
			rw.Write(content)
		}), "content is encoded: gzip"},
		{"cut off", ofType(func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set("Content-Length", "100")
			rw.Write(content)
		}), "unexpected EOF"},
		{"empty", ofType(func(rw http.ResponseWriter, _ *http.Request) {}), "manifest without a byte"},
		{"web page", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, "<html>Log in") }, "a web page came in its place"},
		{"no content", ofType(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusNoContent) }), "204 No Content: not a status that answers this"},
		{"not modified", ofType(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusNotModified) }), "304 Not Modified: not a status that answers this"},
		{"redirect to nowhere", func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusFound) }, "302 Found: not a status that answers this"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.serve("http://registry.test", tt.answer)
			_, body, err := w.registry(Options{}, "http://registry.test").Manifest(t.Context(), repo, "7", nil)
			if e := asError(t, err); e.Answered() || body != nil || !strings.HasSuffix(e.Error(), tt.err) {
				t.Errorf("%q, %v (answered %t), want %s", body, e, e.Answered(), tt.err)
			}
		})
	}
}

func TestLargestManifestIsRead(t *testing.T) {
	w := newWorld(t)
	w.serve("http://registry.test", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", manifestType)
		rw.Write(make([]byte, MaxManifest))
	})
	_, body, err := w.registry(Options{}, "http://registry.test").Manifest(t.Context(), repo, "7", nil)
	if err != nil || len(body) != MaxManifest {
		t.Errorf("%d bytes, %v", len(body), err)
	}
}

func TestStatBlob(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header map[string]string
		size   int64
		err    string
	}{
		{"size stated", map[string]string{"Content-Length": "123"}, 123, ""},
		{"an empty blob", map[string]string{"Content-Length": "0"}, 0, ""},
		{"no size", map[string]string{"Transfer-Encoding": "chunked"}, 0, "blob without a size"},
		{"captive portal", map[string]string{"Content-Length": "123", "Content-Type": "text/html"}, 0, "a web page came in its place"},
		{"another blob", map[string]string{"Content-Length": "1", "Docker-Content-Digest": digest.FromString("x").String()}, 0,
			"content of digest " + digest.FromString("x").String() + " came in its place"},
		{"encoded", map[string]string{"Content-Length": "1", "Content-Encoding": "br"}, 0, "content is encoded: br"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.serve("http://registry.test", func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Content-Type", "application/octet-stream")
				for name, value := range tt.header {
					rw.Header().Set(name, value)
				}
			})
			size, err := w.registry(Options{}, "http://registry.test").StatBlob(t.Context(), repo, contentDigest)
			if size != tt.size {
				t.Errorf("size %d, want %d", size, tt.size)
			}
			if tt.err == "" && err != nil {
				t.Error(err)
			}
			if tt.err != "" {
				if e := asError(t, err); e.Answered() || !strings.HasSuffix(e.Error(), tt.err) {
					t.Errorf("error %v, want %s", e, tt.err)
				}
			}
			if want := []string{"HEAD http://registry.test/v2/library/redis/blobs/" + contentDigest.String()}; !cmp.Equal(want, w.lines()) {
				t.Errorf("requests %q", w.lines())
			}
		})
	}
}

// headless answers HEAD with a status and leaves the rest to h.
func headless(code int, h http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, req *http.Request) {
		if req.Method == http.MethodHead {
			status(code)(rw, req)
			return
		}
		h(rw, req)
	}
}

func TestResolveTurnsToGETWhereThereIsNoHEAD(t *testing.T) {
	const url = "http://registry.test/v2/library/redis/manifests/7"
	unsized := func(rw http.ResponseWriter, req *http.Request) {
		rw.Header().Set("Transfer-Encoding", "chunked")
		serveContent(rw, req)
	}
	whole := ocispec.Descriptor{MediaType: manifestType, Size: int64(len(content)), Digest: contentDigest}
	for _, tt := range []struct {
		name     string
		head     int
		get      http.HandlerFunc
		want     ocispec.Descriptor
		err      string
		answered bool
		requests []string
	}{
		{"not allowed", 405, serveContent, whole, "", false, []string{"HEAD " + url, "GET " + url}},
		{"not implemented", 501, serveContent, whole, "", false, []string{"HEAD " + url, "GET " + url}},
		{"no size stated", 405, unsized, whole, "", false, []string{"HEAD " + url, "GET " + url}},
		{"no digest stated", 405, answer(200, content, "Content-Type", manifestType),
			ocispec.Descriptor{MediaType: manifestType, Size: int64(len(content))}, "", false, []string{"HEAD " + url, "GET " + url}},
		{"GET finds nothing", 405, status(404), ocispec.Descriptor{}, "GET manifest library/redis:7: 404", true, []string{"HEAD " + url, "GET " + url}},
		{"GET is not allowed either", 405, status(405), ocispec.Descriptor{}, "GET manifest library/redis:7: 405", false, []string{"HEAD " + url, "GET " + url}},
		{"GET brings too much", 405, answer(200, make([]byte, MaxManifest+1), "Content-Type", manifestType), ocispec.Descriptor{},
			"content of more than 8388608 bytes", false, []string{"HEAD " + url, "GET " + url}},
		{"a bad request", 400, serveContent, ocispec.Descriptor{}, "HEAD manifest library/redis:7: 400", false, []string{"HEAD " + url}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.serve("http://registry.test", headless(tt.head, tt.get))
			got, err := w.registry(Options{}, "http://registry.test").Resolve(t.Context(), repo, "7", nil)
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if tt.err == "" && err != nil {
				t.Error(err)
			}
			if tt.err != "" {
				if e := asError(t, err); e.Answered() != tt.answered || !strings.Contains(e.Error(), tt.err) {
					t.Errorf("%v (answered %t), want %s", e, e.Answered(), tt.err)
				}
			}
			if diff := cmp.Diff(tt.requests, w.lines()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestStatBlobTurnsToGETWhereThereIsNoHEAD(t *testing.T) {
	for _, tt := range []struct {
		name string
		get  http.HandlerFunc
		size int64
		err  string
	}{
		{"a range", serveLayer, int64(len(layer)), ""},
		{"the range is ignored", answer(200, layer, "Content-Length", "262144"), int64(len(layer)), ""},
		{"behind a redirect", redirect("http://cdn.test/"), int64(len(layer)), ""},
		{"no size", answer(200, layer, "Transfer-Encoding", "chunked"), 0, "blob without a size"},
		{"a range of unknown size", answer(206, layer[:1], "Content-Range", "bytes 0-0/*"), 0, "blob without a size"},
		{"another range", answer(206, layer[:1], "Content-Range", "bytes 1-1/8"), 0, "part of a blob from 1 on, not from 0"},
		{"nothing there", status(404), 0, "404 Not Found"},
	} {
		for _, head := range []int{405, 501} {
			t.Run(fmt.Sprint(tt.name, "/", head), func(t *testing.T) {
				w := newWorld(t)
				w.serve("http://registry.test", headless(head, tt.get))
				w.serve("http://cdn.test", serveLayer)
				size, err := w.registry(Options{}, "http://registry.test").StatBlob(t.Context(), repo, layerDigest)
				if size != tt.size {
					t.Errorf("size %d, want %d", size, tt.size)
				}
				if tt.err == "" && err != nil {
					t.Error(err)
				}
				if tt.err != "" {
					if e := asError(t, err); e.Answered() != (e.Status == 404) || !strings.Contains(e.Error(), tt.err) {
						t.Errorf("%v (answered %t), want %s", e, e.Answered(), tt.err)
					}
				}
				if asked := w.requests(); len(asked) < 2 || asked[1].Method != "GET" || asked[1].Header.Get("Range") != "bytes=0-0" {
					t.Errorf("requests %v", asked)
				}
			})
		}
	}
}

func TestTokenServerWithoutTheMethodIsAskedOnce(t *testing.T) {
	w := newWorld(t)
	g := &gate{t: t, realm: "https://auth.test/token", service: "registry"}
	w.serve("https://registry.test", g.guard(serveContent))
	w.serve("https://auth.test", status(405))
	if e := asError(t, resolve(t, w.registry(Options{}, "https://registry.test"), repo)); e.Status != 405 || e.Answered() {
		t.Error(e)
	}
	if len(w.lines()) != 2 {
		t.Errorf("requests %q", w.lines())
	}
}

func TestListMustHoldWhatWasAskedFor(t *testing.T) {
	referrers := "referrers/" + contentDigest.String()
	for _, tt := range []struct{ name, resource, body, err string }{
		{"tags", "tags/list", ` {"name":"a", "tags" : ["7","8"]} `, ""},
		{"no tag", "tags/list", `{"name":"a","tags":[]}`, ""},
		{"null for tags", "tags/list", `{"name":"a","tags":null}`, ""},
		{"referrers", referrers, `{"schemaVersion":2,"manifests":[{"digest":"x"}]}`, ""},

		{"tags that are missing", "tags/list", `{"name":"a","manifests":[]}`, "list of tags without tags"},
		{"an error in its place", "tags/list", `{"errors":[{"code":"UNKNOWN"}]}`, "list of tags without tags"},
		{"a text for tags", "tags/list", `{"tags":"7"}`, "list of tags without tags"},
		{"an object for tags", "tags/list", `{"tags":{"7":1}}`, "list of tags without tags"},
		{"tags further down", "tags/list", `{"list":{"tags":[]}}`, "list of tags without tags"},
		{"referrers that are missing", referrers, `{"schemaVersion":2}`, "list of referrers without manifests"},
		{"null for referrers", referrers, `{"manifests":null}`, "list of referrers without manifests"},
		{"a list", "tags/list", `["7"]`, "list that is not a JSON object"},
		{"null", "tags/list", ` null`, "list that is not a JSON object"},
		{"a text", referrers, `"manifests"`, "list that is not a JSON object"},
		{"cut off", "tags/list", `{"tags":["7"`, "list that is not a JSON object"},
		{"followed by more", "tags/list", `{"tags":[]}{}`, "list that is not a JSON object"},
		{"no JSON", "tags/list", `ok`, "list that is not a JSON object"},
		{"nothing", "tags/list", ``, "list that is not a JSON object"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.serve("http://registry.test", answer(200, []byte(tt.body), "Content-Type", "application/json"))
			header, body, err := w.registry(Options{}, "http://registry.test").List(t.Context(), repo, tt.resource, nil)
			if tt.err == "" {
				if err != nil || string(body) != tt.body {
					t.Errorf("%q, %v", body, err)
				}
			} else if e := asError(t, err); e.Answered() || header != nil || body != nil || !strings.HasSuffix(e.Error(), tt.err) {
				t.Errorf("%v, %q, %v (answered %t); want %s", header, body, e, e.Answered(), tt.err)
			}
		})
	}
}

func TestLargestListIsLookedAtWithoutBeingBuilt(t *testing.T) {
	body := []byte(`{"tags":[` + strings.Repeat(`"",`, MaxManifest/3-10) + `""]}`)
	if n := testing.AllocsPerRun(1, func() {
		if err := listed("tags/list", body); err != nil {
			t.Error(err)
		}
	}); n > 100 {
		t.Errorf("%v allocations", n)
	}
}

func TestListReturnsBodyAndItsHeaders(t *testing.T) {
	w := newWorld(t)
	w.serve("https://one.test", func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/json")
		rw.Header().Set("Link", `</v2/library/redis/tags/list?last=7>; rel="next"`)
		rw.Header().Set("OCI-Filters-Applied", "artifactType")
		rw.Header().Set("Set-Cookie", "a=b")
		fmt.Fprint(rw, `{"tags":[]}`)
	})
	r := w.registry(Options{}, "https://one.test", "https://two.test")
	header, body, err := r.List(t.Context(), repo, "tags/list", url.Values{"n": {"5"}, "last": {"a&b"}})
	if err != nil {
		t.Fatal(err)
	}
	want := http.Header{}
	want.Set("Content-Type", "application/json")
	want.Set("Link", `</v2/library/redis/tags/list?last=7>; rel="next"`)
	want.Set("OCI-Filters-Applied", "artifactType")
	if diff := cmp.Diff(want, header); diff != "" {
		t.Error(diff)
	}
	if string(body) != `{"tags":[]}` {
		t.Errorf("body %q", body)
	}
	if want := []string{"GET https://one.test/v2/library/redis/tags/list?last=a%26b&n=5"}; !cmp.Equal(want, w.lines()) {
		t.Errorf("requests %q", w.lines())
	}
}

func TestEndpointsAreTriedInTurnForDigestsOnly(t *testing.T) {
	ok := http.HandlerFunc(serveContent)
	for _, tt := range []struct {
		name     string
		byTag    bool
		first    http.HandlerFunc // nil: nobody listens
		second   http.HandlerFunc
		status   int // of the error; 0 and not failed: none
		failed   bool
		requests int
	}{
		{"the first has it", false, ok, ok, 0, false, 1},
		{"the first lacks it", false, status(404), ok, 0, false, 2},
		{"the first is out of order", false, status(503), ok, 0, false, 2},
		{"the first throttles", false, status(429), ok, 0, false, 2},
		{"nobody listens at the first", false, nil, ok, 0, false, 1},
		{"the first refuses", false, status(403), ok, 403, true, 1},
		{"the first cannot be asked like that", false, status(400), ok, 0, false, 2},
		{"the first lacks it, the mirror turns away", false, status(404), status(401), 404, true, 2},
		{"the first is out of order, the mirror turns away", false, status(503), status(401), 503, true, 2},
		{"both lack it", false, status(404), status(404), 404, true, 2},
		{"an outage outweighs a later absence", false, status(503), status(404), 503, true, 2},
		{"an outage outweighs an earlier absence", false, status(404), status(502), 502, true, 2},
		{"silence outweighs a refusal", false, nil, status(403), 0, true, 1},
		{"a tag is what the first says", true, status(404), ok, 404, true, 1},
		{"a tag waits for the first", true, status(503), ok, 503, true, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			if tt.first != nil {
				w.serve("https://one.test", tt.first)
			}
			w.serve("https://two.test", tt.second)
			r := w.registry(Options{}, "https://one.test", "https://two.test")
			reference := contentDigest.String()
			if tt.byTag {
				reference = "7"
			}
			_, body, err := r.Manifest(t.Context(), repo, reference, nil)
			if !tt.failed {
				if err != nil || string(body) != string(content) {
					t.Errorf("%q, %v", body, err)
				}
			} else if e := asError(t, err); e.Status != tt.status {
				t.Errorf("error %v, want status %d", e, tt.status)
			}
			if len(w.lines()) != tt.requests {
				t.Errorf("requests %q, want %d", w.lines(), tt.requests)
			}
		})
	}
}

func TestEveryDigestMethodTurnsToTheNextEndpoint(t *testing.T) {
	w := newWorld(t)
	w.serve("https://one.test", status(404))
	w.serve("https://two.test", serveContent)
	r := w.registry(Options{}, "https://one.test", "https://two.test")
	if _, err := r.Resolve(t.Context(), repo, contentDigest.String(), nil); err != nil {
		t.Error("Resolve:", err)
	}
	if _, err := r.StatBlob(t.Context(), repo, contentDigest); err != nil {
		t.Error("StatBlob:", err)
	}
	body, _, err := r.OpenBlob(t.Context(), repo, contentDigest, 0, -1)
	if err != nil {
		t.Fatal("OpenBlob:", err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); string(got) != string(content) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestEndpointsPathComesBeforeV2(t *testing.T) {
	w := newWorld(t)
	w.serve("https://mirror.test", serveContent)
	r := w.registry(Options{}, "https://mirror.test/docker%2Fhub/")
	if _, err := r.Resolve(t.Context(), repo, "7", nil); err != nil {
		t.Fatal(err)
	}
	if want := []string{"HEAD https://mirror.test/docker%2Fhub/v2/library/redis/manifests/7"}; !cmp.Equal(want, w.lines()) {
		t.Errorf("requests %q", w.lines())
	}
}

func TestNamesThatLeadElsewhereAreNotSent(t *testing.T) {
	w := newWorld(t)
	w.serve("https://registry.test", serveContent)
	r := w.registry(Options{}, "https://registry.test")
	for _, name := range []string{"", "../admin", "a/../../b", "a//b", "a/.", "/a", "a/", "a?b", "a#b", "a%2e", `a\b`, "a b", "a\nb", "é"} {
		_, errRepository := r.Resolve(t.Context(), name, "7", nil)
		_, _, errResource := r.List(t.Context(), repo, name, nil)
		for _, err := range []error{errRepository, errResource} {
			if e := asError(t, err); e.Answered() || !strings.HasSuffix(e.Error(), "not a name that can be asked for") {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
	if len(w.lines()) > 0 {
		t.Errorf("sent %q", w.lines())
	}
}

func TestSmallRequestsAreBoundedAsAWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			rw.Header().Set("Content-Type", manifestType)
			for ctx := req.Context(); ctx.Err() == nil; { // a byte a second, for ever
				fmt.Fprint(rw, " ")
				http.NewResponseController(rw).Flush()
				pause(ctx, time.Second)
			}
		})
		start := time.Now()
		_, _, err := w.registry(Options{}, "http://registry.test").Manifest(t.Context(), repo, "7", nil)
		if e := asError(t, err); !errors.Is(e, errSlow) || e.Answered() || time.Since(start) != smallTimeout {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestSilentEndpointIsLeftForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://one.test", silent)
		w.serve("http://two.test", serveContent)
		r := w.registry(Options{HeaderTimeout: 3 * time.Second}, "http://one.test", "http://two.test")
		start := time.Now()
		if _, err := r.Resolve(t.Context(), repo, contentDigest.String(), nil); err != nil || time.Since(start) != 3*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestCallerWhoLeavesIsToldWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://one.test", silent)
		w.serve("http://two.test", serveContent)
		r := w.registry(Options{}, "http://one.test", "http://two.test")
		why := errors.New("no time left")
		for name, ask := range map[string]func(context.Context) error{
			"manifest": func(ctx context.Context) error {
				_, err := r.Resolve(ctx, repo, contentDigest.String(), nil)
				return err
			},
			"blob": func(ctx context.Context) error {
				_, _, err := r.OpenBlob(ctx, repo, contentDigest, 0, -1)
				return err
			},
		} {
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, why)
			if err := ask(ctx); !errors.Is(err, why) || asError(t, err).Answered() {
				t.Errorf("%s: %v", name, err)
			}
			cancel()
		}
		if n := w.count("two.test"); n != 0 {
			t.Errorf("%d requests to the next endpoint for a caller who has left", n)
		}
	})
}

// pause waits, but not longer than ctx.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
