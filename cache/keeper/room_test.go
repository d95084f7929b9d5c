package keeper

import (
	"errors"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/disk"
)

// TestWhatGrowsTakesTheRoomOfWhatIsKept has a part of content land, and then more, in a cache that is full.
func TestWhatGrowsTakesTheRoomOfWhatIsKept(t *testing.T) {
	s := openShop(t, Options{MaxSize: 8 << 20})
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		s.put(name, 1<<20)
	}
	before := s.Stats()
	d, piece := digest.FromString("growing"), make([]byte, 64<<10)
	l, err := s.Create(d, 6<<20, int64(len(piece)))
	must(t, err)
	write := func(pieces int) {
		t.Helper()
		for i := range pieces {
			_, err := l.WriteAt(piece, int64(i*len(piece)))
			must(t, err)
			if is := s.Stats(); is.Total > 8<<20 {
				t.Fatalf("%d bytes are used", is.Total)
			}
		}
	}
	write(2)
	if is := s.Stats(); is.Content < before.Content-1 {
		t.Errorf("%d of %d are kept when next to nothing has landed", is.Content, before.Content)
	}
	must(t, l.Park([]byte("state")))
	must(t, l.Close())
	l, _, _, ok := s.Parked(d)
	if !ok {
		t.Fatal("not parked")
	}
	write(80)
	must(t, l.Reserve())
	if is := s.Stats(); is.Bytes < 6<<20 {
		t.Errorf("%d bytes are reserved of 6 MiB", is.Bytes)
	}
	other, err := s.Create(digest.FromString("other"), 6<<20, 4096)
	must(t, err)
	if err := other.Reserve(); !errors.Is(err, disk.ErrTooLarge) {
		t.Errorf("what lands gives way: %v", err)
	}
	other.Discard()
	must(t, other.Close())
	l.Discard()
	must(t, l.Close())
}
