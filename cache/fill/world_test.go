package fill

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is what a fill has around it: a source that does as it is told, and storage in memory.
type world struct {
	*Fills
	mu      sync.Mutex
	kept    map[digest.Digest][]byte
	files   map[*memFile]bool // open
	reports []Report
	parked  map[digest.Digest]parked
	noPark  bool    // nothing can be parked
	small   bool    // nothing fits
	full    int64   // how many bytes storage takes before it fails; 0: all
	firsts  []int64 // how much room was asked for at first, of each file
	tight   bool    // there is no room for the whole of what was parked
}

type parked struct {
	b       []byte
	state   []byte
	changed bool // since it was parked
}

func newWorld(t *testing.T) *world {
	w := &world{kept: make(map[digest.Digest][]byte), files: make(map[*memFile]bool), parked: make(map[digest.Digest]parked)}
	w.open()
	t.Cleanup(func() {
		w.Close()
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.files) > 0 {
			t.Errorf("%d files were left open", len(w.files))
		}
	})
	return w
}

// open begins the world's fills, as a program that starts does.
func (w *world) open(change ...func(*Options)) {
	opts := Options{
		Fits:      func(int64) bool { return !w.small },
		Throttled: func(err error) bool { return errors.Is(err, errThrottled) },
		Kept: func(d digest.Digest) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			_, ok := w.kept[d]
			return ok
		},
		Create: func(d digest.Digest, size, first int64) (File, error) {
			f := &memFile{w: w, d: d, b: make([]byte, size)}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.firsts = append(w.firsts, first)
			w.files[f] = true
			return f, nil
		},
		Parked: func(d digest.Digest) (f File, state []byte, intact, ok bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			p, ok := w.parked[d]
			if !ok {
				return nil, nil, false, false
			}
			delete(w.parked, d)
			file := &memFile{w: w, d: d, b: p.b}
			w.files[file] = true
			return file, p.state, !p.changed, true
		},
		Final: func(err error) bool { return errors.Is(err, errFinal) },
		Done: func(r Report) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.reports = append(w.reports, r)
		},
	}
	for _, c := range change {
		c(&opts)
	}
	w.Fills = New(opts)
}

func (w *world) content(d digest.Digest) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.kept[d]
}

// ends is how many fills ended with their content kept, and parked.
func (w *world) ends() (kept, parked int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.reports {
		if r.Parked {
			parked++
		} else if r.Err == nil {
			kept++
		}
	}
	return kept, parked
}

type memFile struct {
	w     *world
	d     digest.Digest
	mu    sync.RWMutex
	b     []byte
	ended bool
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return bytes.NewReader(f.b).ReadAt(p, off)
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.w.full > 0 && off+int64(len(p)) > f.w.full {
		return 0, errors.New("no space left on device")
	}
	return copy(f.b[off:], p), nil
}

func (f *memFile) end() {
	if f.ended {
		panic("ended twice")
	}
	f.ended = true
}

func (f *memFile) Commit() error {
	f.end()
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	f.w.kept[f.d] = f.b
	return nil
}

func (f *memFile) Discard() { f.end() }

func (f *memFile) Park(state []byte) error {
	f.end()
	if f.w.noPark {
		return errors.New("no space left on device")
	}
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	f.w.parked[f.d] = parked{b: f.b, state: state}
	return nil
}

func (f *memFile) Reserve() error {
	if f.w.tight {
		return errors.New("no room")
	}
	return nil
}

func (f *memFile) Reopen() (io.ReadSeekCloser, error) { return nil, errors.New("it lies in memory") }

func (f *memFile) Save([]byte) error { return nil }

func (f *memFile) Close() error {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if !f.ended || !f.w.files[f] {
		panic("closed before its end, or twice")
	}
	delete(f.w.files, f)
	return nil
}

var (
	errFinal     = errors.New("no such thing")
	errEnough    = errors.New("not one more")
	errThrottled = errors.New("too many requests")
)

// source serves content. Bytes from gate on are held back until open is closed.
type source struct {
	content []byte
	gate    int64
	open    chan struct{}

	mu     sync.Mutex
	opened []int64 // the offsets asked for
	sent   int64
	cuts   []int64         // where the streams break off, one after the other
	fails  map[int64]error // by how many-th Open
	silent bool            // states no size
	sizes  []int64         // what it states instead of the truth, one after the other
	whole  bool            // streams to the end, whatever length is asked for
	held   int             // how many streams the gate holds; 0: all

	origin, validator string
	distrusted        []string
	requests          []Request
	beside            int                                   // how many streams it gives beside the first
	strains           []error                               // what requests for those get, one after the other
	streams, most     int                                   // open now, and at the most
	pace              func(st *stream, n int) time.Duration // how long a stream takes for n bytes
}

// release makes the gate hold the first n streams only.
func (s *source) release(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = n
}

func (s *source) Open(ctx context.Context, r Request) (Stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened = append(s.opened, r.Offset)
	s.requests = append(s.requests, r)
	if err := s.fails[int64(len(s.opened))]; err != nil {
		return Stream{}, err
	}
	if r.Beside > s.beside {
		return Stream{}, errEnough
	}
	if r.Beside > 0 && len(s.strains) > 0 {
		err := s.strains[0]
		if s.strains = s.strains[1:]; err != nil {
			return Stream{}, err
		}
	}
	st := &stream{s: s, ctx: ctx, pos: r.Offset, end: int64(len(s.content)), waiting: r.Waiting}
	st.gated = s.open != nil && (s.held == 0 || len(s.opened) <= s.held)
	if r.Length >= 0 && !s.whole {
		st.end = r.Offset + r.Length
		st.closed = true
	}
	if len(s.cuts) > 0 {
		st.end, s.cuts, st.closed = s.cuts[0], s.cuts[1:], false
	}
	s.streams++
	s.most = max(s.most, s.streams)
	size := int64(len(s.content))
	switch {
	case s.silent:
		size = -1
	case len(s.sizes) > 0:
		size, s.sizes = s.sizes[0], s.sizes[1:]
	}
	return Stream{Body: st, Size: size, Origin: s.origin, Validator: s.validator}, nil
}

func (s *source) Distrust(origin string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.distrusted = append(s.distrusted, origin)
}

func (s *source) asked() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]int64(nil), s.opened...)
}

type stream struct {
	s        *source
	ctx      context.Context
	pos, end int64
	gated    bool
	closed   bool // the end is where it was asked to be
	waiting  func() bool
	ended    bool
}

func (st *stream) Read(p []byte) (int, error) {
	if st.pos >= st.end {
		if st.end < int64(len(st.s.content)) && !st.closed {
			return 0, errors.New("connection reset by peer")
		}
		return 0, io.EOF
	}
	limit := st.end
	if st.gated {
		if st.pos >= st.s.gate {
			select {
			case <-st.s.open:
			case <-st.ctx.Done():
				return 0, st.ctx.Err()
			}
		} else {
			limit = min(limit, st.s.gate)
		}
	}
	if st.s.pace != nil {
		p = p[:min(len(p), 32<<10)] // as a socket gives
	}
	n := copy(p, st.s.content[st.pos:limit])
	if st.s.pace != nil {
		if err := sleep(st.ctx, st.s.pace(st, n)); err != nil {
			return 0, err
		}
	}
	st.pos += int64(n)
	st.s.mu.Lock()
	st.s.sent += int64(n)
	st.s.mu.Unlock()
	return n, nil
}

func (st *stream) Close() error {
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	if st.ended {
		panic("closed twice")
	}
	st.ended = true
	st.s.streams--
	return nil
}

func random(n int) ([]byte, digest.Digest) {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = rng.Read(b)
	return b, digest.FromBytes(b)
}

func join(t *testing.T, w *world, d digest.Digest, src Source) *Reader {
	t.Helper()
	r, _, err := w.Join(t.Context(), d, -1, src, Whole)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func expectRead(t *testing.T, r *Reader, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil {
		t.Fatalf("read %d bytes: %v", len(want), err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("wrong bytes")
	}
}

// part reads part of the content as a client that asks for a range does.
func (w *world) part(t *testing.T, d digest.Digest, src Source, content []byte, from, to int64) {
	t.Helper()
	r, _, err := w.Join(t.Context(), d, int64(len(content)), src, Part{From: from, To: to, Ranged: true})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	at := Part{From: from, To: to}.of(int64(len(content)))
	if _, err := r.Seek(at.from, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	expectRead(t, r, content[at.from:at.to])
}

// idle waits until no fill is in flight.
func (w *world) idle() {
	for w.Stats().Flights > 0 {
		elapse(time.Millisecond)
	}
	synctest.Wait() // its report is out too
}

func digestOf(content []byte) digest.Digest { return digest.FromBytes(content) }

// elapse lets time pass: by the clock of the bubble that all tests which need time run in.
func elapse(d time.Duration) { <-time.After(d) }
