package keeper

import (
	"fmt"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/disk"
)

var now = time.Unix(1e9, 0)

func number(i int) digest.Digest { return digest.FromString(fmt.Sprint(i)) }

// size is that of content by its number: none is so small that it would stay for that alone.
func size(i int) int64 { return 1<<20 + int64(i) }

func entry(i int) disk.Entry {
	return disk.Entry{Digest: number(i), Size: size(i), Used: time.Unix(int64(i), 0)}
}

// victims takes all that is known, in the order in which it goes.
func victims(t *testing.T, r *recency, want ...int) {
	t.Helper()
	for _, want := range want {
		if got, ok := r.takeVictim(); !ok || got.Digest != number(want) || got.Size != size(want) {
			t.Errorf("got %v, want %d", got, want)
		}
	}
	if got, ok := r.takeVictim(); ok {
		t.Errorf("%v is left", got)
	}
}

func TestRecency(t *testing.T) {
	r := newRecency()
	r.adopt([]disk.Entry{entry(2), entry(1)})
	r.adopt([]disk.Entry{entry(3)})
	r.settle()
	r.touch(number(1), now)
	r.touch(number(9), now) // not known: stays so
	r.add(number(4), size(4))
	r.add(number(2), size(2))
	if is, ok := r.take(number(4)); !ok || is.Digest != number(4) || is.Size != size(4) {
		t.Errorf("took %v", is)
	}
	if is, ok := r.take(number(9)); ok || r.has(number(9)) || !r.has(number(1)) {
		t.Errorf("took %v", is)
	}
	victims(t, r, 3, 1, 2)
}

func TestWhatWasKeptEarlierGoesFirstAfterARestart(t *testing.T) {
	r := newRecency()
	var want []int
	for i := range 3 * turn {
		r.adopt([]disk.Entry{entry((i * 7) % (3 * turn))}) // in no order
		want = append(want, i)
	}
	r.settle()
	victims(t, r, want...)
}

// TestRemovalDuringTheCensusKeepsTheOrder has what goes make room in the policy for what is found next, which was kept at another time.
func TestRemovalDuringTheCensusKeepsTheOrder(t *testing.T) {
	r := newRecency()
	for _, gone := range []int{100, 90, 2} {
		r.adopt([]disk.Entry{entry(gone)})
		if _, ok := r.take(number(gone)); !ok {
			t.Fatal("not known")
		}
	}
	for _, i := range []int{1, 50, 40} {
		r.adopt([]disk.Entry{entry(i)})
	}
	r.settle()
	victims(t, r, 1, 40, 50)
}

func TestUseDuringTheCensusCounts(t *testing.T) {
	r := newRecency()
	r.touch(number(2), now) // before it is found
	r.adopt([]disk.Entry{entry(1), entry(2), entry(3), entry(4)})
	r.touch(number(1), now) // after
	r.add(number(5), size(5))
	r.adopt([]disk.Entry{{Digest: number(5), Size: 99}}) // known already
	if got, ok := r.takeVictim(); !ok || got.Digest != number(3) && got.Digest != number(4) {
		t.Errorf("%v goes first, which was used", got)
	}
	r.settle()
	if _, ok := r.takeVictim(); !ok {
		t.Error("nothing is left of what was not used")
	}
	victims(t, r, 2, 5, 1)
}

// TestWhatIsPinnedIsUsedForEver, for who must remove content before the pins are known, until it is pinned no more.
func TestWhatIsPinnedIsUsedForEver(t *testing.T) {
	s := openShop(t, Options{})
	before, after, other := s.put("before", 100), digest.FromBytes(contentOf("after", 100)), s.put("other", 100)
	s.Pin([]digest.Digest{before, after})
	s.put("after", 100)
	used := func() map[digest.Digest]time.Time {
		t.Helper()
		s.takeDownUses()
		all := make(map[digest.Digest]time.Time)
		must(t, s.disk.Walk(t.Context(), func(dir []disk.Entry) error {
			for _, e := range dir {
				all[e.Digest] = e.Used
			}
			return nil
		}))
		return all
	}
	s.recency.turn()
	s.Used(before)
	if at := used(); !at[before].Equal(forever) || !at[after].Equal(forever) || !at[other].Before(time.Now().Add(time.Hour)) {
		t.Errorf("%v", at)
	}
	s.Repin(map[digest.Digest]bool{before: true})
	if at := used(); !at[before].Equal(forever) || !at[after].Before(time.Now().Add(time.Hour)) {
		t.Errorf("after unpinning: %v", at)
	}
}
