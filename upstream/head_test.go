package upstream

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

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
		{"501 to HEAD", 501, serveContent, whole, "", false, []string{"HEAD " + url, "GET " + url}},
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
