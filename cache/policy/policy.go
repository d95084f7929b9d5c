// Package policy knows what is kept and decides what goes first. It holds digests and sizes in memory, does no I/O and has no
// lock: who uses it has one.
//
// A cache may hold a million blobs, so each costs a node of 64 bytes and some eight bytes of a table, none of which the
// garbage collector has to follow: nodes lie in chunks, outside of its heap, and refer to each other by number.
//
// # What goes first
//
// Most of what is asked for once is not asked for again, and what replaces a popular image is as new as that; so how long
// content has been unused does not tell enough. The nodes form rings, and new content is on trial in the ring of what is fresh,
// in the order of use. Once it is the one in there that was used least recently, it goes, unless it was used after it came: then
// it is proven and moves to a ring where use changes no order but earns laps. What is last there goes too, unless it has a lap
// left, which it loses as it moves to the front. What is fresh gives way while it is half of all bytes or more, and else what is
// proven: so what is pulled once, be it all of a registry, never has more than half of the room, and content that was popular and
// is no more goes after a few rounds.
//
// Small content costs a request to fetch again, which registries count, and next to nothing to keep: it has all its laps from
// the start, and again when it is proven.
//
// e2e/bench/replay compares this with other policies, and with the least that has to be fetched.
//
// All that survives a restart is when content was last used. What is adopted lies in a ring of its own, which goes before the two,
// until the order is known and Settle moves it behind what is fresh: what was proven has to prove itself again. Two rings more
// are for what goes before all else, and for what does not go at all.
package policy

import (
	"encoding/hex"
	"hash/maphash"
	"runtime"

	"github.com/opencontainers/go-digest"
)

// Entry is content that is kept.
type Entry struct {
	Digest digest.Digest
	Size   int64
	// Used is the period in which it was used last, see Turn; 0: before this policy was made.
	Used uint32
}

// Ref names content from Adopt on, for as long as that is known.
type Ref uint32

// The first nodes are no content but the heads of the rings: after a head comes what goes last, before it what goes first.
const (
	demoted = iota // in the order of demotion; these go before all else
	found          // of unknown order
	fresh          // in the order of use
	proven         // in the order in which they became so or lost a lap
	pinned         // in no order; these don't go
	heads
)

const (
	// mostLaps is how many content can have. More keep longer what is not asked for any more; with one, what is popular goes
	// as soon as what is asked for now and then.
	mostLaps = 3

	// small is up to which size content counts as small. All manifests but rare ones are, and all of them and of the configs
	// together are less than a thousandth of what a cache keeps. To fetch that much takes a round trip and little more: 5 ms
	// at 100 Mbit/s.
	small = 64 << 10

	// patience is how many are looked at for one that goes; the next one then goes even if it was used. Else the one who
	// happens to need room when all has been used would wait, and every request behind the lock with it, while all are moved.
	patience = 1024
)

// Policy is a set of content in the order in which it is to go. New makes one.
type Policy struct {
	seed   maphash.Seed
	tables [256]table // by the hash's lowest byte
	nodes  [][]node   // in chunks, so that no growth copies them
	free   uint32     // the first of the nodes without content, linked by next; 0: none
	last   uint32     // the highest node that was ever used
	long   map[uint32]digest.Digest
	period uint32 // counts calls of Turn, from 1 on
	rings  [heads]struct {
		len   int
		bytes int64
	}
}

// node is content, or a head, or free. A digest longer than SHA-256's lies in the side table, and only its start in the node.
type node struct {
	start      [32]byte
	size       int64
	prev, next uint32
	used       uint32 // the period of the last use
	ring, laps uint8
	long       bool    // whether its digest lies in the side table
	_          [8]byte // for 64 in all, a line of the processor's cache: most of what Touch takes is waiting for lines
}

// New returns a policy that knows of nothing.
func New() *Policy {
	p := &Policy{seed: maphash.MakeSeed(), last: heads - 1, long: make(map[uint32]digest.Digest), period: 1}
	p.addChunk()
	for head := range uint32(heads) {
		*p.at(head) = node{prev: head, next: head}
	}
	return p
}

// Len is how many are known.
func (p *Policy) Len() (n int) {
	for _, r := range p.rings {
		n += r.len
	}
	return n
}

// Bytes is the sum of their sizes.
func (p *Policy) Bytes() (n int64) {
	for _, r := range p.rings {
		n += r.bytes
	}
	return n
}

// Pinned is how many of them are pinned.
func (p *Policy) Pinned() int { return p.rings[pinned].len }

// Has reports whether the content is known.
func (p *Policy) Has(d digest.Digest) bool {
	defer runtime.KeepAlive(p)
	_, ok := p.find(d)
	return ok
}

// Turn begins a new period: of what Touch calls the first use, and of Used. Periods of minutes suit both; there are 2^32.
func (p *Policy) Turn() { p.period++ }

// Add says that content of that size is kept, and used just now. Of what is known already the size stays.
func (p *Policy) Add(d digest.Digest, size int64) {
	defer runtime.KeepAlive(p)
	if known, _ := p.Touch(d); !known {
		p.at(p.insert(d, size, fresh)).used = p.period
	}
}

// Touch says that the content was used just now. It reports whether it is known, and whether this is its first use in this period;
// to be added is to be used.
func (p *Policy) Touch(d digest.Digest) (known, first bool) {
	defer runtime.KeepAlive(p)
	n, ok := p.find(d)
	if !ok {
		return false, false
	}
	is := p.at(n)
	first = is.used != p.period
	is.used = p.period
	is.laps = min(is.laps+1, mostLaps)
	if is.ring < proven {
		p.move(n, fresh)
	}
	return true, first
}

// Pin says whether the content is pinned: if so, TakeVictim leaves it. What is no more is like what was used just now. To pin
// what is not known does nothing.
func (p *Policy) Pin(d digest.Digest, is bool) {
	defer runtime.KeepAlive(p)
	n, ok := p.find(d)
	switch {
	case !ok || is == (p.at(n).ring == pinned):
	case is:
		p.move(n, pinned)
	default:
		p.move(n, fresh)
	}
}

// Demote has the content go before all else, until it is used. It reports whether it will: content that is pinned, or not known,
// or was used in a later period than that given, stays where it is.
func (p *Policy) Demote(d digest.Digest, notSince uint32) bool {
	defer runtime.KeepAlive(p)
	n, ok := p.find(d)
	if !ok || p.at(n).ring == pinned || p.at(n).used > notSince {
		return false
	}
	if p.at(n).ring != demoted {
		p.move(n, demoted)
	}
	p.at(n).laps = p.firstLaps(n)
	return true
}

// Take forgets and returns content; ok is false if it isn't known.
func (p *Policy) Take(d digest.Digest) (e Entry, ok bool) {
	defer runtime.KeepAlive(p)
	n, ok := p.find(d)
	if !ok {
		return Entry{}, false
	}
	return p.remove(n), true
}

// TakeVictim forgets and returns what is to go first; ok is false if nothing is known but what is pinned.
func (p *Policy) TakeVictim() (e Entry, ok bool) {
	defer runtime.KeepAlive(p)
	n := p.victim()
	if n < heads {
		return Entry{}, false
	}
	return p.remove(n), true
}

// victim finds what is to go first, moving those that don't; it is a head if there is none.
func (p *Policy) victim() uint32 {
	for looked := 0; ; looked++ {
		ring := p.yielding()
		n := p.at(ring).prev
		is := p.at(n)
		switch {
		case n < heads || ring < fresh || is.laps == 0 || looked == patience:
			return n
		case ring == fresh:
			is.laps = p.firstLaps(n)
		default:
			is.laps--
		}
		p.move(n, proven)
	}
}

// yielding is the ring whose last is looked at next.
func (p *Policy) yielding() uint32 {
	for _, ring := range []uint32{demoted, found} {
		if p.rings[ring].len > 0 {
			return ring
		}
	}
	if p.rings[fresh].len == 0 || p.rings[fresh].bytes < p.rings[proven].bytes {
		return proven
	}
	return fresh
}

// firstLaps is how many laps the content has without having been used.
func (p *Policy) firstLaps(n uint32) uint8 {
	if p.at(n).size <= small {
		return mostLaps
	}
	return 0
}

// Adopt says that content was found on disk; ok is false if it is known already.
func (p *Policy) Adopt(d digest.Digest, size int64) (r Ref, ok bool) {
	defer runtime.KeepAlive(p)
	if p.Has(d) {
		return 0, false
	}
	return Ref(p.insert(d, size, found)), true
}

// Settle moves what was adopted behind all that is fresh, in the order given: what comes first in it goes last. It may be
// called with parts of the order one after the other. What has been used since, or is gone, stays as it is: a node that is free,
// or was taken for other content after all adoption was over, is none that is found.
func (p *Policy) Settle(order []Ref) {
	defer runtime.KeepAlive(p)
	for _, r := range order {
		if n := uint32(r); p.at(n).ring == found {
			p.unlink(n)
			p.link(n, fresh, fresh)
		}
	}
}

func (p *Policy) at(n uint32) *node { return &p.nodes[n/chunk][n%chunk] }

// insert makes a node for content that is not known, first of its ring.
func (p *Policy) insert(d digest.Digest, size int64, ring uint32) uint32 {
	n := p.allocate()
	start, long := startOf(d)
	*p.at(n) = node{start: start, size: size, long: long}
	p.at(n).laps = p.firstLaps(n)
	if long {
		p.long[n] = d
	}
	p.link(n, ring, p.at(ring).next)
	p.enter(n)
	return n
}

// remove forgets the content of a node.
func (p *Policy) remove(n uint32) Entry {
	e := Entry{Digest: p.digest(n), Size: p.at(n).size, Used: p.at(n).used}
	p.leave(n)
	p.unlink(n)
	delete(p.long, n)
	*p.at(n) = node{next: p.free}
	p.free = n
	return e
}

func (p *Policy) allocate() uint32 {
	if n := p.free; n != 0 {
		p.free = p.at(n).next
		return n
	}
	p.last++
	if int(p.last/chunk) == len(p.nodes) {
		p.addChunk()
	}
	return p.last
}

// move makes a node the first of a ring.
func (p *Policy) move(n, ring uint32) {
	p.unlink(n)
	p.link(n, ring, p.at(ring).next)
}

// link puts a node into a ring, before another of it or the head.
func (p *Policy) link(n, ring, next uint32) {
	is, prev := p.at(n), p.at(next).prev
	is.ring, is.prev, is.next = uint8(ring), prev, next
	p.at(prev).next, p.at(next).prev = n, n
	p.rings[ring].len++
	p.rings[ring].bytes += is.size
}

func (p *Policy) unlink(n uint32) {
	is := p.at(n)
	p.at(is.prev).next, p.at(is.next).prev = is.next, is.prev
	p.rings[is.ring].len--
	p.rings[is.ring].bytes -= is.size
}

// startOf is the first 32 bytes of a digest, which is valid; long tells that there are more, or that it is no SHA-256.
func startOf(d digest.Digest) (start [32]byte, long bool) {
	encoded := d.Encoded()
	long = d.Algorithm() != digest.SHA256
	if len(encoded) > hex.EncodedLen(len(start)) {
		encoded = encoded[:hex.EncodedLen(len(start))]
	}
	_, _ = hex.Decode(start[:], []byte(encoded)) // its letters were looked at when the digest was validated
	return start, long
}

func (p *Policy) digest(n uint32) digest.Digest {
	if is := p.at(n); !is.long {
		return digest.NewDigestFromBytes(digest.SHA256, is.start[:])
	}
	return p.long[n]
}
