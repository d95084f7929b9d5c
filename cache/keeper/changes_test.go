package keeper

import (
	"maps"
	"testing"

	"github.com/opencontainers/go-digest"
)

// TestEvictionIsNoLoss: content was evicted, and that is being written down, cannot be, is tried once more, and is.
func TestEvictionIsNoLoss(t *testing.T) {
	listed := map[digest.Digest]bool{}
	s := openShop(t, Options{Listed: func(d digest.Digest) bool { return listed[d] }})
	d := s.put("content", 1000)
	changed, done := s.TakeChanges()
	maps.Copy(listed, changed)
	done(true)
	if !s.Evict() {
		t.Fatal("nothing evicted")
	}
	s.read(d)
	for _, fits := range []bool{false, true} {
		changed, done = s.TakeChanges()
		if kept, ok := changed[d]; kept || !ok {
			t.Fatalf("that it went is not to be written: %v", changed)
		}
		s.read(d) // while it is being written
		if fits {
			maps.Copy(listed, changed)
		}
		done(fits)
		s.read(d)
	}
	if changed, _ := s.TakeChanges(); len(changed) > 0 {
		t.Errorf("written once more: %v", changed)
	}
	s.put("content", 1000)
	if st := s.Stats(); st.Damaged != 0 || len(s.healed) > 0 {
		t.Errorf("evicted content counts as damaged %d, healed %v", st.Damaged, s.healed)
	}
}

// TestWhatWasNotWrittenIsGivenBack: changes could not be written, and there is newer word of some meanwhile.
func TestWhatWasNotWrittenIsGivenBack(t *testing.T) {
	var k Keeper
	c := &k.changes
	expect := func(want map[digest.Digest]bool) (done func(bool)) {
		t.Helper()
		got, done := k.TakeChanges()
		if !maps.Equal(got, want) {
			t.Errorf("the changes are %v, want %v", got, want)
		}
		return done
	}
	c.note(number(1), true)
	c.note(number(2), false)
	done := expect(map[digest.Digest]bool{number(1): true, number(2): false})
	c.note(number(1), false)
	c.note(number(3), true)
	if !c.went(number(1)) || !c.went(number(2)) || c.went(number(3)) {
		t.Error("it is not known what went")
	}
	done(false)
	done = expect(map[digest.Digest]bool{number(1): false, number(2): false, number(3): true})
	c.note(number(2), true)
	done(true)
	done = expect(map[digest.Digest]bool{number(2): true})
	if c.went(number(1)) {
		t.Error("what is written down is a change still")
	}
	done(false)
	expect(map[digest.Digest]bool{number(2): true})(true)
	expect(nil)(false)
	expect(nil)
}

// TestChangesThatWaitAreBounded: nothing can be written for long, while content comes and goes. What is known of stays up to date.
func TestChangesThatWaitAreBounded(t *testing.T) {
	var k Keeper
	const round = maxChanges/2 + 1
	for r := range 4 {
		_, done := k.TakeChanges()
		for i := range round {
			k.changes.note(number(r*round+i), true)
		}
		k.changes.note(number(0), r%2 == 0)
		done(false)
	}
	changed, _ := k.TakeChanges()
	if kept, ok := changed[number(0)]; len(changed) != maxChanges || kept || !ok {
		t.Errorf("%d wait; the first is %v, %v", len(changed), kept, ok)
	}
}
