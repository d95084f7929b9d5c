package keeper

import (
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestContentIsUncountedOnce has a transfer end with content that was put meanwhile, and evicted before the transfer says so.
func TestContentIsUncountedOnce(t *testing.T) {
	s := openShop(t, Options{})
	body := make([]byte, 4096)
	d := digest.FromBytes(body)
	p, err := s.Create(d, int64(len(body)), int64(len(body)))
	must(t, err)
	_, err = p.WriteAt(body, 0)
	must(t, err)
	must(t, s.Put(d, body))
	must(t, p.Commit())
	must(t, p.Close())
	if _, ok := s.evict(); !ok {
		t.Fatal("not known")
	}
	empty(t, s)
}

// Whoever comes when, of two that put the same, as two repositories do, and one that evicts it: it is uncounted once.
func TestPuttingMeetsEviction(t *testing.T) {
	s := openShop(t, Options{})
	body := make([]byte, 4096)
	d := digest.FromBytes(body)
	for range 300 {
		var all, puts sync.WaitGroup
		done := make(chan struct{})
		for range 2 {
			puts.Go(func() {
				if err := s.Put(d, body); err != nil {
					t.Error(err)
				}
			})
		}
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
					s.evict()
				}
			}
		})
		puts.Wait()
		close(done)
		all.Wait()
	}
	empty(t, s)
}
