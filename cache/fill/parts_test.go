package fill

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"testing"
	"testing/synctest"

	"github.com/opencontainers/go-digest"
)

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
		for from := int64(0); from < 15<<20; from += 1 << 20 {
			w.part(t, d, src, content, from, from+1<<20)
		}
		w.idle()
		if src.sent != 15<<20 {
			t.Errorf("%d bytes were fetched of %d that were asked for", src.sent, 15<<20)
		}
		w.part(t, d, src, content, 15<<20, 15<<20+1<<19)
		w.idle()
		if !bytes.Equal(w.content(d), content) {
			t.Fatal("the content is not kept")
		}
		if src.sent != int64(len(content)) {
			t.Errorf("%d bytes were fetched of %d", src.sent, len(content))
		}
	})
}

func TestPartsThatAreOpenAddUpToTheWholeAtHalf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(16<<20 + 123)
		w := newWorld(t)
		src := &source{content: content}
		for from := int64(0); from < 9<<20; from += 1 << 20 { // each asks for all that follows, and takes a chunk
			r, _, err := w.Join(t.Context(), d, int64(len(content)), src, Part{From: from, To: math.MaxInt64, Ranged: true})
			if errors.Is(err, ErrKept) { // what was asked for ahead of the one before went beyond half already
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Seek(from, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			expectRead(t, r, content[from:from+1<<20])
			r.Close()
		}
		w.idle()
		if !bytes.Equal(w.content(d), content) || src.sent != int64(len(content)) {
			t.Errorf("kept %d bytes, fetched %d of %d", len(w.content(d)), src.sent, len(content))
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
			"torn and hashed": func(p *parked) { p.b[5], p.changed = p.b[5]^1, true },
			"noise for state": func(p *parked) { p.state = []byte("noise") },
			"no state":        func(p *parked) { p.state = nil },
			"other size":      func(p *parked) { p.b, p.state = p.b[:5], []byte(`{"size":5,"spans":[[0,5]]}`) },
		} {
			w := newWorld(t)
			src := &source{content: content}
			w.part(t, d, src, content, 3<<20, 4<<20)
			w.idle()
			w.part(t, d, src, content, 0, 1<<20)
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
			if !bytes.Equal(w.content(d), content) || src.sent > 2*int64(len(content))+2<<20 {
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

func TestCompleteContentThatWasParkedIsCommitted(t *testing.T) {
	for _, size := range []int{100, window, window + 1, 3 * window} {
		synctest.Test(t, func(t *testing.T) {
			content, d := random(size)
			w := newWorld(t)
			// Killed between the last byte and the commit.
			state := fmt.Sprintf(`{"size":%d,"spans":[[0,%d]]}`, size, size)
			w.parked[d] = parked{b: bytes.Clone(content), state: []byte(state)}
			src := &source{content: content}
			r, _, err := w.Join(t.Context(), d, -1, src, Whole)
			if err == nil {
				expectRead(t, r, content)
				r.Close()
			} else if !errors.Is(err, ErrKept) {
				t.Fatal(size, err)
			}
			w.idle()
			if !bytes.Equal(w.content(d), content) || src.sent > 0 {
				t.Errorf("%d: kept %d bytes, fetched %d", size, len(w.content(d)), src.sent)
			}
		})
	}
}

func TestPartBeyondTheEndStillTellsTheSize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(4 << 20)
		w := newWorld(t)
		src := &source{content: content}
		for _, from := range []int64{4 << 20, 5 << 20} {
			r, _, err := w.Join(t.Context(), d, 4<<20, src, Part{From: from, To: math.MaxInt64, Ranged: true})
			if err != nil {
				t.Fatal(err)
			}
			if r.Size() != 4<<20 {
				t.Errorf("size %d", r.Size())
			}
			r.Close()
			w.idle()
		}
		if src.sent > 2 {
			t.Errorf("%d bytes were fetched", src.sent)
		}
	})
}

func TestWhatCannotBeParkedIsGivenUpOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(8 << 20)
		w := newWorld(t)
		w.noPark = true
		w.part(t, d, &source{content: content}, content, 3<<20, 4<<20) // memFile panics if it is ended twice
		w.idle()
		if len(w.parked) > 0 {
			t.Error("it is parked")
		}
	})
}

func TestSourceThatGivesMoreIsNotAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(40 << 20)
		w := newWorld(t)
		src := &source{content: content, whole: true}
		w.part(t, d, src, content, 0, math.MaxInt64)
		w.idle()
		if got := src.asked(); len(got) != 1 || src.sent != int64(len(content)) || !bytes.Equal(w.content(d), content) {
			t.Errorf("opened at %v, fetched %d of %d", got, src.sent, len(content))
		}
	})
}

func TestParkedFileThatWasCutShortIsFetchedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(16 << 20)
		w := newWorld(t)
		src := &source{content: content}
		w.part(t, d, src, content, 5<<20, 6<<20)
		w.idle()
		w.mu.Lock()
		p := w.parked[d]
		p.b = p.b[:5<<20]
		w.parked[d] = p
		w.mu.Unlock()
		w.part(t, d, src, content, 0, 1<<40)
		w.idle()
		if !bytes.Equal(w.content(d), content) {
			t.Error("the content is not kept")
		}
	})
}

// TestRoomIsAskedForAsItIsWanted looks at what room is asked for before the source's bytes come.
func TestRoomIsAskedForAsItIsWanted(t *testing.T) {
	const size = 16 << 20
	content, d := random(size)
	for name, tt := range map[string]struct {
		part Part
		want int64
	}{
		"whole":            {Whole, size},
		"all of it":        {Part{From: 0, To: size, Ranged: true}, size},
		"some":             {Part{From: 5 << 20, To: 5<<20 + 100, Ranged: true}, 100},
		"much":             {Part{From: 5 << 20, To: 10 << 20, Ranged: true}, window},
		"much, for sure":   {Part{From: 5 << 20, To: 10 << 20}, 5 << 20},
		"all that follows": {Part{From: 5 << 20, To: math.MaxInt64}, size - 5<<20},
		"the end":          {Part{From: -1000, To: math.MaxInt64, Ranged: true}, 1000},
		"nothing":          {Part{From: 2 * size, To: math.MaxInt64, Ranged: true}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				r, _, err := w.Join(t.Context(), d, size, &source{content: content}, tt.part)
				if err != nil {
					t.Fatal(err)
				}
				r.Close()
				w.idle()
				if fmt.Sprint(w.firsts) != fmt.Sprint([]int64{tt.want}) {
					t.Errorf("room for %d was asked for at first, not %d", w.firsts, tt.want)
				}
			})
		})
	}
}

// TestWhatHasNoRoomForTheRestStaysParked asks for the whole of what is there in parts, while there is no room for it.
func TestWhatHasNoRoomForTheRestStaysParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(16 << 20)
		w := newWorld(t)
		src := &source{content: content}
		w.part(t, d, src, content, 0, 1<<20)
		w.idle()
		w.tight = true
		if _, _, err := w.Join(t.Context(), d, int64(len(content)), src, Whole); !errors.Is(err, ErrStorage) {
			t.Errorf("joined: %v", err)
		}
		w.tight = false
		if got, err := readAll(t, w, content, src); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if got := fmt.Sprint(src.asked()); got != fmt.Sprint([]int64{0, 1 << 20, 1 << 20}) {
			t.Errorf("opened at %s", got)
		}
	})
}
