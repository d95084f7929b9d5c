package disk

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/opencontainers/go-digest"
)

// picture is all that a directory holds, and when it was changed.
func picture(t *testing.T, dir string) (lines []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		line := fmt.Sprint(path, info.Mode(), info.ModTime().UnixNano(), info.Size())
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line += fmt.Sprintf(" %x", sha256.Sum256(content))
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func TestLookChangesNothing(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(t.Context(), Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	content := []byte("content")
	d, stray := digest.FromBytes(content), digest.FromString("a directory in its place")
	if err := s.Put(d, content); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, blobPath(stray), "x"), 0o750); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"partial/garbage", "partial/sha256-" + d.Encoded() + stateSuffix} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("garbage"), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	before := picture(t, dir)

	s, err = Open(t.Context(), Options{Dir: dir, Look: true})
	if err != nil {
		t.Fatal(err)
	}
	var found []digest.Digest
	if err := s.Walk(t.Context(), func(entries []Entry) error {
		for _, e := range entries {
			found = append(found, e.Digest)
		}
		return nil
	}); err != nil || !slices.Equal(found, []digest.Digest{d}) {
		t.Errorf("found %v, %v", found, err)
	}
	if strays, err := s.Strays(t.Context()); err != nil || !slices.Equal(strays, []digest.Digest{stray}) {
		t.Errorf("strays %v, %v", strays, err)
	}
	if s.Leftovers() != 2 {
		t.Errorf("%d leftovers", s.Leftovers())
	}
	c, err := s.Blob(d)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if after := picture(t, dir); !slices.Equal(before, after) {
		t.Errorf("looking has changed\n%v\ninto\n%v", before, after)
	}
	nowhere := filepath.Join(dir, "nowhere")
	if _, err := Open(t.Context(), Options{Dir: nowhere, Look: true}); err == nil {
		t.Error("a directory that is not there has been looked at")
	}
	if _, err := os.Stat(nowhere); err == nil {
		t.Error("looking has made a directory")
	}
}
