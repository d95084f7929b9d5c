package disk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
)

// volume is the space on a file system of some size that others fill too.
type volume struct {
	*space
	left int64
}

func newVolume(opts Options, capacity int64) *volume {
	v := &volume{space: newSpace(opts, capacity), left: capacity}
	v.free = func() (int64, error) { return v.left, nil }
	return v
}

func (v *volume) excess() int64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.excessLocked(v.left)
}

func (v *volume) isPressed() bool {
	select {
	case <-v.pressed:
		return true
	default:
		return false
	}
}

// keep takes room for content that is kept.
func (v *volume) keep(t *testing.T, size int64) {
	t.Helper()
	if err := v.land(blocks(size), beside); err != nil {
		t.Fatal(err)
	}
	v.move(beside, sundry, nowhere)
	v.landed(blocks(size), 0, kept)
	v.left -= size
}

func TestTheLowerMarkIsToldOf(t *testing.T) {
	const limit = 128 << 20 // with a reserve and a margin of 4 MiB, and a ballast of as much
	v := newVolume(Options{MaxSize: limit}, 1<<40)
	v.keep(t, 115<<20)
	if v.excess() != 0 || v.isPressed() {
		t.Errorf("%d bytes are too many below the mark", v.excess())
	}
	v.keep(t, 4<<20)
	if want := blocks(115<<20) + blocks(4<<20) + fixed - (limit - 12<<20); v.excess() != want || !v.isPressed() || v.isPressed() {
		t.Errorf("%d bytes are too many, not %d", v.excess(), want)
	}
	v.want(0)
	if v.excess() != 0 {
		t.Errorf("%d bytes are too many without a ballast", v.excess())
	}
}

func TestFreeSpaceHasALowerMark(t *testing.T) {
	v := newVolume(Options{MinFree: 64 << 20}, 1<<30) // with a margin of 32 MiB, and a ballast of 64 MiB
	v.keep(t, 512<<20)
	v.left = 200 << 20
	if v.excess() != 0 {
		t.Errorf("%d bytes are too many", v.excess())
	}
	v.left = 150 << 20
	if v.excess() != 10<<20 {
		t.Errorf("%d bytes are too many", v.excess())
	}
	v.left = 0
	if v.excess() != 160<<20 {
		t.Errorf("%d bytes are too many on a full file system", v.excess())
	}
	v.move(500<<20, kept, nowhere)
	if v.excess() != 0 {
		t.Errorf("%d of 12 MiB are to go, and that would not help", v.excess())
	}
}

func TestTheIndexHasAReserve(t *testing.T) {
	const limit = 128 << 20
	v := newVolume(Options{MaxSize: limit}, 1<<40)
	v.keep(t, limit-4<<20-fixed-beside-block) // and what says where its blocks are
	if err := v.land(block, beside); !errors.Is(err, ErrFull) || !v.isPressed() {
		t.Errorf("content takes the reserve: %v", err)
	}
	if !v.claim(4<<20) || !v.claim(beside) || v.claim(1) || !v.isPressed() {
		t.Error("the index has another reserve than it should")
	}
	v.set(index, 1<<20)
	if !v.claim(3<<20+beside) || v.claim(1) {
		t.Error("what the index occupies does not stand for what it claimed")
	}
	v.move(32<<20, kept, nowhere)
	if v.set(index, 31<<20); v.land(blocks(6<<20), beside) == nil || v.land(blocks(1<<19), beside) != nil {
		t.Error("the index does not count")
	}
}

// TestReservationsAloneStayBelowTheCap, whatever is kept.
func TestReservationsAloneStayBelowTheCap(t *testing.T) {
	v := newVolume(Options{MaxSize: 1 << 20}, 1<<40)
	n := 0
	for v.land(block, beside) == nil {
		n++
	}
	if sum := int64(n)*(block+beside) + fixed + v.reserve; sum > 1<<20 || sum+block+beside <= 1<<20 {
		t.Errorf("%d reservations", n)
	}
	if err := v.land(block, beside); !errors.Is(err, ErrTooLarge) {
		t.Errorf("%v, but nothing could be removed", err)
	}
}

// TestFailedStepsGiveTheirRoomBack fails each step that takes room.
func TestFailedStepsGiveTheirRoomBack(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir, MaxSize: 1 << 20})
	d := digest.FromString("content")
	none := func(step string) {
		t.Helper()
		if s.Used() != 0 || s.space.of(sundry) != fixed+s.dirs(t) || s.space.unwritten != 0 || len(s.uses.of) != 0 {
			t.Errorf("%s: %v, in use %v", step, s.space.sums, s.uses.of)
		}
	}
	for _, name := range []string{"partial", "bound.draft"} { // a file, or a directory, in the way
		path := filepath.Join(dir, name)
		err := os.RemoveAll(path)
		if name == "partial" {
			err = errors.Join(err, os.WriteFile(path, nil, 0o640))
		} else {
			err = errors.Join(err, os.Mkdir(path, 0o750), os.Remove(filepath.Join(dir, "bound")))
			s.bound = -1
		}
		if err != nil {
			t.Fatal(err)
		}
		if p, err := s.Create(d, 7, 7); err == nil {
			p.Close()
			t.Error("created")
		}
		if s.Put(d, []byte("content")) == nil {
			t.Error("put")
		}
		none(name)
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	inTheWay := filepath.Join(dir, blobDir(d))
	if err := errors.Join(os.MkdirAll(filepath.Dir(inTheWay), 0o750), os.Symlink("nowhere", inTheWay)); err != nil {
		t.Fatal(err)
	}
	if s.Put(d, []byte("content")) == nil {
		t.Error("kept where there is no directory")
	}
	none("commit")
	if left, _ := os.ReadDir(filepath.Join(dir, "partial")); len(left) > 0 {
		t.Errorf("leftovers: %v", left)
	}
}

// dirs is what the directories of content are charged.
func (s *Store) dirs(t *testing.T) int64 {
	t.Helper()
	dirs, err := s.contentDirs()
	if err != nil {
		t.Fatal(err)
	}
	return int64(len(dirs)) * block
}

func TestWhatIsNoFileMakesWayForContent(t *testing.T) {
	dir := t.TempDir()
	s := open(t, Options{Dir: dir})
	d := digest.FromString("content")
	path := filepath.Join(dir, blobPath(d))
	for _, arrange := range []func() error{
		func() error { return errors.Join(os.MkdirAll(path, 0o750), os.WriteFile(path+"/x", nil, 0o640)) },
		func() error { return os.Symlink("elsewhere", path) },
	} {
		if err := arrange(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Blob(d); err == nil || errors.Is(err, os.ErrNotExist) {
			t.Errorf("opened: %v", err)
		}
		put(t, s, "content")
		if got := read(t, s, d); got != "content" || s.Used() != block {
			t.Errorf("got %q, %d bytes used", got, s.Used())
		}
		if err := s.Evict(d, 7); err != nil {
			t.Fatal(err)
		}
		if err := arrange(); err != nil {
			t.Fatal(err)
		}
		if err := s.Remove(d, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("still there: %v", err)
		}
	}
}

// TestNothingIsEvictedThatCannotHelp: others leave a little more free than is to be left, so content may be kept; evicting all of
// it would not come below the lower mark.
func TestNothingIsEvictedThatCannotHelp(t *testing.T) {
	v := newVolume(Options{MinFree: 1 << 30}, 64<<30) // a margin of 1 GiB
	v.wanted = 0
	v.left = 1<<30 + 100<<20
	v.keep(t, 10<<20)
	if v.excess() != 0 {
		t.Errorf("%d bytes are to be evicted of %d that are kept, and admitted again at once", v.excess(), v.of(kept))
	}
}
