// Package policy knows what is kept and decides what goes first: what was used least recently. It holds digests and sizes in
// memory, does no I/O and has no lock: who uses it has one.
//
// A cache may hold a million blobs, so each costs a node of 48 bytes and some eight bytes of a table, none of which the
// garbage collector has to follow: nodes lie in chunks, outside of its heap, and refer to each other by number.
//
// The nodes form two rings. One has what was used since it became known, in that order. The other has what was found on disk, of
// which nobody knows yet when it was used; it goes before all else, until its order is known and Settle moves it behind the
// rest.
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
}

// Ref names content from Adopt on, for as long as that is known.
type Ref uint32

// The first nodes are no content but the heads of the rings: after a head comes what goes last, before it what goes first.
const (
	used  = iota // in the order of use
	found        // of unknown order
	heads
)

// Policy is a set of content in the order in which it is to go. New makes one.
type Policy struct {
	seed   maphash.Seed
	tables [256]table // by the hash's lowest byte
	nodes  [][]node   // in chunks, so that no growth copies them
	free   uint32     // the first of the nodes without content, linked by next; 0: none
	last   uint32     // the highest node that was ever used
	long   map[uint32]digest.Digest
	len    int
	bytes  int64
}

// node is content, or a head, or free. A digest longer than SHA-256's lies in the side table, and only its start in the node.
type node struct {
	start       [32]byte
	prev, next  uint32
	low         uint32 // of its size, which has 48 bits: more than the largest content that is believed in
	high        uint16
	found, long bool // whether it is in the ring of what was found, and whether its digest lies in the side table
}

func (n *node) size() int64 { return int64(n.high)<<32 | int64(n.low) }

// New returns a policy that knows of nothing.
func New() *Policy {
	p := &Policy{seed: maphash.MakeSeed(), last: heads - 1, long: make(map[uint32]digest.Digest)}
	p.addChunk()
	for head := range uint32(heads) {
		*p.at(head) = node{prev: head, next: head}
	}
	return p
}

// Len is how many are known.
func (p *Policy) Len() int { return p.len }

// Bytes is the sum of their sizes.
func (p *Policy) Bytes() int64 { return p.bytes }

// Has reports whether the content is known.
func (p *Policy) Has(d digest.Digest) bool {
	defer runtime.KeepAlive(p)
	_, ok := p.find(d)
	return ok
}

// Add says that content of that size is kept, and used just now. Of what is known already the size stays.
func (p *Policy) Add(d digest.Digest, size int64) {
	defer runtime.KeepAlive(p)
	if !p.Touch(d) {
		p.insert(d, size, used)
	}
}

// Touch says that the content was used just now, and reports whether it is known.
func (p *Policy) Touch(d digest.Digest) bool {
	defer runtime.KeepAlive(p)
	n, ok := p.find(d)
	if ok {
		p.unlink(n)
		p.link(n, p.at(used).next)
		p.at(n).found = false
	}
	return ok
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

// TakeVictim forgets and returns what is to go first; ok is false if nothing is known.
func (p *Policy) TakeVictim() (e Entry, ok bool) {
	defer runtime.KeepAlive(p)
	for _, head := range []uint32{found, used} {
		if n := p.at(head).prev; n != head {
			return p.remove(n), true
		}
	}
	return Entry{}, false
}

// Adopt says that content was found on disk; ok is false if it is known already.
func (p *Policy) Adopt(d digest.Digest, size int64) (r Ref, ok bool) {
	defer runtime.KeepAlive(p)
	if p.Has(d) {
		return 0, false
	}
	return Ref(p.insert(d, size, found)), true
}

// Settle moves what was adopted behind all that has been used, in the order given: what comes first in it goes last. It may be
// called with parts of the order one after the other. What has been used since, or is gone, stays as it is: a node that is free,
// or was taken for other content after all adoption was over, is none that is found.
func (p *Policy) Settle(order []Ref) {
	defer runtime.KeepAlive(p)
	for _, r := range order {
		n := uint32(r)
		if !p.at(n).found {
			continue
		}
		p.unlink(n)
		p.link(n, used)
		p.at(n).found = false
	}
}

func (p *Policy) at(n uint32) *node { return &p.nodes[n/chunk][n%chunk] }

// insert makes a node for content that is not known, first of its ring.
func (p *Policy) insert(d digest.Digest, size int64, head uint32) uint32 {
	n := p.allocate()
	start, long := startOf(d)
	*p.at(n) = node{start: start, low: uint32(size), high: uint16(size >> 32), found: head == found, long: long}
	if long {
		p.long[n] = d
	}
	p.link(n, p.at(head).next)
	p.enter(n)
	p.len++
	p.bytes += size
	return n
}

// remove forgets the content of a node.
func (p *Policy) remove(n uint32) Entry {
	e := Entry{Digest: p.digest(n), Size: p.at(n).size()}
	p.leave(n)
	p.unlink(n)
	delete(p.long, n)
	*p.at(n) = node{next: p.free}
	p.free = n
	p.len--
	p.bytes -= e.Size
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

// link puts a node before another.
func (p *Policy) link(n, next uint32) {
	prev := p.at(next).prev
	p.at(n).prev, p.at(n).next = prev, next
	p.at(prev).next, p.at(next).prev = n, n
}

func (p *Policy) unlink(n uint32) {
	is := p.at(n)
	p.at(is.prev).next, p.at(is.next).prev = is.next, is.prev
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
