package upstream

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"

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
	var n float64
	for range 5 { // servers of earlier tests may still be at their last allocations
		if n = testing.AllocsPerRun(1, func() {
			if err := listed("tags/list", body); err != nil {
				t.Error(err)
			}
		}); n <= 100 {
			return
		}
	}
	t.Errorf("%v allocations", n)
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
