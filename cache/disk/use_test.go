package disk

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/opencontainers/go-digest"
)

func TestWhatIsOpenIsNotEvicted(t *testing.T) {
	s := open(t, Options{})
	p, err := s.Create(digest.FromString("content"), 7, 7)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.WriteAt([]byte("content"), 0); err != nil {
		t.Fatal(err)
	}
	if err := p.Commit(); err != nil {
		t.Fatal(err)
	}
	d := p.digest
	evict := func(want error) {
		t.Helper()
		if err := s.Evict(d, 7); !errors.Is(err, want) {
			t.Errorf("evicted: %v", err)
		}
	}
	evict(ErrInUse) // its fill's readers follow the file
	again, err := p.Reopen()
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	evict(ErrInUse)
	c, err := s.Blob(d)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	again.Close() // counts once
	evict(ErrInUse)
	c.Close()
	evict(nil)
	if s.Has(d) || s.Used() != 0 || len(s.uses.of) != 0 {
		t.Errorf("%d bytes used, in use: %v", s.Used(), s.uses.of)
	}
}

// TestWhatCantBeOpenedIsNotInUse looks at a failed open of each kind.
func TestWhatCantBeOpenedIsNotInUse(t *testing.T) {
	s := open(t, Options{MaxSize: limit(1)})
	d := digest.FromString("content")
	if _, err := s.Blob(d); err == nil {
		t.Error("opened what is not there")
	}
	if err := s.mkdir(blobDir(d)); err != nil {
		t.Fatal(err)
	}
	if err := s.root.Mkdir(blobPath(d), 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Blob(d); err == nil {
		t.Error("opened a directory")
	}
	if _, err := s.Create(d, 1<<20, 1<<20); err == nil {
		t.Error("created what has no room")
	}
	if len(s.uses.of) != 0 {
		t.Errorf("in use: %v", s.uses.of)
	}
}

// crew does what the cache does to a store, and looks after each step whether the accounts are right.
type crew struct {
	t        *testing.T
	s        *Store
	dir      string
	contents [][]byte
	kept     map[digest.Digest]int64
	landing  map[digest.Digest]*Partial
	open     []*Content
	ended    []*Partial
}

// occupied is how many bytes the data directory takes, with files that have no name any more but are open.
func (c *crew) occupied() (sum int64) {
	seen := make(map[uint64]bool)
	count := func(info fs.FileInfo, err error) {
		if err != nil {
			c.t.Fatal(err)
		}
		if st := info.Sys().(*syscall.Stat_t); !seen[st.Ino] {
			seen[st.Ino] = true
			sum += st.Blocks * 512
		}
	}
	if err := filepath.WalkDir(c.dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil {
			count(e.Info())
		}
		return err
	}); err != nil {
		c.t.Fatal(err)
	}
	for _, f := range c.open {
		count(f.Stat())
	}
	for _, p := range c.ended {
		count(p.Stat())
	}
	return sum
}

func (c *crew) step(rnd *rand.Rand) {
	content := c.contents[rnd.IntN(len(c.contents))]
	d, size := digest.FromBytes(content), int64(len(content))
	p := c.landing[d]
	switch op := rnd.IntN(9); {
	case op == 0 && p == nil:
		if p, _, _, ok := c.s.Parked(d); ok {
			c.landing[d] = p
		} else if p, err := c.s.Create(d, size, rnd.Int64N(size+1)); err == nil {
			c.landing[d] = p
		}
	case op == 1 && p != nil:
		c.write(p, content, rnd)
	case op == 2 && p != nil:
		c.end(d, p, rnd.IntN(3))
	case op == 3:
		if f, err := c.s.Blob(d); err == nil {
			c.open = append(c.open, f)
		}
	case op == 4 && len(c.open) > 0:
		i := rnd.IntN(len(c.open))
		c.open[i].Close()
		c.open = append(c.open[:i], c.open[i+1:]...)
	case op == 5 && len(c.ended) > 0:
		c.ended[0].Close()
		c.ended = c.ended[1:]
	case op == 6 && c.kept[d] > 0:
		if c.s.Evict(d, size) == nil {
			delete(c.kept, d)
		}
	case op == 7 && c.kept[d] > 0:
		if err := c.s.Remove(d, size); err != nil {
			c.t.Fatal(err)
		}
		delete(c.kept, d)
	case op == 8:
		c.s.DropOldestParked()
	}
}

// write writes some of the content, at the start or anywhere, in one piece or in several that follow each other. What has no room is
// not written.
func (c *crew) write(p *Partial, content []byte, rnd *rand.Rand) {
	from := rnd.IntN(2) * rnd.IntN(len(content))
	for n := 1 + rnd.IntN(len(content)); n > 0 && from < len(content); n /= 2 {
		n = min(n, len(content)-from)
		if _, err := p.WriteAt(content[from:from+n], int64(from)); err != nil {
			if !errors.Is(err, ErrFull) && !errors.Is(err, ErrTooLarge) {
				c.t.Fatal(err)
			}
			return
		}
		from += n
	}
}

// end ends the landing in one of the three ways, for which there may be no room: then it was discarded.
func (c *crew) end(d digest.Digest, p *Partial, how int) {
	var err error
	switch how {
	case 0:
		err = p.Commit()
	case 1:
		err = p.Park(bytes.Repeat([]byte("s"), 5000))
	default:
		p.Discard()
	}
	if err != nil && !errors.Is(err, ErrFull) && !errors.Is(err, ErrTooLarge) {
		c.t.Fatal(err)
	}
	delete(c.landing, d)
	c.ended = append(c.ended, p)
}

// TestNothingOnDiskIsUncounted does many things at random below a small cap, and looks at what the files take up after each.
func TestNothingOnDiskIsUncounted(t *testing.T) {
	var contents [][]byte
	// The last two have a block that says where their blocks are.
	for i, size := range []int{3000, 6000, 9000, 12_000, 15_000, 18_000, 100_000, 300_000, 400_000} {
		contents = append(contents, bytes.Repeat([]byte{byte(i)}, size))
	}
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 0))
		c := &crew{t: t, dir: t.TempDir(), contents: contents,
			kept: make(map[digest.Digest]int64), landing: make(map[digest.Digest]*Partial)}
		c.s = open(t, Options{Dir: c.dir, MaxSize: 160 * block, Made: func(d digest.Digest, size int64) { c.kept[d] = size }})
		for step := range 200 {
			c.step(rnd)
			counted := c.s.Used() + c.s.space.of(sundry)
			if is := c.occupied(); is > counted || counted > c.s.space.maxSize {
				t.Fatalf("seed %d, step %d: %d bytes are counted, %d taken up", seed, step, counted, is)
			}
		}
		c.finish()
	}
}

// finish ends all that is under way, and removes all that is kept.
func (c *crew) finish() {
	for d, p := range c.landing {
		c.end(d, p, 2)
	}
	for _, p := range c.ended {
		p.Close()
	}
	for _, f := range c.open {
		f.Close()
	}
	for d, size := range c.kept {
		if err := c.s.Evict(d, size); err != nil {
			c.t.Error(err)
		}
	}
	for c.s.DropOldestParked() {
	}
	dirs, err := os.ReadDir(filepath.Join(c.dir, "blobs", "sha256"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.t.Error(err)
	}
	sums := c.s.space.sums
	if c.s.Used() != 0 || c.s.space.unwritten != 0 || len(c.s.uses.of) > 0 || sums[sundry] != fixed+int64(len(dirs))*block {
		c.t.Errorf("all is gone, but the accounts say %v, %d to be written, in use %v", sums, c.s.space.unwritten, c.s.uses.of)
	}
	c.s.Close()
}

// TestEvictionMeetsReaders has content evicted, damaged and put while it is being opened: in the end nothing is counted that is gone.
func TestEvictionMeetsReaders(t *testing.T) {
	s := open(t, Options{MaxSize: limit(8)})
	content := []byte("content")
	d := digest.FromBytes(content)
	var known sync.Mutex // so that what is kept is removed once, as the cache does
	for range 300 {
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				if c, err := s.Blob(d); err == nil {
					if b, err := io.ReadAll(c); err != nil || !bytes.Equal(b, content) {
						t.Errorf("%q, %v", b, err)
					}
					c.Close()
				}
			})
			wg.Go(func() {
				known.Lock()
				defer known.Unlock()
				if s.Put(d, content) != nil {
					t.Error("not put")
				}
				if i%2 == 0 && s.Evict(d, 7) == nil {
					return
				}
				if err := s.Remove(d, 7); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if s.Used() != 0 || len(s.uses.of) != 0 {
			t.Fatalf("%d bytes are used, in use: %v", s.Used(), s.uses.of)
		}
	}
}
