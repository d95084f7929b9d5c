package disk

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestTouchedIsWhatHasBlocks compares with the file system what writes of each kind are said to take.
func TestTouchedIsWhatHasBlocks(t *testing.T) {
	const size = 64 << 20
	rnd := rand.New(rand.NewPCG(1, 2))
	var at [4]int64
	for name, tt := range map[string]struct {
		next func(i int) (off, n int64)
		over int64 // how much more may be said than there is
	}{
		"one after the other, by halves of blocks": {func(i int) (int64, int64) { return int64(i) * 2000, 2000 }, 2 * block},
		"several, side by side, each in order": {func(i int) (off, n int64) {
			off, n = int64(i%len(at))*size/int64(len(at))+at[i%len(at)], 1+rnd.Int64N(10_000)
			at[i%len(at)] += n
			return off, n
		}, 2 * block},
		"here and there": {func(i int) (int64, int64) { return rnd.Int64N(size/8/block) * 8 * block, block }, size},
		"anywhere":       {func(int) (int64, int64) { return rnd.Int64N(size - 9000), 1 + rnd.Int64N(9000) }, size},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "f"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if err := f.Truncate(size); err != nil {
				t.Fatal(err)
			}
			var is touched
			b := make([]byte, 10_000)
			for i := range 1500 {
				off, n := tt.next(i)
				if _, err := f.WriteAt(b[:n], off); err != nil {
					t.Fatal(err)
				}
				is = is.write(off, n)
			}
			if err := f.Sync(); err != nil {
				t.Fatal(err)
			}
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			// Each piece may cost a part of a block for its place, and what file systems keep of that differs.
			most := allocated(info) + tt.over + (is.pieces/piecesInBlock+1)*block
			if said := is.blocks(size); said < allocated(info) || said > most {
				t.Errorf("%d bytes are said to be taken, %d are", said, allocated(info))
			}
		})
	}
}

// TestRoomGrowsWithWhatLands has a part of large content land, and then the rest.
func TestRoomGrowsWithWhatLands(t *testing.T) {
	const size, part = 48 << 20, 64 << 10
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, MaxSize: 64 << 20})
	d := digest.FromString("large")
	p, err := s.Create(d, size, part)
	if err != nil {
		t.Fatal(err)
	}
	write := func(off, n int64) {
		t.Helper()
		if _, err := p.WriteAt(make([]byte, n), off); err != nil {
			t.Fatal(err)
		}
	}
	write(10_000, part)
	if is := s.Used(); is < part || is > part+2*block {
		t.Errorf("%d bytes for a part of %d", is, part)
	}
	write(10_000+part, part)
	if is := s.Used(); is < 2*part || is > 2*part+growth+3*block {
		t.Errorf("%d bytes after twice as much", is)
	}
	if err := p.Park(nil); err != nil {
		t.Fatal(err)
	}
	p.Close()
	for range 2 { // in this process, and in the next
		if is := s.Used(); is < 2*part || is > 2*part+3*block || is != s.ParkedBytes() {
			t.Errorf("%d bytes when it is parked, %d of them for that", is, s.ParkedBytes())
		}
		s.Close()
		s = open(t, Options{Dir: dir, MaxSize: 64 << 20})
	}
	var ok bool
	if p, _, _, ok = s.Parked(d); !ok {
		t.Fatal("not parked")
	}
	defer p.Close()
	for off := int64(0); off < size; off += 1 << 20 {
		write(off, 1<<20)
		if is := s.Used(); is > max(off+growth+2<<20, size+block) {
			t.Fatalf("%d bytes for %d", is, off)
		}
	}
	if err := p.Commit(); err != nil || s.Used() != blocks(size) || s.space.unwritten != 0 {
		t.Errorf("%v, %d bytes used, %d to be written", err, s.Used(), s.space.unwritten)
	}
}

// TestWhatHasNoRoomIsNotWritten lets content grow until other content stands in its way.
func TestWhatHasNoRoomIsNotWritten(t *testing.T) {
	s := open(t, Options{MaxSize: 1 << 20})
	d := put(t, s, string(make([]byte, 800<<10)))
	p, err := s.Create(digest.FromString("growing"), 900<<10, block)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	b := make([]byte, 100<<10)
	off := int64(0)
	for ; err == nil; off += int64(len(b)) {
		_, err = p.WriteAt(b, off)
	}
	used := s.Used()
	if !errors.Is(err, ErrFull) || used > 1<<20 || p.Reserve() != ErrFull || s.Used() != used {
		t.Errorf("after %d bytes: %v, %d used", off, err, used)
	}
	if err := errors.Join(s.Evict(d, 800<<10), p.Reserve()); err != nil {
		t.Error(err)
	}
	if _, err := p.WriteAt(b, off); err != nil || s.Used() != blocks(900<<10) {
		t.Errorf("%v, %d bytes used", err, s.Used())
	}
	q, err := s.Create(digest.FromString("another"), 900<<10, block)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if _, err := q.WriteAt(make([]byte, 512<<10), 0); !errors.Is(err, ErrTooLarge) {
		t.Errorf("what lands does not give way: %v", err)
	}
	if _, err := q.WriteAt(b[:block], 0); err != nil {
		t.Errorf("there is room for little: %v", err)
	}
	p.Discard()
	q.Discard()
}
