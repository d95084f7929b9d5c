package cache

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"
)

// TestServedFromTheFirstMoment opens a cache of which nothing has been counted yet, lets it be used, and counts then.
func TestServedFromTheFirstMoment(t *testing.T) {
	kept, damaged := []byte("kept before the restart"), []byte("damaged before the restart")
	fresh := bytes.Repeat([]byte("fresh..."), 1024)
	repo := Repository{Registry: "docker.io", Name: "library/a"}
	done := make(chan error, 1)
	opts := Options{DataDir: t.TempDir(), MaxSize: 1 << 20, FillDone: func(_ int, err error) { done <- err }}
	pull := func(c *Cache, up *blobs, want []byte) Outcome {
		t.Helper()
		b, err := c.Blob(t.Context(), repo, digest.FromBytes(want), Whole)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if got, err := io.ReadAll(b.Content); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%.20q, %v", got, err)
		}
		if b.Verdict.Outcome == Miss { // its last byte comes before its name
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		return b.Verdict.Outcome
	}
	reopen := func(content []byte) (*Cache, *blobs) {
		t.Helper()
		up := &blobs{content: content}
		opts.Upstreams = map[string]Upstream{"docker.io": up}
		c, err := open(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		return c, up
	}
	for _, content := range [][]byte{kept, damaged} {
		c, up := reopen(content)
		pull(c, up, content)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	d := digest.FromBytes(damaged)
	if err := os.Truncate(filepath.Join(opts.DataDir, "blobs", "sha256", d.Encoded()[:2], d.Encoded()), 3); err != nil {
		t.Fatal(err)
	}

	c, up := reopen(damaged)
	if got := pull(c, up, kept); got != Hit {
		t.Errorf("what is kept is served as %v", got)
	}
	if got := pull(c, up, damaged); got != Miss {
		t.Errorf("what is damaged is served as %v", got)
	}
	if got := pull(c, up, damaged); got != Hit {
		t.Errorf("what was damaged and fetched again is served as %v", got)
	}
	up.content = fresh
	if got := pull(c, up, fresh); got != Miss {
		t.Errorf("what is new is served as %v", got)
	}
	if used := c.Stats().Bytes; used > opts.MaxSize {
		t.Errorf("%d bytes are used", used)
	}
	c.keeper.Census(t.Context())
	if used, files := c.keeper.Stats().Bytes, count(t, opts.DataDir); used != 4096*int64(files+1) { // fresh takes two
		t.Errorf("%d bytes are used by %d files", used, files)
	}
	if got := pull(c, up, fresh); got != Hit {
		t.Errorf("what is new is served as %v", got)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestCloseEndsTheCensus(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	opts := Options{DataDir: t.TempDir()}
	for i := range 300 {
		d := digest.FromString(strings.Repeat("x", i))
		path := filepath.Join(opts.DataDir, "blobs", "sha256", d.Encoded()[:2], d.Encoded())
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.Repeat("x", i)), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 {
		c, err := Open(t.Context(), opts)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// count is how many files are kept.
func count(t *testing.T, dir string) int {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(dir, "blobs", "*", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(found)
}
