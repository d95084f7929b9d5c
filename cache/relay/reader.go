package relay

import (
	"context"
	"errors"
	"io"
	"io/fs"

	"github.com/opencontainers/go-digest"
)

const (
	// ask is what a reader is taken to want where it has not said how much. It doubles, up to maxAsk, as the reader goes
	// on: few requests for who reads on, little fetched in vain for who does not.
	ask    = 1 << 20
	maxAsk = 16 << 20
)

// Reader reads content, through however many transfers it takes. It is for one goroutine; Close frees it.
type Reader struct {
	relays *Relays
	ctx    context.Context
	digest digest.Digest
	src    Source
	size   int64 // of the whole content; -1 until it is admitted
	expect int64 // the size if the source states none, or -1
	pos    int64

	leg    leg   // what it reads from; nil once closed
	stands int64 // the leg's position: another than pos after a Seek

	from, to int64 // what it said it would read
	asked    int64 // how much it was last taken to want beyond that
}

// leg is what a reader reads from for part of its way.
type leg interface {
	// Read reads on. It fails with io.EOF where the leg ends, errBehind if the window has left the reader behind, and
	// errOther if the source of another failed: then the reader goes on by another leg.
	Read(p []byte) (int, error)
	// answer waits for the source to answer, and returns the size of the whole content.
	answer() (size int64, err error)
	// reached is the proof of all before the position, for the next leg to take over.
	reached() proof
	Close() error
}

// Size is the size of the whole content in bytes.
func (r *Reader) Size() int64 { return r.size }

// Read reads on at the position, waiting for at least one byte. It fails with the source's error once that is final or
// was met too often in a row, with ErrDigest or ErrClosed, or with the context's.
func (r *Reader) Read(p []byte) (int, error) {
	switch {
	case r.leg == nil:
		return 0, fs.ErrClosed
	case r.relays.ctx.Err() != nil:
		return 0, ErrClosed
	case r.pos >= r.size:
		return 0, io.EOF
	case len(p) == 0:
		return 0, nil
	}
	if r.pos != r.stands {
		if err := r.change(r.fresh()); err != nil {
			return 0, err
		}
	}
	for {
		n, err := r.leg.Read(p)
		r.pos += int64(n)
		r.stands = r.pos
		if n > 0 || err != io.EOF && !errors.Is(err, errBehind) && !errors.Is(err, errOther) {
			return n, err
		}
		if err := r.change(r.leg.reached()); err != nil {
			return 0, err
		}
	}
}

// change makes the reader go on by another leg. That comes before the last one is left: it may be in the same transfer,
// which would end otherwise.
func (r *Reader) change(from proof) error {
	l, _, err := r.relays.board(r, from)
	if err != nil {
		return err
	}
	r.leg.Close()
	r.leg, r.stands = l, r.pos
	return nil
}

// fresh is the proof that anybody has at the position: that of nothing at the start, elsewhere none.
func (r *Reader) fresh() proof {
	if r.pos == 0 {
		return proof{0, r.digest.Algorithm().Hash()}
	}
	return proof{at: r.pos}
}

// until is up to where a request for the reader at its position should go.
func (r *Reader) until() int64 {
	if r.from <= r.pos && r.pos < r.to {
		return r.to
	}
	r.asked = min(max(ask, 2*r.asked), maxAsk)
	return r.pos + r.asked
}

// Seek moves the position; it never waits. Any position from 0 on may be read from.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, errors.New("relay: seek before the start")
	}
	r.pos = offset
	return offset, nil
}

// Close makes the reader leave; the transfer goes on for the others in it.
func (r *Reader) Close() error {
	if r.leg == nil {
		return nil
	}
	err := r.leg.Close()
	r.leg = nil
	r.relays.count(0, -1)
	return err
}
