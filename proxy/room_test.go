package proxy_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestPromisePartCostsLittleRoom asks a full cache for a part of a blob that is most of what it may keep, and then for the whole.
func TestPromisePartCostsLittleRoom(t *testing.T) {
	const limit, part = 64 << 20, 64 << 10
	u := newRegistry(t)
	m := newMirror(t, u, nil, withMaxSize(limit))
	for i := range 64 { // more than there is room for
		b := append(random(1<<20), byte(i))
		d := u.blob(b, "library/a")
		m.get(blobPath("a", d)).expect(t, 200, b)
	}
	m.settled()
	before := m.cache.Stats()
	if before.Bytes < limit*3/4 {
		t.Fatalf("%d bytes are kept only", before.Bytes)
	}
	content := random(48 << 20)
	d := u.blob(content, "library/a")
	const from = 20<<20 + 1234
	m.get(blobPath("a", d), fmt.Sprintf("Range: bytes=%d-%d", from, from+part-1)).expect(t, 206, content[from:from+part])
	m.settled()
	if evicted := m.cache.Stats().EvictedBytes - before.EvictedBytes; evicted > 10<<20 {
		t.Errorf("%d bytes were evicted for a part of %d", evicted, part)
	}
	if is := m.cache.Stats(); is.Parked < part || is.Parked > 1<<20 {
		t.Errorf("%d bytes for a part of %d that is kept", is.Parked, part)
	}
	m.get(blobPath("a", d)).expect(t, 200, content)
	m.settled()
	if is := m.cache.Stats(); is.Bytes > limit {
		t.Errorf("%d bytes used of %d", is.Bytes, limit)
	}
	again := m.get(blobPath("a", d))
	again.expect(t, 200, content)
	again.expectVerdict(t, "hit")
}

// TestPartsOfManyLargeBlobsFit has clients read parts of blobs of which not four fit into the cache.
func TestPartsOfManyLargeBlobsFit(t *testing.T) {
	const limit, size, part, blobs = 32 << 20, 8 << 20, 64 << 10, 24
	u := newRegistry(t)
	contents := make(map[digest.Digest][]byte)
	for i := range blobs {
		content := append(random(size-1), byte(i))
		contents[u.blob(content, "library/a")] = content
	}
	sent := u.counted()
	m := newMirror(t, u, nil, withMaxSize(limit))
	pull := func() {
		var all sync.WaitGroup
		for d, content := range contents {
			all.Go(func() {
				for from := 1000; from < size; from += size / 4 {
					m.get(blobPath("a", d), fmt.Sprintf("Range: bytes=%d-%d", from, from+part-1)).expect(t, 206, content[from:from+part])
				}
			})
		}
		done := make(chan struct{})
		go func() { all.Wait(); close(done) }()
		for {
			if used := m.cache.Stats().Bytes; used > limit {
				t.Errorf("%d bytes used of %d", used, limit)
			}
			select {
			case <-done:
				return
			default:
			}
		}
	}
	pull()
	m.settled()
	pull()
	if sent.Load() != blobs*4*part {
		t.Errorf("%d bytes were fetched for %d that were asked for twice", sent.Load(), blobs*4*part)
	}
	if is := m.cache.Stats(); is.EvictedBytes > 0 {
		t.Errorf("%d bytes were evicted", is.EvictedBytes)
	}
}
