package policy

import (
	"hash/maphash"

	"github.com/opencontainers/go-digest"
)

// table finds nodes by the start of their digest: open addressing, with the number of a node in each place, or 0. There are 256 of
// them, so that none is large when it grows: nobody waits for a million places to be filled anew.
//
// Digests are as good as random, but not for who is free to choose content: hence the hash, with a seed of this process.
type table struct {
	places []uint32 // a power of two, or none
	len    int
}

// smallest is how many places a table begins with.
const smallest = 8

func (p *Policy) hash(start *[32]byte) uint64 { return maphash.Bytes(p.seed, start[:]) }

func (p *Policy) find(d digest.Digest) (n uint32, ok bool) {
	start, long := startOf(d)
	h := p.hash(&start)
	t := &p.tables[byte(h)]
	if t.len == 0 {
		return 0, false
	}
	for i := t.home(h); t.places[i] != 0; i = t.after(i) {
		n := t.places[i]
		is := p.at(n)
		if is.start == start && is.long == long && (!long || p.long[n] == d) {
			return n, true
		}
	}
	return 0, false
}

// enter notes a node, whose content is in no table yet.
func (p *Policy) enter(n uint32) {
	h := p.hash(&p.at(n).start)
	t := &p.tables[byte(h)]
	if (t.len+1)*8 > len(t.places)*7 {
		p.grow(t)
	}
	t.place(h, n)
	t.len++
}

func (p *Policy) grow(t *table) {
	old := t.places
	t.places = make([]uint32, max(smallest, 2*len(old)))
	for _, n := range old {
		if n != 0 {
			t.place(p.hash(&p.at(n).start), n)
		}
	}
}

// leave takes a node out, and moves those behind it to where they are looked for: up to the next free place, each goes
// into the gap unless its home lies behind the gap.
func (p *Policy) leave(n uint32) {
	h := p.hash(&p.at(n).start)
	t := &p.tables[byte(h)]
	gap := t.home(h)
	for t.places[gap] != n {
		gap = t.after(gap)
	}
	for i := t.after(gap); t.places[i] != 0; i = t.after(i) {
		home := t.home(p.hash(&p.at(t.places[i]).start))
		if t.distance(home, i) >= t.distance(gap, i) {
			t.places[gap] = t.places[i]
			gap = i
		}
	}
	t.places[gap] = 0
	t.len--
}

func (t *table) place(h uint64, n uint32) {
	i := t.home(h)
	for t.places[i] != 0 {
		i = t.after(i)
	}
	t.places[i] = n
}

func (t *table) home(h uint64) int { return int(h>>8) & (len(t.places) - 1) }

func (t *table) after(i int) int { return (i + 1) & (len(t.places) - 1) }

// distance is how many steps lead from one place to another.
func (t *table) distance(from, to int) int { return (to - from) & (len(t.places) - 1) }
