package main

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/policy"
)

// cache decides what is kept. Who replays has the room.
type cache interface {
	touch(o uint32) (known bool)
	add(o uint32, size int64)
	victim() (o uint32, ok bool)
}

// habit is what else a cache could do, to see whether that helps. Any may be nil.
type habit struct {
	asked   func(*replay, request) // before the request is answered
	kept    func(*replay, uint32)
	evicted func(*replay, uint32)
}

// replay is a cache to which a trace's requests come, and what it fetched. An object is fetched whole, and is too late for nobody.
type replay struct {
	trace
	cache
	capacity, held int64
	fetched        int64 // bytes
	fetches        int   // of manifests and indexes, which are what registries count
}

// turn is after how many requests the policy is told that a period ends: half an hour, about.
const turn = 100

func run(t trace, c cache, capacity int64, h habit) *replay {
	r := &replay{trace: t, cache: c, capacity: capacity}
	for i, asked := range t.requests {
		if p, ok := c.(*product); ok && i%turn == 0 {
			p.Turn()
		}
		if h.asked != nil {
			h.asked(r, asked)
		}
		r.answer(asked.object, h)
	}
	return r
}

func (r *replay) answer(o uint32, h habit) {
	if r.touch(o) {
		return
	}
	size := r.objects[o].size
	if r.fetched += size; r.objects[o].names != nil {
		r.fetches++
	}
	if size > r.capacity {
		return // it streams through
	}
	for r.held+size > r.capacity {
		goes, _ := r.victim() // there is one: what is held does not fit
		r.held -= r.objects[goes].size
		if h.evicted != nil {
			h.evicted(r, goes)
		}
	}
	r.add(o, size)
	r.held += size
	if h.kept != nil {
		h.kept(r, o)
	}
}

// product is entrepot's policy.
type product struct {
	*policy.Policy
	digests []digest.Digest
	objects map[digest.Digest]uint32
	gone    policy.Entry // the last victim
}

func newProduct(t trace) cache {
	p := &product{Policy: policy.New(), digests: make([]digest.Digest, len(t.objects)), objects: make(map[digest.Digest]uint32)}
	for o := range t.objects {
		sum := sha256.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(o)))
		p.digests[o] = digest.NewDigestFromBytes(digest.SHA256, sum[:])
		p.objects[p.digests[o]] = uint32(o)
	}
	return p
}

func (p *product) touch(o uint32) bool {
	known, _ := p.Touch(p.digests[o])
	return known
}

func (p *product) add(o uint32, size int64) { p.Add(p.digests[o], size) }

func (p *product) victim() (uint32, bool) {
	var ok bool
	p.gone, ok = p.TakeVictim()
	return p.objects[p.gone.Digest], ok
}
