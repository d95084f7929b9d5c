package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// A client of several ranges that leaves has them read by a goroutine that outlives its handler by a moment.
func TestClientOfSeveralRangesLeavesBeforeTheyLand(t *testing.T) {
	content := random(1 << 20)
	for name, size := range map[string]int64{"past the cache": 1 << 19, "through a fill": 1 << 30} {
		t.Run(name, func(t *testing.T) {
			u := newRegistry(t)
			d := u.blob(content, "library/a")
			m := newMirror(t, u, nil, withMaxSize(size))
			release := u.hold(100_000)
			ctx, leave := context.WithCancel(t.Context())
			res := m.open(ctx, "GET", blobPath("a", d), "Range: bytes=0-9,500000-500009")
			var got bytes.Buffer
			for !bytes.Contains(got.Bytes(), content[:10]) { // the first part is here, the second is waited for
				if _, err := io.CopyN(&got, res.Body, 1); err != nil {
					t.Fatal(err)
				}
			}
			leave()
			res.Body.Close()
			m.logged(1) // the handler is done
			release()
			u.fail(nil)
			m.get(blobPath("a", d), "Range: bytes=0-9").expect(t, 206, content[:10])
		})
	}
}

func TestCacheStatusOfErrorsIsTrue(t *testing.T) {
	u := newRegistry(t)
	content := random(1000)
	d := u.blob(content, "library/a")
	u.image("library/a", "1")
	m := newMirror(t, u, nil)
	expect := func(status int, want, path string, headers ...string) {
		t.Helper()
		a := m.get(path, headers...)
		if got := a.header.Get("Cache-Status"); a.status != status || got != want {
			t.Errorf("%s: %d %q, want %d %q", path, a.status, got, status, want)
		}
	}
	etag := `"` + d.String() + `"`
	expect(416, "entrepot; fwd=miss; stored", blobPath("a", d), "Range: bytes=1000-")
	m.get(blobPath("a", d)).expect(t, 200, content)
	m.settled()
	expect(416, "entrepot; hit", blobPath("a", d), "Range: bytes=1000-")
	expect(304, "entrepot; hit", blobPath("a", d), "If-None-Match: "+etag)
	expect(412, "entrepot; hit", blobPath("a", d), `If-Match: "other"`)
	expect(400, "entrepot; detail=local", "/v2/a/blobs/sha256:x")
	expect(404, "entrepot; fwd=miss; fwd-status=404", manifestPath("a", "none"))
	for upstream, status := range map[int]int{401: 401, 500: 502} {
		u.fail(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(upstream); return true })
		expect(status, "entrepot; fwd=miss; fwd-status="+fmt.Sprint(upstream), manifestPath("b", "1"), acceptAll())
		m.pass(time.Hour)
	}
	other := m
	m = newMirror(t, u, nil) // for a 429 is remembered
	u.fail(func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(429); return true })
	for range 2 {
		expect(503, "entrepot; fwd=miss; fwd-status=429", manifestPath("b", "1"), acceptAll())
	}
	m = other
	u.stop()
	m.pass(time.Hour)
	expect(503, "entrepot; fwd=miss", manifestPath("b", "1"), acceptAll())
}

func TestBlobThatUpstreamGivesAnotherDigestIsNotServed(t *testing.T) {
	u := newRegistry(t)
	content := random(1000)
	d := u.blob(content, "library/a")
	m := newMirror(t, u, nil)
	u.fail(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Docker-Content-Digest", digest.FromString("other").String())
		return false
	})
	if a := m.get(blobPath("a", d)); a.status < 500 || !strings.HasPrefix(a.header.Get("Cache-Status"), "entrepot; fwd=miss") {
		t.Errorf("%d %v", a.status, a.header)
	}
	u.fail(nil)
	m.get(blobPath("a", d)).expect(t, 200, content)
}
