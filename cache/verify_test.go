package cache

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/cache/index"
)

// shelved makes a data directory that holds so many blobs, and an index, and returns their digests.
func shelved(t *testing.T, n int) (dir string, all []digest.Digest) {
	t.Helper()
	dir = t.TempDir()
	s, err := disk.Open(t.Context(), disk.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		content := []byte(strings.Repeat(fmt.Sprint(i, " "), 1000))
		d := digest.FromBytes(content)
		if err := s.Put(d, content); err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := index.Repair(index.Options{Dir: filepath.Join(dir, "index")}); err != nil {
		t.Fatal(err)
	}
	return dir, all
}

func fileOf(dir string, d digest.Digest) string {
	return filepath.Join(dir, "blobs", d.Algorithm().String(), d.Encoded()[:2], d.Encoded())
}

// damage does what disks, people and crashes do to a data directory, and returns what is to be found.
func damage(t *testing.T, dir string, all []digest.Digest) []Wrong {
	t.Helper()
	size := func(d digest.Digest) int64 {
		info, err := os.Stat(fileOf(dir, d))
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	flipped, cut, stray := all[0], all[1], all[2]
	content, err := os.ReadFile(fileOf(dir, flipped))
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	wrong := []Wrong{{flipped, size(flipped), DamagedContent}, {cut, size(cut) - 1, DamagedContent}, {stray, 0, DamagedUnreadable}}
	for _, err := range []error{
		os.WriteFile(fileOf(dir, flipped), content, 0o640),
		os.Truncate(fileOf(dir, cut), size(cut)-1),
		os.Remove(fileOf(dir, stray)),
		os.MkdirAll(filepath.Join(fileOf(dir, stray), "x"), 0o750),
		os.WriteFile(filepath.Join(dir, "partial", "garbage"), []byte("garbage"), 0o640),
		os.WriteFile(filepath.Join(dir, "index", "MANIFEST"), []byte("noise"), 0o640),
		os.Chtimes(fileOf(dir, all[3]), time.Time{}, time.Unix(1e9, 0)), // as a restore from a backup leaves it
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	sortWrong(wrong)
	return wrong
}

func sortWrong(wrong []Wrong) {
	slices.SortFunc(wrong, func(a, b Wrong) int { return cmp.Compare(a.Digest, b.Digest) })
}

func TestVerifyFindsAndMends(t *testing.T) {
	const n = 20
	dir, all := shelved(t, n)
	sound, err := Verify(t.Context(), VerifyOptions{DataDir: dir, Check: true})
	if err != nil || !sound.Sound() || sound.Right != n || sound.Adopted != 0 || sound.Index != "" {
		t.Errorf("as it was left: %+v, %v", sound, err)
	}
	wrong := damage(t, dir, all)
	for _, step := range []struct {
		check bool
		wrong []Wrong
	}{{true, wrong}, {false, wrong}, {true, []Wrong{}}} {
		r, err := Verify(t.Context(), VerifyOptions{DataDir: dir, Check: step.check})
		if err != nil {
			t.Fatal(err)
		}
		sortWrong(r.Wrong)
		damaged := len(step.wrong) > 0
		if !slices.Equal(r.Wrong, step.wrong) || r.Right != n-len(wrong) || r.Sound() == damaged {
			t.Errorf("check %t: %+v, want %v", step.check, r, step.wrong)
		}
		if (r.Leftovers == 1) != damaged || (r.Index != "") != damaged || (r.Adopted == 1) != damaged {
			t.Errorf("check %t: %d leftovers, index %q, %d adopted", step.check, r.Leftovers, r.Index, r.Adopted)
		}
		if r.Blobs != r.AllBlobs || r.Bytes != r.AllBytes {
			t.Errorf("check %t: read %d of %d, %d bytes of %d", step.check, r.Blobs, r.AllBlobs, r.Bytes, r.AllBytes)
		}
	}
	for _, w := range wrong {
		if _, err := os.Lstat(fileOf(dir, w.Digest)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", w.Digest, err)
		}
	}
}

func TestVerifyFindsAnIndexElsewhere(t *testing.T) {
	dir, _ := shelved(t, 1)
	elsewhere := filepath.Join(t.TempDir(), "records")
	if r, err := Verify(t.Context(), VerifyOptions{DataDir: dir, IndexDir: elsewhere}); err != nil || r.Index != index.Missing || !r.Sound() {
		t.Errorf("%+v, %v", r, err)
	}
	if r, err := Verify(t.Context(), VerifyOptions{DataDir: dir, IndexDir: elsewhere, Check: true}); err != nil || r.Index != "" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestVerifyEndsWhenItsContextDoes(t *testing.T) {
	const n = 100
	dir, _ := shelved(t, n)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var mu sync.Mutex
	var last, total int64
	r, err := Verify(ctx, VerifyOptions{DataDir: dir, Progress: func(done, of int64) {
		mu.Lock()
		defer mu.Unlock()
		if last, total = max(last, done), of; done > of/2 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || r.AllBlobs != n || r.Blobs == 0 || r.Blobs == n || len(r.Wrong) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if total != r.AllBytes || last < r.Bytes {
		t.Errorf("told of %d of %d bytes, read %d of %d", last, total, r.Bytes, r.AllBytes)
	}
	if r, err := Verify(t.Context(), VerifyOptions{DataDir: dir}); err != nil || r.Right != n {
		t.Errorf("once more: %+v, %v", r, err)
	}
}

func TestVerifyWantsTheDirectoryForItself(t *testing.T) {
	dir, _ := shelved(t, 1)
	s, err := disk.Open(t.Context(), disk.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // waits for nobody
	if _, err := Verify(ctx, VerifyOptions{DataDir: dir}); !errors.Is(err, ErrLocked) {
		t.Errorf("verified under a process that has it open: %v", err)
	}
	if _, err := Survey(ctx, dir, ""); !errors.Is(err, ErrLocked) {
		t.Errorf("surveyed under a process that has it open: %v", err)
	}
}

func TestSurveyCountsWhatThereIs(t *testing.T) {
	begun := time.Now().Truncate(time.Second)
	dir, all := shelved(t, 10)
	var size int64
	for _, d := range all {
		info, err := os.Stat(fileOf(dir, d))
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	s, err := Survey(t.Context(), dir, "")
	if err != nil || s.Content != 10 || s.Index == 0 || s.Free == 0 || s.Bytes < size+s.Index || s.Bytes > size+s.Index+1<<20 {
		t.Errorf("%+v, %v; %d bytes of content", s, err, size)
	}
	if s.Oldest.Before(begun) || s.Oldest.After(time.Now()) {
		t.Errorf("verified at %v, begun at %v", s.Oldest, begun)
	}
	if err := os.Chtimes(fileOf(dir, all[5]), time.Time{}, time.Unix(1e9, 0)); err != nil {
		t.Fatal(err)
	}
	if s, err := Survey(t.Context(), dir, ""); err != nil || !s.Oldest.IsZero() {
		t.Errorf("one is not known to be verified: %v, %v", s.Oldest, err)
	}
}
