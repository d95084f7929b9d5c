package proxy_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

// Who joins a transfer before upstream has answered it gets by that answer the proof that the blob belongs to the repository.
func TestWhoJoinsAsksForNoProofOfTheSame(t *testing.T) {
	u := newRegistry(t)
	layer := random(1000)
	u.image("library/a", "1", layer)
	m := newMirror(t, u, nil)
	m.get(manifestPath("a", "1"), acceptAll())
	u.forget()
	answer := make(chan struct{})
	u.fail(func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") {
			<-answer
		}
		return false
	})
	var clients sync.WaitGroup
	for range 2 {
		clients.Go(func() { m.get(blobPath("a", digest.FromBytes(layer))).expect(t, 200, layer) })
	}
	for deadline := time.Now().Add(time.Minute); m.cache.Stats().Readers < 2; {
		if time.Now().After(deadline) {
			t.Error("the clients don't share a transfer")
			break
		}
		<-time.After(time.Millisecond)
	}
	close(answer)
	clients.Wait()
	if len(u.log) != 1 {
		t.Errorf("upstream was asked %q", u.log)
	}
}
