// Package fill transfers content from a source into a file, each byte once, while any number of readers follow.
//
// The life of a fill:
//
//   - The first Join for a digest starts it; the source is asked on a context of the fill's own, so no reader's leaving
//     can disturb it. Join returns when the source has answered.
//   - Workers stream from the source into the file, and the spans that have landed are taken down. Each reader reads from
//     the file at its own pace, wherever it wants, and waits where nothing has landed yet: a slow reader slows nobody.
//   - Demand decides where workers go, see plan.go. A reader of the whole makes the fill fetch the whole; readers of parts
//     make it fetch these parts.
//   - When the source breaks off, a worker goes on from its last good byte; readers notice only a pause. A source that gives
//     up for good is replaced by that of another reader, if there is one.
//   - A large whole is fetched by several workers side by side, for as long as that is faster than fewer, see crowd.go.
//   - The digest is computed as the bytes land. The last byte is shown to nobody before it matched: content that is
//     wrong is never complete anywhere.
//   - Then the file is committed, and only then the fill is forgotten. So at any moment the content is either committed or
//     there is a fill for it to join: nobody who looks in that order, and again inside the fill, transfers it twice.
//   - A fill that fails, that nobody needs more of, or that Close ends, is parked: its spans stay with its file, and the next
//     Join takes them up, also after a restart. What did not match its digest is discarded instead, and whoever had a hand
//     in it is told on.
//
// It knows neither HTTP nor registries nor where files live.
package fill

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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

	// errParked ends a fill that nobody needed more of. Who joined it too late joins the next.
	errParked = errors.New("fill: parked")
)

// Source is where the content comes from. Sources that are equal (==) are taken to answer alike.
type Source interface {
	// Open streams the content, or a part of it. ctx ends the stream too.
	Open(ctx context.Context, r Request) (Stream, error)
	// Distrust tells that what one of its origins sent is not what it was asked for.
	Distrust(origin string)
}

// Request is what is asked of a source.
type Request struct {
	Offset    int64
	Length    int64       // -1: all that follow
	Beside    int         // how many transfers bring the content already; beside others, a source may refuse one rather than strain itself
	Waiting   func() bool // whether a reader waits for it: while none does, it has time
	Validator string      // of an earlier stream of this source's
}

// Stream is a source's answer.
type Stream struct {
	Body      io.ReadCloser // from the offset on; it may be longer than was asked for
	Size      int64         // of the whole content; -1: the source does not say
	Origin    string        // who sends it
	Validator string        // stands for this version of the content; empty: there is none
}

// File is where the content lands. One of Commit, Discard and Park ends the writing; Close comes after the last read.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Reserve sees to it that there is room for all of the content: it is all going to be written.
	Reserve() error
	// Reopen opens it once more, for reading at a position of its own. It may fail.
	Reopen() (io.ReadSeekCloser, error)
	// Commit makes the whole content visible under its digest. After an error it was discarded.
	Commit() error
	// Discard gives it up.
	Discard()
	// Park keeps what has landed for Options.Parked to find, and state with it. After an error it was discarded.
	Park(state []byte) error
	// Save is for the case that there will be no Park: it writes the state while the writing goes on.
	Save(state []byte) error
}

// Part is the bytes [From, To) of the content: what a reader is going to read, as far as it is known. A negative From counts
// from the end, and To may lie beyond it.
type Part struct {
	From, To int64
	Ranged   bool // it was asked for as a range: the reader may take less, and others may take the rest
}

// Whole is all of the content.
var Whole = Part{To: math.MaxInt64}

// of is the part of content of that size.
func (p Part) of(size int64) span {
	if p.From < 0 {
		p.From = max(0, p.From+size)
	}
	return span{min(p.From, size), max(min(p.From, size), min(p.To, size))}
}

// Options carry what the fills need of their surroundings, and how they are to go about it; the functions but Done are
// required.
type Options struct {
	// Fits reports whether content of that size could be kept, if need be instead of all other.
	Fits func(size int64) bool
	// Kept reports whether the content is committed.
	Kept func(digest.Digest) bool
	// Create opens a file for content of that size, of which so much is going to be written at first.
	Create func(d digest.Digest, size, first int64) (File, error)
	// Parked opens the file that was parked with a state; ok is false if there is none. intact tells that the file has not
	// changed since the state was written.
	Parked func(digest.Digest) (f File, state []byte, intact, ok bool)
	// Final reports whether a source's error is an answer that asking again will not change.
	Final func(error) bool
	// Throttled reports whether a source's error says that it is asked too much.
	Throttled func(error) bool
	// Pause is how long a source's error wants to be left alone for; nil: no longer than any other.
	Pause func(error) time.Duration
	// Done is told how each fill ended, when it is forgotten.
	Done func(Report)

	Whole bool // who asks for a part gets the whole fetched
	Park  bool // what no reader is left for is parked, also when it is the whole
}

// Report says how a fill ended.
type Report struct {
	Digest  digest.Digest
	Size    int64 // -1 if the source never answered and none was expected
	Readers int   // how many readers it has had
	Source  Source
	Parked  bool  // it ended before the content was whole, because nobody needed more of it
	Err     error // nil when the content is kept, or parked
}

// Fills are the transfers in flight, at most one for a digest. Its methods may be called concurrently.
type Fills struct {
	opts Options
	ctx  context.Context // ends when Close is called
	stop context.CancelCauseFunc
	wg   sync.WaitGroup

	mu sync.Mutex // taken before that of a flight
	// guards following
	flights map[digest.Digest]*flight
	doubts  map[digest.Digest][]origin // who had a hand in wrong bytes of a content, while it is not known whose they were

	habits    habits
	abandoned atomic.Int32 // how many flights go on although no reader is left
}

// New returns Fills that are ready; Close ends them.
func New(opts Options) *Fills {
	ctx, stop := context.WithCancelCause(context.Background())
	if opts.Pause == nil {
		opts.Pause = func(error) time.Duration { return 0 }
	}
	return &Fills{opts: opts, ctx: ctx, stop: stop, flights: make(map[digest.Digest]*flight),
		doubts: make(map[digest.Digest][]origin)}
}

// Close ends the fills in flight, whose readers get ErrClosed, and waits for them. What has landed is parked.
func (s *Fills) Close() {
	s.mu.Lock()
	s.stop(ErrClosed) // under the lock: Join starts no flight once ctx has ended
	s.mu.Unlock()
	s.wg.Wait()
}

// Join returns a reader at the content's start, from the fill in flight or from a new one. It returns when the source has
// answered, or with the error that the fill failed with, or with ctx's. expect is the size to go by if the source states
// none, or -1. part is what is going to be read. joined tells that the fill was in flight before. ctx also ends the reader's
// waiting later.
//
// A fill that somebody else's source failed is not this caller's answer: its own source is tried then.
func (s *Fills) Join(ctx context.Context, d digest.Digest, expect int64, src Source, part Part) (r *Reader, joined bool, err error) {
	// Each round either leads its own source, or waits for a leader that is gone afterwards; the bound is for crowds that
	// come with ever new bad sources.
	for range 4 {
		f, joined, err := s.attach(d, expect, src, part)
		if err != nil {
			return nil, false, err
		}
		r, err := f.reader(ctx, part)
		if err == nil && joined {
			f.offer(src)
		}
		again := errors.Is(err, errParked) || joined && f.src != src
		if err == nil || !again || ctx.Err() != nil {
			return r, joined, err
		}
	}
	return nil, true, errors.New("fill: sources of others kept failing")
}

// Attach is Join for a fill in flight only; ok is false when there is none. The reader is not expected to read.
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
	r, err = f.reader(ctx, Part{})
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
// has been forgotten by then, starts another (B). B looks at what is kept before it asks its source. A was forgotten after
// its commit, so B finds that, and ends with ErrKept.
func (s *Fills) attach(d digest.Digest, expect int64, src Source, part Part) (f *flight, joined bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil {
		return nil, false, ErrClosed
	}
	f, joined = s.flights[d]
	if !joined {
		f = newFlight(s, d, expect, src, part)
		f.single = s.doubts[d] != nil
		s.flights[d] = f
	}
	f.refer() // before it runs: a flight without readers may end at once
	if !joined {
		s.wg.Go(func() { s.run(f) })
	}
	return f, joined, nil
}

// maxDoubts bounds what is remembered of wrong bytes: more than there are registries that mix right ones with wrong.
const maxDoubts = 1000

// doubt remembers that wrong bytes of some content came, from one of several.
func (s *Fills) doubt(d digest.Digest, among []origin) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.doubts) < maxDoubts {
		s.doubts[d] = among
	}
}

// resolve takes down who brought all of some content, and right. If one other had a hand in the wrong bytes that had come
// before, these were its own.
func (s *Fills) resolve(d digest.Digest, by map[origin]bool) {
	s.mu.Lock()
	among := s.doubts[d]
	delete(s.doubts, d)
	s.mu.Unlock()
	others := slices.DeleteFunc(among, func(o origin) bool { return by[o] })
	if len(by) == 1 && len(others) == 1 {
		others[0].src.Distrust(others[0].name)
	}
}

// run carries a flight from its start to being forgotten.
func (s *Fills) run(f *flight) {
	err := f.transfer(s.ctx)
	s.mu.Lock()
	delete(s.flights, f.digest)
	s.mu.Unlock()
	if err == nil && !f.resumed {
		s.resolve(f.digest, f.origins)
	}
	// Forgotten before its readers learn of it: one that comes back at once begins a new flight.
	readers := f.end(err)
	report := Report{Digest: f.digest, Size: max(f.sizeNow(), f.expect), Readers: readers, Source: f.src, Err: err}
	if report.Parked = errors.Is(err, errParked); report.Parked {
		report.Err = nil
	}
	if s.opts.Done != nil {
		s.opts.Done(report)
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
