// Package relay passes on content that can't be kept: it streams from a source through to readers, in bounded memory.
//
// How a reader gets its bytes:
//
//   - It takes a seat in a transfer that is near its position, or begins one. A transfer streams in order into a window in
//     memory; the fastest of its readers leads, and the window trails behind, so that others may be slower for a while and
//     late comers may join. See transfer.go.
//   - A reader that the window leaves behind begins a transfer where it stands, which others that are about as slow may join.
//     Nobody waits for the slow.
//   - Where no memory is left, or a content has windows enough, a reader goes on alone: it streams straight from the source
//     into the caller's buffer.
//   - A transfer ends where those that began it were going to read to, and with its last reader. Whoever reads on further,
//     or elsewhere, takes its next seat there.
//   - When a source breaks off, the stream goes on from its last good byte. See stream.go.
//   - Who reads on from the start, or from where a hasher of all before it was given, gets the last byte only after the digest
//     matched, through however many transfers it came: each tells its readers the hash of all before.
//
// It knows neither HTTP nor registries nor files.
package relay

import (
	"context"
	"errors"
	"hash"
	"io"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
)

var (
	// ErrDigest says that the source's bytes are not what the digest stands for. Nobody who read all got the last of them.
	ErrDigest = errors.New("relay: content does not match its digest")
	// ErrClosed says that the program is shutting down.
	ErrClosed = errors.New("relay: shutting down")

	// errOther marks the failure of a transfer from another reader's source: one's own may do better.
	errOther = errors.New("relay: another reader's source failed")
)

const (
	// memory is the default of Options.Memory: sixteen contents at a time are shared.
	memory = 64 << 20

	// maxTransfers is how many windows a content may have, so that readers scattered over one leave memory to others.
	maxTransfers = 4

	// rounds is how many sources of others a Join waits for in vain before it fails; the bound is for crowds that come with
	// ever new bad ones.
	rounds = 4
)

// Source is where the content comes from. Sources that are equal (==) are taken to answer alike.
type Source interface {
	// Open streams the content from offset on: length bytes of it, or all that follow if length is -1. It may stream
	// more than that. ctx ends the stream too.
	Open(ctx context.Context, offset, length int64) (Stream, error)
	// Distrust tells that one of its origins had a hand in what does not match the digest.
	Distrust(origin string)
}

// Stream is a source's answer.
type Stream struct {
	Body   io.ReadCloser
	Size   int64  // of the whole content; -1: the source does not say
	Origin string // who sends it
}

// Options say how content is relayed.
type Options struct {
	// Final reports whether a source's error is an answer that asking again will not change; nil: none is.
	Final func(error) bool
	// Memory is how many bytes all windows together may take; zero: 64 MiB. Readers beyond that share nothing.
	Memory int64
}

// Start says where a reader begins and what is known of what comes before.
type Start struct {
	// Offset is the first byte that it is going to read, as far as known, and To up to where; math.MaxInt64 is the end.
	Offset, To int64
	// Size is that of the whole content if the source states none, or -1.
	Size int64
	// Hasher has hashed all before Offset, with the digest's algorithm. Join takes it over. At offset 0 none is needed;
	// elsewhere what is read can't be verified without.
	Hasher hash.Hash
}

// Relays are the transfers under way. Its methods may be called concurrently.
type Relays struct {
	opts Options
	ctx  context.Context // ends when Close is called
	stop context.CancelCauseFunc
	wg   sync.WaitGroup

	mu sync.Mutex // taken before that of a transfer
	// guards following
	transfers map[digest.Digest][]*transfer
	reserved  int64 // bytes for windows
	alone     int   // readers with a stream of their own
	readers   int
}

// New returns Relays that are ready; Close ends them.
func New(opts Options) *Relays {
	if opts.Final == nil {
		opts.Final = func(error) bool { return false }
	}
	if opts.Memory == 0 {
		opts.Memory = memory
	}
	ctx, stop := context.WithCancelCause(context.Background())
	return &Relays{opts: opts, ctx: ctx, stop: stop, transfers: make(map[digest.Digest][]*transfer)}
}

// Close ends all transfers, whose readers get ErrClosed, and waits for them.
func (s *Relays) Close() {
	s.mu.Lock()
	s.stop(ErrClosed) // under the lock: no transfer begins once ctx has ended
	s.mu.Unlock()
	s.wg.Wait()
}

// Join returns a reader, from a transfer under way that covers the offset (joined) or from a new one. It returns when the
// source has answered, or with its error or ctx's. ctx also ends the reader's waiting later.
//
// The failure of somebody else's source is not this caller's answer: its own source is tried then.
func (s *Relays) Join(ctx context.Context, d digest.Digest, src Source, at Start) (r *Reader, joined bool, err error) {
	r, from := s.newReader(ctx, d, src, at)
	for range rounds {
		l, joined, err := s.board(r, from)
		if err != nil {
			return nil, false, err
		}
		err = s.admit(r, l)
		if err == nil {
			return r, joined, nil
		}
		if !errors.Is(err, errOther) || ctx.Err() != nil {
			return nil, joined, err
		}
	}
	return nil, true, errors.New("relay: sources of others kept failing")
}

// Attach is Join for a transfer under way that covers the offset; ok is false if there is none, or if it fails to answer.
// at.Hasher remains the caller's then.
func (s *Relays) Attach(ctx context.Context, d digest.Digest, src Source, at Start) (r *Reader, ok bool) {
	r, from := s.newReader(ctx, d, src, at)
	s.mu.Lock()
	st := s.seatLocked(r, from)
	s.mu.Unlock()
	if st == nil || s.admit(r, st) != nil {
		return nil, false
	}
	return r, true
}

func (s *Relays) newReader(ctx context.Context, d digest.Digest, src Source, at Start) (*Reader, proof) {
	r := &Reader{relays: s, ctx: ctx, digest: d, src: src, size: -1, expect: at.Size, pos: at.Offset, from: at.Offset, to: at.To}
	if at.Hasher != nil {
		return r, proof{at.Offset, at.Hasher}
	}
	return r, r.fresh()
}

// admit makes l the first leg of r, once its source has answered.
func (s *Relays) admit(r *Reader, l leg) error {
	size, err := l.answer()
	if err != nil {
		l.Close()
		return err
	}
	r.size, r.leg, r.stands = size, l, r.pos
	s.count(0, 1)
	return nil
}

// board returns what r reads from next: a seat in a transfer that covers its position (joined) or, if
// there is memory for it, in a new one, or else a stream of its own. from is the proof of all before, which l takes over.
//
// Readers that come to the same place at the same time share one request: the first puts its transfer into the map in the
// same critical section in which it found none, and the others find it, although its source has not answered yet.
func (s *Relays) board(r *Reader, from proof) (l leg, joined bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil, false, ErrClosed
	}
	if st := s.seatLocked(r, from); st != nil {
		return st, true, nil
	}
	body := newStream(r, from, s.opts.Final)
	need := min(window, body.to-from.at)
	if len(s.transfers[r.digest]) >= maxTransfers || s.reserved+need > s.opts.Memory {
		s.alone++
		return newLone(r, body), false, nil
	}
	t := newTransfer(s.ctx, body, need)
	s.reserved += need
	s.transfers[r.digest] = append(s.transfers[r.digest], t)
	st := t.seat(r) // before it runs: a transfer without readers ends
	s.wg.Go(func() { s.run(r.digest, t) })
	return st, false, nil
}

// seatLocked returns a seat for r in a transfer that covers its position; nil if there is none.
func (s *Relays) seatLocked(r *Reader, from proof) *seat {
	for _, t := range s.transfers[r.digest] {
		if st := t.board(r, from); st != nil {
			return st
		}
	}
	return nil
}

// run carries a transfer from its start to being forgotten. Its memory is counted until then.
func (s *Relays) run(d digest.Digest, t *transfer) {
	_, err := t.stream.answer()
	if err == nil {
		t.answered()
		s.reserve(t, min(window, t.stream.to-t.stream.at))
		err = t.carry()
	}
	t.stream.Close()
	t.end(err)
	<-t.ctx.Done() // readers may be in its window still
	t.discard()
	s.reserve(t, 0)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.transfers[d] = slices.DeleteFunc(s.transfers[d], func(o *transfer) bool { return o == t })
	if len(s.transfers[d]) == 0 {
		delete(s.transfers, d)
	}
}

// reserve lowers what is reserved for the transfer's window.
func (s *Relays) reserve(t *transfer, n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved -= t.reserved - n
	t.reserved = n
}

// count takes down that there are so many more, or fewer.
func (s *Relays) count(alone, readers int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.alone += alone
	s.readers += readers
}

// Stats returns how many transfers there are at this moment, shared ones and those of single readers, and how many readers.
func (s *Relays) Stats() (transfers, readers int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	transfers = s.alone
	for _, ts := range s.transfers {
		transfers += len(ts)
	}
	return transfers, s.readers
}
