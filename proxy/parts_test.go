package proxy_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
)

// counted has upstream count the bytes of bodies of blobs that it sends.
func (u *registry) counted() *atomic.Int64 {
	var sent atomic.Int64
	u.fail(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		u.serve(&cutting{w, 1 << 62, func(n int) { sent.Add(int64(n)) }}, r)
		return true
	})
	return &sent
}

// containerd from 2.1 on asks for open-ended ranges and closes each connection after one chunk.
func TestOpenEndedChunksCostTheBlobOnce(t *testing.T) {
	size, chunk := 256<<20, 8<<20
	if testing.Short() {
		size, chunk = 64<<20, 4<<20
	}
	content := random(size)
	u := newRegistry(t)
	d := u.blob(content, "library/a")
	sent := u.counted()
	m := newMirror(t, u, nil)
	chunks := make(chan int, size/chunk)
	for from := 0; from < size; from += chunk {
		chunks <- from
	}
	close(chunks)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for from := range chunks {
				ctx, leave := context.WithCancel(t.Context())
				res := m.open(ctx, "GET", blobPath("a", d), fmt.Sprintf("Range: bytes=%d-", from))
				if want := fmt.Sprintf("bytes %d-%d/%d", from, size-1, size); res.StatusCode != 206 || res.Header.Get("Content-Range") != want {
					t.Errorf("%d %s, want 206 %s", res.StatusCode, res.Header.Get("Content-Range"), want)
				}
				if err := same(res.Body, content[from:from+chunk]); err != nil {
					t.Errorf("chunk at %d: %v", from, err)
				}
				leave()
				res.Body.Close()
			}
		})
	}
	wg.Wait()
	m.settled()
	t.Logf("upstream sent %.3f of the size in %d GETs", float64(sent.Load())/float64(size), u.count("GET "))
	if limit := int64(size) * 105 / 100; sent.Load() > limit {
		t.Errorf("upstream sent %d bytes of %d", sent.Load(), size)
	}
	a := m.get(blobPath("a", d))
	a.expect(t, 200, content)
	a.expectVerdict(t, "hit")
}

func TestSmallRangeOfColdBlobCostsWhatItAsksFor(t *testing.T) {
	size := 1 << 30
	if testing.Short() {
		size = 64 << 20
	}
	content := make([]byte, size) // pages that nobody touches cost nothing
	copy(content[size/2:], random(1<<20))
	u := newRegistry(t)
	d := digest.FromString("never verified, for nobody asks for the whole")
	u.blobs["library/a@"+d.String()] = content
	sent := u.counted()
	m := newMirror(t, u, nil)
	for range 2 {
		from := size / 2
		m.get(blobPath("a", d), fmt.Sprintf("Range: bytes=%d-%d", from, from+65535)).expect(t, 206, content[from:from+65536])
		m.get(blobPath("a", d), "Range: bytes=-50000").expect(t, 206, content[size-50000:])
		m.settled()
		m.restart() // what was fetched is there after a restart, too
	}
	if got := sent.Load(); got != 65536+50000 {
		t.Errorf("upstream sent %d bytes", got)
	}
}

func TestRandomRangesOfColdBlob(t *testing.T) {
	const size = 32 << 20
	content := random(size)
	u := newRegistry(t)
	d := u.blob(content, "library/a")
	sent := u.counted()
	m := newMirror(t, u, nil)
	var wg sync.WaitGroup
	for worker := range uint64(4) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(worker, 7))
			for range 50 {
				from := rng.IntN(size - 1<<18)
				to := from + 1 + rng.IntN(1<<18)
				m.get(blobPath("a", d), fmt.Sprintf("Range: bytes=%d-%d", from, to-1)).expect(t, 206, content[from:to])
			}
		})
	}
	wg.Wait()
	m.settled()
	if limit := int64(size) * 105 / 100; sent.Load() > limit {
		t.Errorf("upstream sent %d bytes of %d", sent.Load(), size)
	}
	m.get(blobPath("a", d)).expect(t, 200, content)
}

func TestWholeTakesUpWhatRangesBrought(t *testing.T) {
	content := random(32 << 20)
	u := newRegistry(t)
	d := u.blob(content, "library/a")
	sent := u.counted()
	m := newMirror(t, u, nil)
	m.get(blobPath("a", d), "Range: bytes=10000000-14999999").expect(t, 206, content[10000000:15000000])
	m.settled()
	m.restart()
	m.get(blobPath("a", d)).expect(t, 200, content)
	m.settled()
	m.get(blobPath("a", d)).expectVerdict(t, "hit")
	if limit := int64(len(content)) * 105 / 100; sent.Load() > limit {
		t.Errorf("upstream sent %d bytes of %d", sent.Load(), len(content))
	}
}

// A client that resumes what it has all of asks for what is beyond the end.
func TestRangeBeyondTheEndOfColdBlob(t *testing.T) {
	content := random(4 << 20)
	d := digest.FromBytes(content)
	u := newRegistry(t)
	u.image("library/a", "1", content)
	m := newMirror(t, u, nil)
	m.get(manifestPath("a", "1"), acceptAll())
	for range 2 {
		a := m.get(blobPath("a", d), fmt.Sprintf("Range: bytes=%d-", len(content)))
		a.expectError(t, 416, "SIZE_INVALID")
		if got := a.header.Get("Content-Range"); got != fmt.Sprintf("bytes */%d", len(content)) {
			t.Errorf("Content-Range %q", got)
		}
		m.settled()
	}
}
