package proxy_test

import (
	"bytes"
	"io"
	"sync"
	"testing"
)

// TestPromiseBlobThatCannotBeKeptIsSharedToo has eight clients pull a blob larger than the cache at the same time: one
// transfer serves them all, and nothing of it stays on the disk.
func TestPromiseBlobThatCannotBeKeptIsSharedToo(t *testing.T) {
	const limit = 1 << 20
	u := newRegistry(t)
	content := random(32 << 20)
	d := u.blob(content, "library/a")
	release := u.hold(2 << 20)
	m := newMirror(t, u, nil, withMaxSize(limit))

	var all sync.WaitGroup
	started := make(chan struct{}, 8)
	for range 8 {
		all.Go(func() {
			res := m.open(t.Context(), "GET", blobPath("a", d))
			defer res.Body.Close()
			first := make([]byte, 1<<20)
			_, err := io.ReadFull(res.Body, first)
			started <- struct{}{}
			rest, restErr := io.ReadAll(res.Body)
			if err != nil || restErr != nil || !bytes.Equal(append(first, rest...), content) {
				t.Errorf("%d bytes, %v, %v", len(first)+len(rest), err, restErr)
			}
		})
	}
	for range 8 {
		<-started
		if used := m.cache.Stats().Bytes; used > limit {
			t.Errorf("%d bytes used", used)
		}
	}
	if n := u.count("GET " + blobPath("library/a", d)); n != 1 {
		t.Errorf("upstream was asked for the blob %d times before it was released", n)
	}
	release()
	all.Wait()
	m.settled()
	if used := m.cache.Stats().Bytes; used > limit {
		t.Errorf("%d bytes used", used)
	}
}
