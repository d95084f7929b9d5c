package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// kill ends a store as the end of its process does.
func kill(t *testing.T, s *Store) {
	t.Helper()
	if err := s.unlock(); err != nil {
		t.Fatal(err)
	}
}

// truth is how many bytes lie below blobs/, in whole blocks.
func truth(t *testing.T, dir string) (sum int64) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(dir, "blobs"), func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			info, infoErr := e.Info()
			sum, err = sum+blocks(info.Size()), infoErr
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func written(t *testing.T, dir string) (bound int64) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "bound"))
	if err == nil {
		_, err = fmt.Sscan(string(b), &bound)
	}
	if err != nil {
		t.Fatal(err)
	}
	return bound
}

// neighbours are contents of several blocks whose digests fall into few directories.
func neighbours(n int) (contents []string) {
	for i := 0; len(contents) < n; i++ {
		c := strings.Repeat(fmt.Sprintf("%8d", i), 512*(1+i%3))
		if d := digest.FromString(c); strings.HasPrefix(d.Encoded(), "0") && d.Encoded()[1] < '4' {
			contents = append(contents, c)
		}
	}
	return contents
}

// crowd is a store during its census, and what the cache knows of it.
type crowd struct {
	t        *testing.T
	s        *Store
	contents []string
	known    map[digest.Digest]int64 // may be removed
	listed   map[string][]Entry      // but not counted yet
	unlisted []string
}

// move does one thing that may happen at that time.
func (c *crowd) move(rnd *rand.Rand) {
	content := c.contents[rnd.IntN(len(c.contents))]
	d, size := digest.FromString(content), int64(len(content))
	switch rnd.IntN(6) {
	case 0, 1:
		if err := c.s.Put(d, []byte(content)); err != nil {
			c.t.Fatal(err)
		}
	case 2:
		if _, ok := c.s.Meet(d); ok {
			c.known[d] = size
		}
	case 3:
		if _, ok := c.known[d]; ok {
			delete(c.known, d)
			if err := c.s.Remove(d, size); err != nil {
				c.t.Fatal(err)
			}
		}
	case 4:
		c.list()
	case 5:
		c.count()
	}
}

func (c *crowd) list() {
	if len(c.unlisted) > 0 {
		entries, err := c.s.list(nil, c.unlisted[0])
		if err != nil {
			c.t.Fatal(err)
		}
		c.listed[c.unlisted[0]], c.unlisted = entries, c.unlisted[1:]
	}
}

func (c *crowd) count() {
	for dir, entries := range c.listed {
		c.s.count(dir, entries, func(found []Entry) {
			for _, e := range found {
				c.known[e.Digest] = e.Size
			}
		})
		delete(c.listed, dir)
		return
	}
}

// TestContentIsCountedOnceDuringTheCensus has content come and go before, between and after the listing and the counting of
// its directory. The bound is exact in it, so what is counted is, too, at any time.
func TestContentIsCountedOnceDuringTheCensus(t *testing.T) {
	contents := neighbours(12)
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		dir := t.TempDir()
		s := open(t, Options{Dir: dir})
		for _, content := range contents {
			if rnd.IntN(2) == 0 {
				put(t, s, content)
			}
		}
		s.Close()
		known := make(map[digest.Digest]int64)
		s = open(t, Options{Dir: dir, Made: func(d digest.Digest, size int64) { known[d] = size }})
		c := &crowd{t: t, s: s, contents: contents, known: known, listed: make(map[string][]Entry),
			unlisted: slices.Collect(maps.Keys(s.pending))}
		for range 60 {
			c.move(rnd)
			if used, is := s.Used(), truth(t, dir); used != is || written(t, dir) < is {
				t.Fatalf("seed %d: %d bytes are used and no more than %d are said to be kept, but it is %d", seed, used, written(t, dir), is)
			}
		}
		for len(c.unlisted)+len(c.listed) > 0 {
			c.list()
			c.count()
		}
		for d, size := range c.known {
			if err := s.Remove(d, size); err != nil {
				t.Fatal(err)
			}
		}
		if s.space.of(kept) != 0 || truth(t, dir) != 0 {
			t.Fatalf("seed %d: after all that is known was removed, %d bytes are kept, and %d counted", seed, truth(t, dir), s.space.of(kept))
		}
		s.Close()
	}
}

// size3 is content of three blocks.
var size3 = strings.Repeat("three blocks", block/4)

func TestTheCapIsHardDuringTheCensus(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func(t *testing.T, s *Store, dir string)
		fits int64 // blocks, while nothing is counted; -1: not even nothing
	}{
		"closed": {func(t *testing.T, s *Store, _ string) { s.Close() }, 2},
		// The bound was raised as far as it may be: all that could have been kept.
		"killed": {func(t *testing.T, s *Store, _ string) { kill(t, s) }, -1},
		"bound lost": {func(t *testing.T, s *Store, dir string) {
			s.Close()
			if err := os.Remove(filepath.Join(dir, "bound")); err != nil {
				t.Fatal(err)
			}
		}, -1},
		"bound damaged": {func(t *testing.T, s *Store, dir string) {
			s.Close()
			if err := os.WriteFile(filepath.Join(dir, "bound"), []byte("-5"), 0o640); err != nil {
				t.Fatal(err)
			}
		}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			opts := Options{Dir: t.TempDir(), MaxSize: limit(5)}
			s := open(t, opts)
			d := put(t, s, size3)
			tt.end(t, s, opts.Dir)
			s = open(t, opts)
			for size := range int64(6) {
				if s.Fits(size*block) != (size <= tt.fits) {
					t.Errorf("%d blocks fit: %v", size, s.Fits(size*block))
				}
			}
			if _, err := s.Create(digest.FromString("x"), (tt.fits+1)*block, (tt.fits+1)*block); !errors.Is(err, ErrTooLarge) {
				t.Errorf("created: %v", err)
			}
			if got := read(t, s, d); got != size3 || !s.Has(d) {
				t.Error("what is kept is not served")
			}
			if found, err := scan(t, s); err != nil || len(found) != 1 || !s.Counted() {
				t.Errorf("found %v, %v", found, err)
			}
			if s.Used() != 3*block || !s.Fits(5*block) {
				t.Errorf("used %d when all is counted", s.Used())
			}
			if _, err := s.Create(digest.FromString("x"), 3*block, 3*block); !errors.Is(err, ErrFull) {
				t.Errorf("created: %v", err)
			}
		})
	}
}

// TestParkedContentIsTakenUpDuringTheCensus: the bound is as high as it may be after a kill, and what is parked lies below it.
func TestParkedContentIsTakenUpDuringTheCensus(t *testing.T) {
	opts := Options{Dir: t.TempDir(), MaxSize: limit(5) + beside}
	s := open(t, opts)
	put(t, s, size3)
	d := digest.FromString("parked")
	p, err := s.Create(d, 2*block, 2*block)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.WriteAt(make([]byte, 2*block), 0); err != nil {
		t.Fatal(err)
	}
	if err := p.Save([]byte("state")); err != nil {
		t.Fatal(err)
	}
	kill(t, s)
	s = open(t, opts)
	if s.Used() > opts.MaxSize-fixed || s.Fits(1) {
		t.Errorf("used %d, and there is room", s.Used())
	}
	p, state, _, ok := s.Parked(d)
	if !ok || string(state) != "state" {
		t.Fatalf("parked: %v, %q", ok, state)
	}
	if err := p.Commit(); err != nil {
		t.Fatal(err)
	}
	p.Close()
	if _, err := scan(t, s); err != nil || s.Used() != 5*block {
		t.Errorf("used %d, %v", s.Used(), err)
	}
}

func TestWithoutACapTheFileSystemTellsWhatFits(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	put(t, s, size3)
	s.Close()
	if err := os.Remove(filepath.Join(dir, "bound")); err != nil {
		t.Fatal(err)
	}
	s = open(t, Options{Dir: dir})
	put(t, s, "content")
	if s.Used() != block {
		t.Errorf("used %d: more than is known", s.Used())
	}
	if _, err := scan(t, s); err != nil || s.Used() != 4*block || written(t, dir) != 4*block {
		t.Errorf("used %d, %v", s.Used(), err)
	}
}

// TestTheBoundIsRaisedBeforeItIsExceeded looks at it after each name that came, as a power cut would leave it.
func TestTheBoundIsRaisedBeforeItIsExceeded(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	for _, size := range []int64{1, step - block, block, 2, 2 * step} {
		d := digest.FromString(fmt.Sprint(size))
		p, err := s.Create(d, size, size) // sparse: the size is what counts
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Commit(); err != nil {
			t.Fatal(err)
		}
		p.Close()
		if is := truth(t, dir); written(t, dir) < is || written(t, dir) > is+step {
			t.Errorf("%d bytes are kept, the bound is %d", is, written(t, dir))
		}
	}
	s.Close()
	if written(t, dir) != truth(t, dir) {
		t.Errorf("the bound is %d at the end", written(t, dir))
	}
}

func TestTheCensusEndsEarly(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	for _, content := range neighbours(12) {
		put(t, s, content)
	}
	s.Close()
	s = open(t, Options{Dir: dir})
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	calls := 0
	err := s.Scan(ctx, func([]Entry) { calls++; cancel(stopped) })
	if !errors.Is(err, stopped) || calls != 1 || s.Counted() {
		t.Errorf("%v after %d directories", err, calls)
	}
	if is := truth(t, dir); s.Used() != is {
		t.Errorf("used %d of %d", s.Used(), is)
	}
}

func TestADirectoryThatCantBeReadStaysUncounted(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	d := put(t, s, size3)
	put(t, s, "content")
	s.Close()
	s = open(t, Options{Dir: dir})
	name := filepath.Join(dir, blobDir(d))
	if err := errors.Join(os.RemoveAll(name), os.WriteFile(name, nil, 0o640)); err != nil { // not even root reads that
		t.Fatal(err)
	}
	if found, err := scan(t, s); err == nil || len(found) != 1 || s.Counted() {
		t.Errorf("found %v, %v", found, err)
	}
	if s.Used() != 4*block {
		t.Errorf("used %d", s.Used())
	}
}

// TestEachNameIsToldOnce keeps the same content by several ways, and once more after it was removed.
func TestEachNameIsToldOnce(t *testing.T) {
	told := 0
	s := open(t, Options{Made: func(digest.Digest, int64) { told++ }})
	for round := 1; round <= 2; round++ {
		p, err := s.Create(digest.FromString("content"), 7, 7)
		if err != nil {
			t.Fatal(err)
		}
		put(t, s, "content")
		d := put(t, s, "content")
		if err := p.Commit(); err != nil {
			t.Fatal(err)
		}
		p.Close()
		if told != round || s.Used() != block {
			t.Errorf("round %d: told %d times, %d bytes are used", round, told, s.Used())
		}
		if err := s.Remove(d, 7); err != nil {
			t.Fatal(err)
		}
	}
}

// TestABoundThatSaysTooLittleIsRaisedByTheCensus has a bound that is not of this directory: one from a backup.
func TestABoundThatSaysTooLittleIsRaisedByTheCensus(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	for _, c := range neighbours(10) {
		put(t, s, c)
	}
	kill(t, s)
	if err := os.WriteFile(filepath.Join(dir, "bound"), []byte("0\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	s = open(t, Options{Dir: dir})
	if err := s.Scan(t.Context(), func([]Entry) {}); err != nil {
		t.Fatal(err)
	}
	if bound, is := written(t, dir), truth(t, dir); bound < is {
		t.Errorf("%d bytes are kept, and the bound says %d", is, bound)
	}
}
