package index

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
)

func TestWhatIsPublicIsRemembered(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "index")
	x := openIndex(t, dir)
	at := time.Unix(1_700_000_000, 0)
	if err := x.SetPublic(repo, "content", at); err != nil {
		t.Fatal(err)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	x = openIndex(t, dir)
	if got, ok := x.Public(repo, "content"); !ok || !got.Equal(at) {
		t.Errorf("%v, %v", got, ok)
	}
	for _, of := range []struct {
		repo Repository
		what string
	}{{repo, "tags"}, {other, "content"}, {Repository{"ghcr.io", repo.Name}, "content"}} {
		if _, ok := x.Public(of.repo, of.what); ok {
			t.Errorf("%s of %s is public", of.what, of.repo)
		}
	}
	if err := x.DeletePublic(repo, "content"); err != nil {
		t.Fatal(err)
	}
	if _, ok := x.Public(repo, "content"); ok {
		t.Error("it is still public")
	}
}

func TestWhatWasPublicLongAgoIsForgotten(t *testing.T) {
	x := openIndex(t, filepath.Join(t.TempDir(), "index"))
	now := time.Unix(1_700_000_000, 0)
	for what, checked := range map[string]time.Time{"old": now.Add(-maxPublic), "young": now.Add(time.Second - maxPublic)} {
		if err := x.SetPublic(repo, what, checked); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // the first spares what has come since the one before
		if err := x.Sweep(t.Context(), now, func(digest.Digest) bool { return false }); err != nil {
			t.Fatal(err)
		}
	}
	_, old := x.Public(repo, "old")
	_, young := x.Public(repo, "young")
	if old || !young || x.Stats().Public != 1 {
		t.Errorf("old %v, young %v, %+v", old, young, x.Stats())
	}
}
