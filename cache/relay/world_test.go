package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errFinal = errors.New("no such thing")

// world is relays that are ended and checked with the test: no stream may be open and no memory taken then.
type world struct {
	*Relays
	t       *testing.T
	sources []*source
}

func newWorld(t *testing.T, memory int64) *world {
	w := &world{t: t, Relays: New(Options{Final: func(err error) bool { return errors.Is(err, errFinal) }, Memory: memory})}
	t.Cleanup(w.check)
	return w
}

func (w *world) check() {
	w.Close()
	for _, src := range w.sources {
		if n := src.streams(); n != 0 {
			w.t.Errorf("%d streams are open", n)
		}
	}
	transfers, readers := w.Stats()
	if reserved, _ := w.memory(); transfers != 0 || readers != 0 || reserved != 0 {
		w.t.Errorf("%d transfers, %d readers and %d bytes are left", transfers, readers, reserved)
	}
}

// memory is how many bytes are reserved for windows, and how many these hold.
func (w *world) memory() (reserved, held int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ts := range w.transfers {
		for _, t := range ts {
			t.mu.Lock()
			for _, c := range t.chunks {
				held += int64(len(c.buf))
			}
			t.mu.Unlock()
		}
	}
	return w.reserved, held
}

func (w *world) source(content []byte) *source {
	src := &source{content: content, size: int64(len(content))}
	w.sources = append(w.sources, src)
	return src
}

// whole is where a reader of all begins.
var whole = from(0)

// from is where a reader begins that reads from an offset to the end.
func from(offset int64) Start { return Start{Offset: offset, To: math.MaxInt64, Size: -1} }

func (w *world) join(d digest.Digest, src Source, at Start) *Reader {
	w.t.Helper()
	r, _, err := w.Join(w.t.Context(), d, src, at)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

// source serves content, as told. Its fields are set before it is used.
type source struct {
	content []byte
	cut     int64         // after how many bytes its streams break off; 0: never
	gate    int64         // the bytes from here on are held back until open is closed
	open    chan struct{} // nil: nothing is held back
	answer  chan struct{} // closed when it may answer; nil: at once
	whole   bool          // streams to the end, whatever length is asked for
	fails   map[int]error // by how many-th Open
	reading func()        // called at every read

	mu         sync.Mutex
	asked      [][2]int64 // offsets and lengths
	distrusted []string
	sent       int64
	size       int64 // that it states
	active     int   // streams
}

func (s *source) Open(ctx context.Context, offset, length int64) (Stream, error) {
	s.mu.Lock()
	s.asked = append(s.asked, [2]int64{offset, length})
	err := s.fails[len(s.asked)]
	s.mu.Unlock()
	if s.answer != nil {
		select {
		case <-s.answer:
		case <-ctx.Done():
			return Stream{}, ctx.Err()
		}
	}
	if err != nil {
		return Stream{}, err
	}
	end := int64(len(s.content))
	if length >= 0 && !s.whole {
		end = min(end, offset+length)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active++
	return Stream{&stretch{s: s, ctx: ctx, from: offset, pos: offset, end: end}, s.size, "here"}, nil
}

func (s *source) Distrust(origin string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.distrusted = append(s.distrusted, origin)
}

func (s *source) requests() [][2]int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func (s *source) streams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.active
}

// stretch is one answer of a source.
type stretch struct {
	s              *source
	ctx            context.Context
	from, pos, end int64
	closed         bool
}

func (b *stretch) Read(p []byte) (int, error) {
	if b.s.reading != nil {
		b.s.reading()
	}
	limit := b.end
	switch {
	case b.ctx.Err() != nil:
		return 0, b.ctx.Err()
	case b.pos >= b.end:
		return 0, io.EOF
	case b.s.cut > 0 && b.pos == b.from+b.s.cut:
		return 0, errors.New("connection reset by peer")
	case b.s.cut > 0:
		limit = min(limit, b.from+b.s.cut)
	}
	if b.s.open != nil && b.pos < b.s.gate {
		limit = min(limit, b.s.gate)
	} else if b.s.open != nil {
		select {
		case <-b.s.open:
		case <-b.ctx.Done():
			return 0, b.ctx.Err()
		}
	}
	n := copy(p, b.s.content[b.pos:limit])
	b.pos += int64(n)
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	b.s.sent += int64(n)
	return n, nil
}

func (b *stretch) Close() error {
	if b.closed {
		panic("closed twice")
	}
	b.closed = true
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	b.s.active--
	return nil
}

func random(n int) ([]byte, digest.Digest) {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)})
	_, _ = rng.Read(b)
	return b, digest.FromBytes(b)
}

// expect reads what is to come next.
func expect(t *testing.T, r *Reader, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r, got); err != nil {
		t.Fatalf("%d bytes of %d: %v", n, len(want), err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("wrong bytes")
	}
}

// expectEnd reads the rest. Any goroutine may call it.
func expectEnd(t *testing.T, r *Reader, want []byte) {
	t.Helper()
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
}

// inStep reads the rest of content with all readers, a little with each in turn.
func inStep(t *testing.T, content []byte, readers ...*Reader) {
	t.Helper()
	for len(content) > 0 {
		n := min(len(content), 200_000)
		for _, r := range readers {
			expect(t, r, content[:n])
		}
		content = content[n:]
	}
}

// expectDigest reads the rest of content that is wrong: all but the last byte comes.
func expectDigest(t *testing.T, r *Reader, rest []byte) {
	t.Helper()
	got, err := io.ReadAll(r)
	if !errors.Is(err, ErrDigest) || !bytes.Equal(got, rest[:max(0, len(rest)-1)]) {
		t.Errorf("%d bytes of %d, %v", len(got), len(rest), err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, ErrDigest) {
		t.Errorf("afterwards: %d, %v", n, err)
	}
}
