// Package fill transfers content from a source into a file, once, while any number of readers follow.
//
// The life of a fill:
//
//   - The first Join for a digest starts it; the source is asked on a context of the fill's own, so no reader's leaving
//     can disturb it. Join returns when the source has answered.
//   - A worker streams the source into the file and publishes how far it has come. Each reader reads from the file at its
//     own pace, wherever it wants, and waits when it has caught up: a slow reader slows nobody.
//   - When the source breaks off, the worker goes on from the last good byte; readers notice only a pause.
//   - The digest is computed as the bytes land. The last byte is shown to nobody before it matched: content that is
//     wrong is never complete anywhere.
//   - Then the file is committed, and only then the fill is forgotten. So at any moment the content is either committed or
//     there is a fill for it to join: nobody who looks in that order, and again inside the fill, transfers it twice.
//   - A fill that fails discards its file, is forgotten, and then tells its readers: the next Join begins afresh.
//
// It knows neither HTTP nor registries nor where files live.
package fill

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"
)

var (
	// ErrKept says that the content was committed meanwhile: open that.
	ErrKept = errors.New("fill: content is already kept")
	// ErrDigest says that the source's bytes are not what the digest stands for. Nobody got the last of them.
	ErrDigest = errors.New("fill: content does not match its digest")
	// ErrStorage says that the file failed, not the source: the content can be had without being kept.
	ErrStorage = errors.New("fill: storage failed")
	// ErrClosed says that the program is shutting down.
	ErrClosed = errors.New("fill: shutting down")
)

// Source is where the content comes from. Sources that are equal (==) are taken to answer alike.
type Source interface {
	// Open streams the content from offset to its end. size is the size of the whole content, or -1 if the source does
	// not say. ctx ends the stream too.
	Open(ctx context.Context, offset int64) (body io.ReadCloser, size int64, err error)
}

// File is where the content lands. Either Commit or Discard ends the writing; Close comes after the last read.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Commit() error
	Discard()
}

// Options carry what the fills need of their surroundings; all but Done are required.
type Options struct {
	// Kept reports whether the content is committed.
	Kept func(digest.Digest) bool
	// Create opens a file for content of that size.
	Create func(d digest.Digest, size int64) (File, error)
	// Final reports whether a source's error is an answer that asking again will not change.
	Final func(error) bool
	// Done is told how each fill ended, when it is forgotten.
	Done func(Report)
}

// Report says how a fill ended.
type Report struct {
	Digest  digest.Digest
	Size    int64 // -1 if the source never answered
	Readers int   // how many readers it has had
	Source  Source
	Err     error // nil when the content is kept
}

// Fills are the transfers in flight, at most one for a digest. Its methods may be called concurrently.
type Fills struct {
	opts Options
	ctx  context.Context // ends when Close is called
	stop context.CancelCauseFunc
	wg   sync.WaitGroup

	mu sync.Mutex
	// guards following
	flights map[digest.Digest]*flight
}

// New returns Fills that are ready; Close ends them.
func New(opts Options) *Fills {
	ctx, stop := context.WithCancelCause(context.Background())
	return &Fills{opts: opts, ctx: ctx, stop: stop, flights: make(map[digest.Digest]*flight)}
}

// Close ends the fills in flight, whose readers get ErrClosed, and waits for them. What is complete gets committed.
func (s *Fills) Close() {
	s.mu.Lock()
	s.stop(ErrClosed) // under the lock: Join starts no worker once ctx has ended
	s.mu.Unlock()
	s.wg.Wait()
}

// Join returns a reader at the content's start, from the fill in flight or from a new one. It returns when the source has
// answered, or with the error that the fill failed with, or with ctx's. expect is the size to go by if the source states
// none, or -1. joined tells that the fill was in flight before. ctx also ends the reader's waiting later.
//
// A fill that somebody else's source failed is not this caller's answer: its own source is tried then.
func (s *Fills) Join(ctx context.Context, d digest.Digest, expect int64, src Source) (r *Reader, joined bool, err error) {
	// Each round either leads its own source, or waits for a leader whose source failed and is gone; the bound is for
	// crowds that come with ever new bad sources.
	for range 4 {
		f, joined, err := s.attach(d, expect, src)
		if err != nil {
			return nil, false, err
		}
		r, err := f.reader(ctx)
		if err == nil || !joined || f.src == src || ctx.Err() != nil {
			return r, joined, err
		}
	}
	return nil, true, errors.New("fill: sources of others kept failing")
}

// Attach is Join for a fill in flight only; ok is false when there is none.
func (s *Fills) Attach(ctx context.Context, d digest.Digest) (r *Reader, ok bool, err error) {
	s.mu.Lock()
	f, ok := s.flights[d]
	if ok {
		f.refer()
	}
	s.mu.Unlock()
	if !ok {
		return nil, false, nil
	}
	r, err = f.reader(ctx)
	return r, true, err
}

// InFlight reports whether there is a fill for the digest.
func (s *Fills) InFlight(d digest.Digest) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flights[d] != nil
}

// attach returns the flight for the digest with one reference more, starting one if there is none.
//
// Of two callers that miss the committed content, one finds no flight and starts one (A), the other finds A's, or, when A
// has been forgotten by then, starts another (B). B's worker looks at what is kept before it asks its source. A was
// forgotten after its commit, so B finds that, and ends with ErrKept.
func (s *Fills) attach(d digest.Digest, expect int64, src Source) (f *flight, joined bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil, false, ErrClosed
	}
	f, joined = s.flights[d]
	if !joined {
		f = newFlight(d, expect, src)
		s.flights[d] = f
		s.wg.Go(func() { s.run(f) })
	}
	f.refer()
	return f, joined, nil
}

// run carries a flight from its start to being forgotten.
func (s *Fills) run(f *flight) {
	err := f.transfer(s.ctx, s.opts)
	s.mu.Lock()
	delete(s.flights, f.digest)
	s.mu.Unlock()
	// Forgotten before its readers learn of a failure: one that comes back at once begins a new flight.
	readers := f.end(err)
	if s.opts.Done != nil {
		s.opts.Done(Report{Digest: f.digest, Source: f.src, Size: f.sizeNow(), Readers: readers, Err: err})
	}
}

// Stats are momentary figures.
type Stats struct {
	Flights int // transfers in flight
	Readers int // readers that follow them
}

// Stats returns the figures of this moment.
func (s *Fills) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Flights: len(s.flights)}
	for _, f := range s.flights {
		st.Readers += f.readersNow()
	}
	return st
}
