package fill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"

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
	full    int64 // how many bytes storage takes before it fails; 0: all
}

type parked struct {
	b     []byte
	state []byte
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
func (w *world) open() {
	w.Fills = New(Options{
		Kept: func(d digest.Digest) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			_, ok := w.kept[d]
			return ok
		},
		Create: func(d digest.Digest, size int64) (File, error) {
			f := &memFile{w: w, d: d, b: make([]byte, size)}
			w.mu.Lock()
			defer w.mu.Unlock()
			w.files[f] = true
			return f, nil
		},
		Parked: func(d digest.Digest) (File, []byte, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			p, ok := w.parked[d]
			if !ok {
				return nil, nil, false
			}
			delete(w.parked, d)
			f := &memFile{w: w, d: d, b: p.b}
			w.files[f] = true
			return f, p.state, true
		},
		Final: func(err error) bool { return errors.Is(err, errFinal) },
		Done: func(r Report) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.reports = append(w.reports, r)
		},
	})
}

func (w *world) content(d digest.Digest) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.kept[d]
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
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	f.w.parked[f.d] = parked{f.b, state}
	return nil
}

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

var errFinal = errors.New("no such thing")

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
	held   int             // how many streams the gate holds; 0: all
}

// release makes the gate hold the first n streams only.
func (s *source) release(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = n
}

func (s *source) Open(ctx context.Context, offset, length int64) (io.ReadCloser, int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opened = append(s.opened, offset)
	if err := s.fails[int64(len(s.opened))]; err != nil {
		return nil, 0, err
	}
	st := &stream{s: s, ctx: ctx, pos: offset, end: int64(len(s.content))}
	st.gated = s.open != nil && (s.held == 0 || len(s.opened) <= s.held)
	if length >= 0 {
		st.end = offset + length
		st.closed = true
	}
	if len(s.cuts) > 0 {
		st.end, s.cuts, st.closed = s.cuts[0], s.cuts[1:], false
	}
	if s.silent {
		return st, -1, nil
	}
	return st, int64(len(s.content)), nil
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
	n := copy(p, st.s.content[st.pos:limit])
	st.pos += int64(n)
	st.s.mu.Lock()
	st.s.sent += int64(n)
	st.s.mu.Unlock()
	return n, nil
}

func (*stream) Close() error { return nil }

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

func TestReadersFollowOneTransferWhileItLands(t *testing.T) {
	content, d := random(1 << 20)
	w := newWorld(t)
	src := &source{content: content, gate: 600_000, open: make(chan struct{})}
	var readers []*Reader
	for range 8 {
		r := join(t, w, d, src)
		defer r.Close()
		expectRead(t, r, content[:600_000]) // all that has landed is there before the rest is sent
		readers = append(readers, r)
	}
	late := join(t, w, d, src)
	defer late.Close()
	if _, err := late.Seek(-5, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	close(src.open)
	for _, r := range readers {
		expectRead(t, r, content[600_000:])
		if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Fatalf("after the end: %d, %v", n, err)
		}
	}
	expectRead(t, late, content[len(content)-5:])
	w.Close()
	if got := src.asked(); len(got) != 1 {
		t.Errorf("source was opened at %v, want once", got)
	}
	if !bytes.Equal(w.content(d), content) {
		t.Error("content is not kept")
	}
	if len(w.reports) != 1 || w.reports[0].Readers != 9 || w.reports[0].Err != nil {
		t.Errorf("reports %+v", w.reports)
	}
}

func TestLastByteIsShownOnlyIfDigestMatches(t *testing.T) {
	content, _ := random(300_000)
	_, other := random(300_001)
	w := newWorld(t)
	src := &source{content: content}
	r := join(t, w, other, src)
	defer r.Close()
	got, err := io.ReadAll(r)
	if !errors.Is(err, ErrDigest) || len(got) != len(content)-1 {
		t.Fatalf("got %d bytes of %d and %v", len(got), len(content), err)
	}
	w.Close()
	if len(w.kept) > 0 {
		t.Error("wrong content was kept")
	}
}

func TestFillGoesOnWhenAllReadersLeave(t *testing.T) {
	content, d := random(100_000)
	w := newWorld(t)
	src := &source{content: content, gate: 50_000, open: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	first, _, err := w.Join(ctx, d, -1, src, Whole)
	if err != nil {
		t.Fatal(err)
	}
	second := join(t, w, d, src)
	cancel()
	if _, err := first.Seek(70_000, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Fatalf("a reader that left waits on: %v", err)
	}
	first.Close()
	expectRead(t, second, content[:50_000])
	second.Close()
	synced := make(chan struct{})
	go func() { // Close would cut the fill off, so it is awaited by joining it
		defer close(synced)
		r, _, err := w.Join(t.Context(), d, -1, src, Whole)
		if errors.Is(err, ErrKept) {
			return
		}
		_, _ = io.Copy(io.Discard, r)
		r.Close()
	}()
	close(src.open)
	<-synced
	w.Close()
	if !bytes.Equal(w.content(d), content) || len(src.asked()) != 1 {
		t.Errorf("kept %d bytes after opening at %v", len(w.content(d)), src.asked())
	}
}

func TestBrokenSourceIsResumedFromLastGoodByte(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(1 << 20)
		w := newWorld(t)
		src := &source{content: content, cuts: []int64{200_000, 200_000, 900_000}, fails: map[int64]error{3: errors.New("502")}}
		r := join(t, w, d, src)
		expectRead(t, r, content)
		r.Close()
		w.Close()
		if got, want := fmt.Sprint(src.asked()), "[0 200000 200000 200000 900000]"; got != want {
			t.Errorf("opened at %s, want %s", got, want)
		}
	})
}

func TestSourceThatBringsNothingMoreIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(1 << 20)
		w := newWorld(t)
		src := &source{content: content}
		for range 20 {
			src.cuts = append(src.cuts, 1000)
		}
		r := join(t, w, d, src)
		defer r.Close()
		got, err := io.ReadAll(r)
		if err == nil || !bytes.Equal(got, content[:1000]) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if n := len(src.asked()); n != tries+1 {
			t.Errorf("opened %d times", n)
		}
	})
}

func TestAnswerOfSourceEndsFillAtOnce(t *testing.T) {
	content, d := random(1000)
	w := newWorld(t)
	for name, src := range map[string]*source{
		"at first":      {content: content, fails: map[int64]error{1: errFinal}},
		"when resuming": {content: content, cuts: []int64{10}, fails: map[int64]error{2: errFinal}},
	} {
		t.Run(name, func(t *testing.T) {
			r, _, err := w.Join(t.Context(), d, -1, src, Whole)
			if err == nil {
				_, err = io.ReadAll(r)
				r.Close()
			}
			if !errors.Is(err, errFinal) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestFailureOfAnothersSourceIsNotTheAnswer(t *testing.T) {
	content, d := random(1000)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		bad := &slowFailure{release: make(chan struct{})}
		good := &source{content: content}
		refused := make(chan error)
		go func() {
			_, _, err := w.Join(t.Context(), d, -1, bad, Whole)
			refused <- err
		}()
		synctest.Wait() // the bad source leads
		served := make(chan error)
		go func() {
			r, _, err := w.Join(t.Context(), d, -1, good, Whole)
			if err == nil {
				_, err = io.ReadAll(r)
				r.Close()
			}
			served <- err
		}()
		synctest.Wait() // the good one waits for it
		close(bad.release)
		if err := <-refused; !errors.Is(err, errFinal) {
			t.Errorf("leader got %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("follower got %v", err)
		}
	})
}

type slowFailure struct{ release chan struct{} }

func (s *slowFailure) Open(context.Context, int64, int64) (io.ReadCloser, int64, error) {
	<-s.release
	return nil, 0, errFinal
}

func TestStorageFailureIsToldApart(t *testing.T) {
	content, d := random(1 << 20)
	w := newWorld(t)
	w.full = 500_000
	src := &source{content: content, gate: 400_000, open: make(chan struct{})}
	r := join(t, w, d, src)
	defer r.Close()
	close(src.open)
	got, err := io.ReadAll(r)
	if !errors.Is(err, ErrStorage) || !bytes.Equal(got, content[:len(got)]) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	prefix := make([]byte, len(got))
	if _, err := r.ReadAt(prefix, 0); err != nil || !bytes.Equal(prefix, got) {
		t.Errorf("what landed can't be read again: %v", err)
	}
}

func TestContentKeptMeanwhileIsNotTransferredAgain(t *testing.T) {
	content, d := random(1000)
	w := newWorld(t)
	w.kept[d] = content
	src := &source{content: content}
	if _, _, err := w.Join(t.Context(), d, -1, src, Whole); !errors.Is(err, ErrKept) || len(src.asked()) > 0 {
		t.Errorf("got %v after opening at %v", err, src.asked())
	}
}

func TestSizes(t *testing.T) {
	for name, test := range map[string]struct {
		size   int
		silent bool
		expect int64
		fails  bool
	}{
		"empty":                     {size: 0, expect: -1},
		"one byte":                  {size: 1, expect: -1},
		"stated nowhere":            {size: 10, silent: true, expect: -1, fails: true},
		"stated by the manifest":    {size: 10, silent: true, expect: 10},
		"manifest is not believed":  {size: 10, expect: 7},
		"a chunk":                   {size: chunk, expect: -1},
		"a byte more than a chunk":  {size: chunk + 1, expect: -1},
		"manifest says too much":    {size: 10, silent: true, expect: 11, fails: true},
		"manifest says not enough":  {size: 10, silent: true, expect: 9, fails: true},
		"empty, stated nowhere":     {size: 0, silent: true, expect: -1, fails: true},
		"empty, stated by manifest": {size: 0, silent: true, expect: 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				content, d := random(test.size)
				w := newWorld(t)
				r, _, err := w.Join(t.Context(), d, test.expect, &source{content: content, silent: test.silent}, Whole)
				var got []byte
				if err == nil {
					got, err = io.ReadAll(r)
					r.Close()
				}
				if (err != nil) != test.fails {
					t.Fatalf("got %v", err)
				}
				if err == nil && !bytes.Equal(got, content) {
					t.Errorf("got %d bytes", len(got))
				}
			})
		})
	}
}

func TestCloseCutsReadersOff(t *testing.T) {
	content, d := random(1000)
	w := newWorld(t)
	r := join(t, w, d, &source{content: content, gate: 500, open: make(chan struct{})})
	defer r.Close()
	w.Close()
	if got, err := io.ReadAll(r); !errors.Is(err, ErrClosed) || len(got) > 500 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, _, err := w.Join(t.Context(), d, -1, &source{content: content}, Whole); !errors.Is(err, ErrClosed) {
		t.Errorf("joined after Close: %v", err)
	}
}

// TestReadersAgreeWithModel has readers seek, read and leave at random while the source breaks off at random, and holds
// every byte against the content.
func TestReadersAgreeWithModel(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				rng := rand.New(rand.NewPCG(seed, 1))
				content, d := random(1 + rng.IntN(3<<20))
				w := newWorld(t)
				src := &source{content: content}
				for at := int64(0); at < int64(len(content)); {
					at += progress + rng.Int64N(1<<20)
					if at < int64(len(content)) {
						src.cuts = append(src.cuts, at)
					}
				}
				var wg sync.WaitGroup
				for range 12 {
					readerSeed := rng.Uint64()
					wg.Go(func() { wander(t, w, d, src, content, rand.New(rand.NewPCG(readerSeed, 2))) })
				}
				wg.Wait()
				w.Close()
			})
		})
	}
}

func wander(t *testing.T, w *world, d digest.Digest, src Source, content []byte, rng *rand.Rand) {
	r, _, err := w.Join(t.Context(), d, -1, src, Whole)
	if errors.Is(err, ErrKept) {
		if !bytes.Equal(w.content(d), content) {
			t.Error("kept content is wrong")
		}
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Close()
	for range rng.IntN(50) {
		pos := rng.Int64N(int64(len(content)) + 1)
		if _, err := r.Seek(pos, io.SeekStart); err != nil {
			t.Error(err)
			return
		}
		want := content[pos:min(int64(len(content)), pos+rng.Int64N(1<<18))]
		got := make([]byte, len(want))
		if _, err := io.ReadFull(r, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("at %d: %d bytes, %v", pos, len(want), err)
			return
		}
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
		synctest.Wait()
	}
}

func TestPartCostsWhatItAsksFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(16 << 20)
		w := newWorld(t)
		src := &source{content: content}
		w.part(t, d, src, content, 8<<20, 8<<20+1<<16)
		w.idle()
		w.part(t, d, src, content, 8<<20+100, 8<<20+200) // is here
		w.idle()
		w.part(t, d, src, content, -1000, 1<<40)
		w.idle()
		if src.sent != 1<<16+1000 {
			t.Errorf("%d bytes were fetched", src.sent)
		}
		if got := fmt.Sprint(src.asked()); got != fmt.Sprint([]int64{8 << 20, 16<<20 - 1000}) {
			t.Errorf("opened at %s", got)
		}
	})
}

func TestPartsAddUpToTheWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(16<<20 + 123)
		w := newWorld(t)
		src := &source{content: content}
		for from := int64(0); from < 9<<20; from += 1 << 20 {
			w.part(t, d, src, content, from+3<<20, from+4<<20)
		}
		w.idle()
		if !bytes.Equal(w.content(d), content) {
			t.Fatal("the content is not kept")
		}
		if src.sent != int64(len(content)) {
			t.Errorf("%d bytes were fetched of %d", src.sent, len(content))
		}
	})
}

func TestWholeTakesUpPartsThatAreThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(16 << 20)
		w := newWorld(t)
		src := &source{content: content}
		w.part(t, d, src, content, 5<<20, 6<<20)
		w.part(t, d, src, content, -1<<20, 1<<40)
		w.Close() // and a restart in between
		w.open()
		w.part(t, d, src, content, 0, 1<<40)
		w.idle()
		if !bytes.Equal(w.content(d), content) || src.sent != int64(len(content)) {
			t.Errorf("kept %d bytes, fetched %d of %d, at %v", len(w.content(d)), src.sent, len(content), src.asked())
		}
	})
}

func TestReaderFarAheadGetsTransferOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(32 << 20)
		w := newWorld(t)
		src := &source{content: content, gate: 1 << 20, open: make(chan struct{})}
		first := join(t, w, d, src)
		defer first.Close()
		expectRead(t, first, content[:1<<20])
		src.release(1) // the first stream stays held back
		w.part(t, d, src, content, 20<<20, 21<<20)
		close(src.open)
		expectRead(t, first, content[1<<20:])
		w.idle()
		if src.sent != int64(len(content)) {
			t.Errorf("%d bytes were fetched of %d, at %v", src.sent, len(content), src.asked())
		}
	})
}

func TestEndOfContentIsHadWhileTheWholeIsOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(32 << 20)
		w := newWorld(t)
		src := &source{content: content, gate: 1 << 20, open: make(chan struct{})}
		first := join(t, w, d, src)
		defer first.Close()
		src.release(1)
		w.part(t, d, src, content, -1000, math.MaxInt64)
		close(src.open)
		expectRead(t, first, content)
	})
}

func TestParkedContentThatLiesIsFetchedWholeOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(8 << 20)
		for name, spoil := range map[string]func(*parked){
			"torn bytes":      func(p *parked) { p.b[3<<20+5] ^= 1 },
			"noise for state": func(p *parked) { p.state = []byte("noise") },
			"no state":        func(p *parked) { p.state = nil },
			"other size":      func(p *parked) { p.b, p.state = p.b[:5], []byte(`{"size":5,"spans":[[0,5]]}`) },
		} {
			w := newWorld(t)
			src := &source{content: content}
			w.part(t, d, src, content, 3<<20, 4<<20)
			w.idle()
			p := w.parked[d]
			spoil(&p)
			w.parked[d] = p
			for range 2 {
				r, _, err := w.Join(t.Context(), d, -1, src, Whole)
				if errors.Is(err, ErrKept) {
					continue
				}
				if err != nil {
					t.Fatal(name, err)
				}
				if got, err := io.ReadAll(r); err == nil && !bytes.Equal(got, content) {
					t.Errorf("%s: wrong bytes", name)
				}
				r.Close()
				w.idle()
			}
			if !bytes.Equal(w.content(d), content) || src.sent > 2*int64(len(content))+1<<20 {
				t.Errorf("%s: kept %d bytes, fetched %d", name, len(w.content(d)), src.sent)
			}
		}
	})
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"size":10,"spans":[[0,5],[7,9]],"hashed":5,"hash":"AA=="}`), int64(3))
	f.Add([]byte(`{"size":-1,"spans":[[5,0]]}`), int64(0))
	f.Fuzz(func(t *testing.T, b []byte, off int64) {
		s, have, hasher, err := parseState(b, digest.SHA256)
		if err != nil {
			return
		}
		if hasher == nil || have.total() > s.Size || s.Hashed > have.end(0) {
			t.Errorf("%s became %+v %v", b, s, have)
		}
	})
}
