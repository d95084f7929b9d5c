package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// The tests of this file are named after the promises of the README.

func TestPromiseOneLayerOneTransfer(t *testing.T) {
	size := 256 << 20
	if testing.Short() {
		size = 16 << 20
	}
	content, half := random(size), size/2
	u := newRegistry(t)
	d := u.blob(content, "library/a", "library/b")
	m := newMirror(t, u, nil)
	release := u.hold(int64(half))
	leader := m.open(t.Context(), "GET", blobPath("a", d))
	defer leader.Body.Close()
	if err := same(leader.Body, content[:half]); err != nil {
		t.Fatal(err)
	}

	type reader struct {
		method, name, byteRange string
		from, to                int // of content
	}
	var readers []reader
	for i := range 16 {
		name := []string{"a", "b"}[i%2]
		readers = append(readers,
			reader{"GET", name, "", 0, size},
			reader{"GET", name, fmt.Sprintf("bytes=%d-", half-100-i), half - 100 - i, size},
			reader{"GET", name, fmt.Sprintf("bytes=%d-%d", half-50-i, half+i), half - 50 - i, half + i + 1},
		)
		if i%4 == 0 {
			readers = append(readers, reader{"HEAD", name, "", 0, 0})
		} else {
			readers = append(readers, reader{"GET", name, fmt.Sprintf("bytes=%d-%d", half+1000*i, half+2000*i), half + 1000*i, half + 2000*i + 1})
		}
	}
	if len(readers) != 64 {
		t.Fatalf("%d readers", len(readers))
	}
	var landed, done sync.WaitGroup
	landed.Add(len(readers))
	for _, r := range readers {
		done.Go(func() {
			var headers []string
			if r.byteRange != "" {
				headers = []string{"Range: " + r.byteRange}
			}
			res := m.open(t.Context(), r.method, blobPath(r.name, d), headers...)
			defer res.Body.Close()
			want := content[r.from:r.to]
			if r.method == "GET" && res.ContentLength != int64(len(want)) || r.method == "HEAD" && res.ContentLength != int64(size) {
				t.Errorf("%+v: promises %d bytes", r, res.ContentLength)
			}
			// Whatever has landed is there while upstream holds the rest back.
			before := max(0, min(half, r.to)-r.from)
			if err := same(res.Body, want[:before]); err != nil {
				t.Errorf("%+v: before the release: %v", r, err)
			}
			landed.Done()
			if err := same(res.Body, want[before:]); err != nil {
				t.Errorf("%+v: after the release: %v", r, err)
			}
		})
	}
	landed.Wait()
	release()
	done.Wait()
	if err := same(leader.Body, content[half:]); err != nil {
		t.Error(err)
	}
	if n := u.count("GET /v2/"); n != 1 {
		t.Errorf("upstream saw %d GETs, want 1: %q", n, u.log)
	}
}

// same reads as many bytes as want has and compares them.
func same(r io.Reader, want []byte) error {
	buf := make([]byte, 1<<20)
	for len(want) > 0 {
		n, err := io.ReadFull(r, buf[:min(len(buf), len(want))])
		if !bytes.Equal(buf[:n], want[:n]) {
			return fmt.Errorf("wrong bytes, %d before the end", len(want))
		}
		if err != nil {
			return fmt.Errorf("%d bytes before the end: %w", len(want)-n, err)
		}
		want = want[n:]
	}
	return nil
}

func TestPromiseLastByteOnlyIfRight(t *testing.T) {
	content := random(1 << 20)
	wrong := bytes.Clone(content)
	wrong[len(wrong)/2] ^= 1
	for name, fault := range map[string]func(w http.ResponseWriter, r *http.Request){
		"wrong bytes": func(w http.ResponseWriter, r *http.Request) { w.Write(wrong) },
		"short body": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			w.Write(content[:len(content)/3])
			panic(http.ErrAbortHandler)
		},
		"shorter than the manifest says": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "1000")
			w.Write(content[:1000])
		},
		"a web page": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<html>Please log in to the hotel's network</html>")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			u := newRegistry(t)
			u.image("library/a", "1", content)
			d := digest.FromBytes(content)
			m := newMirror(t, u, nil)
			m.get(manifestPath("a", "1"), acceptAll())
			u.fail(func(w http.ResponseWriter, r *http.Request) bool {
				if r.Method == "GET" && strings.Contains(r.URL.Path, d.String()) {
					fault(w, r)
					return true
				}
				return false
			})
			a := m.get(blobPath("a", d))
			if a.status == 200 && a.err == nil {
				t.Fatalf("a complete body of %d bytes, right: %v", len(a.body), bytes.Equal(a.body, content))
			}
			m.settled()
			u.fail(nil)
			m.get(blobPath("a", d)).expect(t, 200, content)
		})
	}
}

func TestPromiseNothingFetchedIsLost(t *testing.T) {
	content := random(4 << 20)
	u := newRegistry(t)
	d := u.blob(content, "library/a")
	m := newMirror(t, u, nil)
	release := u.hold(2 << 20)

	ctx, leave := context.WithCancel(t.Context())
	first := m.open(ctx, "GET", blobPath("a", d))
	second := m.open(t.Context(), "GET", blobPath("a", d))
	for _, res := range []*http.Response{first, second} {
		if err := same(res.Body, content[:2<<20]); err != nil {
			t.Fatal(err)
		}
	}
	leave() // the one that began it, half-way
	first.Body.Close()
	second.Body.Close() // and then everybody
	release()
	m.settled()
	u.stop()
	a := m.get(blobPath("a", d))
	a.expect(t, 200, content)
	a.expectVerdict(t, "hit")
	if n := u.count("GET "); n != 1 {
		t.Errorf("upstream saw %d GETs", n)
	}
}

func TestPromiseInterruptedTransferGoesOnFromLastGoodByte(t *testing.T) {
	content := random(64 << 20)
	u := newRegistry(t)
	d := u.blob(content, "library/a")
	m := newMirror(t, u, nil)
	var sent atomic.Int64
	u.fail(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != "GET" {
			return false
		}
		u.serve(&cutting{w, 8 << 20, func(n int) { sent.Add(int64(n)) }}, r)
		return true
	})
	m.get(blobPath("a", d)).expect(t, 200, content)
	if limit := int64(len(content)) * 102 / 100; sent.Load() > limit {
		t.Errorf("upstream sent %d bytes of %d", sent.Load(), len(content))
	}
}

// cutting is a writer that cuts the connection after so many bytes.
type cutting struct {
	http.ResponseWriter
	left int
	sent func(n int)
}

func (c *cutting) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(len(p), c.left)])
	c.left -= n
	c.sent(n)
	if err == nil && n < len(p) {
		http.NewResponseController(c.ResponseWriter).Flush()
		panic(http.ErrAbortHandler)
	}
	return n, err
}

func TestPromisePullNeverFailsBecauseOfTheCache(t *testing.T) {
	content := random(1 << 20)
	t.Run("blob larger than the cache", func(t *testing.T) {
		u := newRegistry(t)
		d := u.blob(content, "library/a")
		m := newMirror(t, u, nil, withMaxSize(1<<19))
		for range 2 {
			a := m.get(blobPath("a", d))
			a.expect(t, 200, content)
			a.expectVerdict(t, "fwd=miss")
			m.get(blobPath("a", d), "Range: bytes=500000-").expect(t, 206, content[500000:])
		}
		if used := m.cache.Stats().Bytes; used > 1<<19 {
			t.Errorf("%d bytes used", used)
		}
	})
	t.Run("wrong bytes that can't be kept", func(t *testing.T) {
		u := newRegistry(t)
		d := u.blob(content, "library/a")
		u.fail(func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == "GET" {
				w.Write(append(bytes.Clone(content[1:]), 'x'))
			}
			return r.Method == "GET"
		})
		m := newMirror(t, u, nil, withMaxSize(1<<19))
		if a := m.get(blobPath("a", d)); a.err == nil {
			t.Errorf("a complete body of %d", a.status)
		}
	})
	t.Run("least recently used goes first", func(t *testing.T) {
		u := newRegistry(t)
		m := newMirror(t, u, nil, withMaxSize(5<<19))
		for i := range 8 {
			b := append(random(1<<20), byte(i))
			d := u.blob(b, "library/a")
			m.get(blobPath("a", d)).expect(t, 200, b)
			m.settled()
			if used := m.cache.Stats().Bytes; used > 5<<19 {
				t.Errorf("%d bytes used", used)
			}
			m.get(blobPath("a", d)).expectVerdict(t, "hit")
		}
	})
	t.Run("directory that can't be written any more", func(t *testing.T) {
		u := newRegistry(t)
		d := u.blob(content, "library/a")
		m := newMirror(t, u, nil)
		partial := m.opts.DataDir + "/partial"
		if err := errors.Join(os.RemoveAll(partial), os.WriteFile(partial, nil, 0o640)); err != nil {
			t.Fatal(err)
		}
		m.get(blobPath("a", d)).expect(t, 200, content)
		if err := os.Remove(partial); err != nil { // and then it can again
			t.Fatal(err)
		}
		m.get(blobPath("a", d)).expect(t, 200, content)
		m.settled()
		m.get(blobPath("a", d)).expectVerdict(t, "hit")
	})
	t.Run("file deleted behind its back", func(t *testing.T) {
		u := newRegistry(t)
		d := u.blob(content, "library/a")
		m := newMirror(t, u, nil)
		m.get(blobPath("a", d)).expect(t, 200, content)
		m.settled()
		if err := os.RemoveAll(m.opts.DataDir + "/blobs/sha256"); err != nil {
			t.Fatal(err)
		}
		m.get(blobPath("a", d)).expect(t, 200, content)
	})
}

func TestPromiseUpstreamDownIsNotPullsDown(t *testing.T) {
	layer := random(1 << 16)
	u := newRegistry(t)
	d := u.image("library/a", "1", layer)
	m := newMirror(t, u, nil)
	pull := func() (tag, byDigest, blob answer) {
		return m.get(manifestPath("a", "1"), acceptAll()), m.get(digestPath("a", d), acceptAll()), m.get(blobPath("a", digest.FromBytes(layer)))
	}
	tag, _, blob := pull()
	manifest := tag.body
	blob.expect(t, 200, layer)
	config := digest.FromString(`{"image":"library/a:1"}`)
	m.get(blobPath("a", config)).expect(t, 200, []byte(`{"image":"library/a:1"}`))
	m.settled()

	u.stop()
	m.restart() // content and what is known of it survive
	m.pass(time.Hour)
	for range 2 { // the first finds out that upstream is down, the second knows
		tag, byDigest, blob := pull()
		tag.expect(t, 200, manifest)
		tag.expectVerdict(t, "hit; ttl=-")
		if !strings.HasPrefix(tag.header.Get("Warning"), "299 ") || tag.header.Get("Age") != "3600" {
			t.Errorf("stale without saying so: %v", tag.header)
		}
		byDigest.expect(t, 200, manifest)
		byDigest.expectVerdict(t, "hit")
		blob.expect(t, 200, layer)
	}
}

func TestPromiseCapIsHard(t *testing.T) {
	u := newRegistry(t)
	const limit = 8 << 20
	m := newMirror(t, u, nil, withMaxSize(limit))
	var wg sync.WaitGroup
	for i := range 40 {
		b := append(random(1<<20), byte(i))
		d := u.blob(b, "library/a")
		wg.Go(func() { m.get(blobPath("a", d)).expect(t, 200, b) })
	}
	sampled := make(chan struct{})
	go func() { wg.Wait(); close(sampled) }()
	for done := false; !done; {
		select {
		case <-sampled:
			done = true
		default:
			if used := m.cache.Stats().Bytes; used > limit {
				t.Fatalf("%d bytes used of %d", used, limit)
			}
		}
	}
}

func TestPromiseSlowClientSlowsNobody(t *testing.T) {
	content := random(64 << 20) // far more than the sockets in between can hold
	u := newRegistry(t)
	d := u.blob(content, "library/a")
	m := newMirror(t, u, nil)
	slow := m.open(t.Context(), "GET", blobPath("a", d)) // the one that begins the transfer
	defer slow.Body.Close()
	if err := same(slow.Body, content[:1000]); err != nil {
		t.Fatal(err)
	}
	m.get(blobPath("a", d)).expect(t, 200, content) // done while the slow one has barely begun
	m.settled()
	if err := same(slow.Body, content[1000:]); err != nil {
		t.Error(err)
	}
	if n := u.count("GET "); n != 1 {
		t.Errorf("upstream saw %d GETs", n)
	}
}

func TestPromiseEverythingIsExplained(t *testing.T) {
	u := newRegistry(t)
	layer := random(1 << 20)
	d := digest.FromBytes(layer)
	u.image("library/a", "1", layer)
	m := newMirror(t, u, nil)
	explained := func(a answer, verdict, status string) {
		t.Helper()
		a.expectVerdict(t, status)
		if got := m.logged(1); got != verdict {
			t.Errorf("logged as %s, want %s", got, verdict)
		}
	}
	explained(m.get(manifestPath("a", "1")), "miss", "fwd=miss; stored; ttl=")
	explained(m.get(blobPath("a", digest.FromString(`{"image":"library/a:1"}`))), "miss", "fwd=miss; stored")
	release := u.hold(1000)
	first := m.open(t.Context(), "GET", blobPath("a", d))
	second := m.open(t.Context(), "GET", blobPath("a", d), "Range: bytes=0-9")
	if got := second.Header.Get("Cache-Status"); got != "entrepot; fwd=miss; collapsed; stored" {
		t.Errorf("follower: %q", got)
	}
	second.Body.Close()
	release()
	if err := same(first.Body, layer); err != nil {
		t.Fatal(err)
	}
	first.Body.Close()
	m.settled()
	m.logged(2)
	explained(m.get(blobPath("a", d)), "hit", "hit")
	explained(m.get(manifestPath("a", "1")), "hit", "hit; ttl=")
	explained(m.get(manifestPath("a", "2")), "refused", "fwd=miss; fwd-status=404")
	explained(m.get(manifestPath("a", ".")), "refused", "detail=local")
	m.pass(time.Hour)
	explained(m.get(manifestPath("a", "1")), "revalidated", "fwd=stale; fwd-status=200; ttl=")
	u.stop()
	m.pass(time.Hour)
	explained(m.get(manifestPath("a", "1")), "stale", "hit; ttl=-")
	explained(m.get(manifestPath("b", "1")), "failed", "fwd=miss")
	for _, line := range []string{
		`entrepot_requests_total{kind="manifest",registry="docker.io",verdict="hit"} 1`,
		`entrepot_requests_total{kind="manifest",registry="docker.io",verdict="stale"} 1`,
		`entrepot_requests_total{kind="manifest",registry="docker.io",verdict="revalidated"} 1`,
		`entrepot_requests_total{kind="manifest",registry="docker.io",verdict="refused"} 2`,
		`entrepot_requests_total{kind="manifest",registry="docker.io",verdict="failed"} 1`,
		`entrepot_requests_total{kind="blob",registry="docker.io",verdict="collapsed"} 1`,
		`entrepot_requests_total{kind="blob",registry="docker.io",verdict="miss"} 2`,
		`entrepot_response_bytes_total{kind="blob",registry="docker.io",verdict="hit"} 1.048576e+06`,
		`entrepot_upstream_bytes_total{kind="blob",registry="docker.io"} 1.048599e+06`,
		`entrepot_fills_total{outcome="kept"} 2`,
		`entrepot_fill_readers_sum 3`,
		`entrepot_fills_in_flight 0`,
	} {
		if !strings.Contains(m.exposition(), line+"\n") {
			t.Errorf("no %s in the metrics", line)
		}
	}
}
