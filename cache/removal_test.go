package cache

import (
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/fill"
)

// evict evicts what is to go first; ok is false if nothing is known.
func (r *reader) evict() (ok bool) {
	victim, ok := r.recency.takeVictim()
	if ok {
		r.memory.drop(victim.Digest)
		if err := r.disk.Remove(victim.Digest, victim.Size); err != nil {
			r.t.Error(err)
		}
	}
	return ok
}

// expectEmpty evicts all that is known. What is counted is nothing then: less, and so much more than the limit would fit.
func (r *reader) expectEmpty() {
	r.t.Helper()
	for r.evict() {
	}
	if used := r.disk.Used(); used != 0 {
		r.t.Fatalf("nothing is kept, and %d bytes are counted", used)
	}
}

// TestContentIsUncountedOnce has a fill end with content that was put meanwhile, and evicted before the fill says so.
func TestContentIsUncountedOnce(t *testing.T) {
	r := newReader(t, newShelf(), Options{})
	body := make([]byte, 4096)
	d := digest.FromBytes(body)
	f, err := r.create(d, int64(len(body)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(body, 0); err != nil {
		t.Fatal(err)
	}
	if !r.put(d, body) {
		t.Fatal("not kept")
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	f.Close() // until then its own file goes on taking up room
	if !r.evict() {
		t.Fatal("not known")
	}
	r.fillDone(fill.Report{Digest: d, Size: int64(len(body)), Readers: 1, Source: source{repo: testRepo, d: d}})
	r.expectEmpty()
}

// Whoever comes when, of two that put the same, as two repositories do, and one that evicts it: it is uncounted once.
func TestPuttingMeetsEviction(t *testing.T) {
	r := newReader(t, newShelf(), Options{})
	body := make([]byte, 4096)
	d := digest.FromBytes(body)
	for range 300 {
		var all, puts sync.WaitGroup
		done := make(chan struct{})
		for range 2 {
			puts.Go(func() { r.put(d, body) })
		}
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					r.evict()
				}
			}
		})
		puts.Wait()
		close(done)
		all.Wait()
		r.expectEmpty()
	}
}
