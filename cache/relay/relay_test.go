package relay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/opencontainers/go-digest"
)

func TestReadersInStepShareOneTransfer(t *testing.T) {
	content, d := random(64 << 20)
	w := newWorld(t, 0)
	src := w.source(content)
	var readers []*Reader
	for range 8 {
		r := w.join(d, src, whole)
		defer r.Close()
		readers = append(readers, r)
	}
	inStep(t, content, readers...)
	for _, r := range readers {
		expectEnd(t, r, nil)
	}
	if transfers, n := w.Stats(); transfers != 1 || n != 8 {
		t.Errorf("%d transfers, %d readers", transfers, n)
	}
	expectRequests(t, src, [2]int64{0, -1})
}

func TestReaderThatStopsGoesOnAlone(t *testing.T) {
	content, d := random(16 << 20)
	w := newWorld(t, 0)
	src := w.source(content)
	slow := w.join(d, src, whole)
	defer slow.Close()
	expect(t, slow, content[:300_000])
	var others []*Reader
	for range 7 {
		r := w.join(d, src, whole)
		defer r.Close()
		others = append(others, r)
	}
	inStep(t, content, others...)
	expectEnd(t, slow, content[300_000:])
	expectRequests(t, src, [2]int64{0, -1}, [2]int64{300_000, -1})
}

func TestReaderWithinHalfAWindowFallsNotOut(t *testing.T) {
	content, d := random(16 << 20)
	w := newWorld(t, 0)
	src := w.source(content)
	fast, slow := w.join(d, src, whole), w.join(d, src, whole)
	defer fast.Close()
	defer slow.Close()
	const lag = window/2 - 2*chunk
	expect(t, fast, content[:lag])
	for at := 0; at < len(content)-lag; at += chunk {
		expect(t, fast, content[at+lag:min(len(content), at+lag+chunk)])
		expect(t, slow, content[at:min(len(content), at+chunk)])
	}
	expectRequests(t, src, [2]int64{0, -1})
}

func TestTransferStaysNearItsFastestReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(16 << 20)
		w := newWorld(t, 0)
		src := w.source(content)
		r := w.join(d, src, whole)
		defer r.Close()
		for at := 0; at < len(content); at += 1 << 20 {
			synctest.Wait()
			if sent := src.sent; sent > int64(at)+window/2 || sent < int64(min(len(content), at+ahead)) {
				t.Errorf("%d bytes were fetched for a reader at %d", sent, at)
			}
			expect(t, r, content[at:at+1<<20])
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	const memory = 8 << 20
	w := newWorld(t, memory)
	var wg sync.WaitGroup
	for i := range 10 {
		content, d := random(9<<20 + i)
		src := w.source(content)
		src.reading = func() {
			if reserved, held := w.memory(); held > reserved || reserved > memory {
				t.Errorf("%d bytes are held, %d reserved", held, reserved)
			}
		}
		for range 3 {
			wg.Go(func() {
				r, _, err := w.Join(t.Context(), d, src, whole)
				if err != nil {
					t.Error(err)
					return
				}
				defer r.Close()
				expectEnd(t, r, content)
			})
		}
	}
	wg.Wait()
}

func TestSmallContentTakesLittleMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(1000)
		w := newWorld(t, 0)
		r := w.join(d, w.source(content), whole)
		defer r.Close()
		synctest.Wait()
		if reserved, held := w.memory(); reserved != 1000 || held != 1000 {
			t.Errorf("%d bytes are held, %d reserved", held, reserved)
		}
		expectEnd(t, r, content)
	})
}

func TestBrokenSourceIsResumedFromLastGoodByte(t *testing.T) {
	for name, memory := range map[string]int64{"shared": 0, "alone": -1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				content, d := random(2_050_000)
				w := newWorld(t, memory)
				src := w.source(content)
				src.cut = 100_000
				src.fails = map[int]error{2: errors.New("502"), 3: errors.New("502")}
				r := w.join(d, src, whole)
				defer r.Close()
				expectEnd(t, r, content)
				if n := len(src.requests()); n != 21+2 {
					t.Errorf("%d requests", n)
				}
			})
		})
	}
}

func TestSourceThatBringsNothingMoreIsGivenUp(t *testing.T) {
	for name, memory := range map[string]int64{"shared": 0, "alone": -1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				content, d := random(1 << 20)
				w := newWorld(t, memory)
				src := w.source(content)
				src.cut = 1000
				r := w.join(d, src, whole)
				defer r.Close()
				got, err := io.ReadAll(r)
				if err == nil || !bytes.Equal(got, content[:(tries+1)*1000]) {
					t.Errorf("%d bytes, %v", len(got), err)
				}
			})
		})
	}
}

func TestAnswerOfSourceIsFinal(t *testing.T) {
	content, d := random(1 << 20)
	for _, request := range []int{1, 2} {
		for _, memory := range []int64{0, -1} {
			t.Run(fmt.Sprint(request, memory), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, memory)
					src := w.source(content)
					src.cut, src.fails = 1000, map[int]error{request: errFinal}
					r, _, err := w.Join(t.Context(), d, src, whole)
					if err == nil {
						_, err = io.ReadAll(r)
						r.Close()
					}
					if !errors.Is(err, errFinal) || len(src.requests()) != request {
						t.Errorf("%v after %d requests", err, len(src.requests()))
					}
				})
			})
		}
	}
}

func TestWrongContentIsNotCompletedForAnybody(t *testing.T) {
	content, _ := random(9 << 20)
	_, other := random(1)
	t.Run("shared", func(t *testing.T) {
		w := newWorld(t, 0)
		src := w.source(content)
		a, b := w.join(other, src, whole), w.join(other, src, whole)
		defer a.Close()
		defer b.Close()
		inStep(t, content[:8<<20], a, b)
		expectDigest(t, a, content[8<<20:])
		expectDigest(t, b, content[8<<20:])
		expectRequests(t, src, [2]int64{0, -1})
		if len(src.distrusted) != 1 {
			t.Errorf("distrusted: %v", src.distrusted)
		}
	})
	t.Run("alone", func(t *testing.T) {
		w := newWorld(t, -1)
		r := w.join(other, w.source(content), whole)
		defer r.Close()
		expectDigest(t, r, content)
	})
	t.Run("behind", func(t *testing.T) {
		w := newWorld(t, 0)
		src := w.source(content)
		fast, slow := w.join(other, src, whole), w.join(other, src, whole)
		defer fast.Close()
		defer slow.Close()
		expect(t, slow, content[:1_000_000])
		expectDigest(t, fast, content)
		expectDigest(t, slow, content[1_000_000:])
		expectRequests(t, src, [2]int64{0, -1}, [2]int64{1_000_000, -1})
	})
	t.Run("from the start again", func(t *testing.T) {
		w := newWorld(t, 0)
		r := w.join(other, w.source(content), whole)
		defer r.Close()
		expect(t, r, content[:10])
		seek(t, r, 5<<20)
		expectEnd(t, r, content[5<<20:]) // nobody can tell
		seek(t, r, 0)
		expectDigest(t, r, content)
	})
	t.Run("one byte", func(t *testing.T) {
		w := newWorld(t, 0)
		r := w.join(other, w.source([]byte{'x'}), whole)
		defer r.Close()
		expectDigest(t, r, []byte{'x'})
	})
	t.Run("nothing", func(t *testing.T) {
		w := newWorld(t, 0)
		if _, _, err := w.Join(t.Context(), other, w.source(nil), whole); !errors.Is(err, ErrDigest) {
			t.Error(err)
		}
		r := w.join(digest.FromBytes(nil), w.source(nil), whole)
		defer r.Close()
		expectEnd(t, r, nil)
	})
}

func expectRequests(t *testing.T, src *source, want ...[2]int64) {
	t.Helper()
	if got := src.requests(); !slices.Equal(got, want) {
		t.Errorf("asked for %d, want %d", got, want)
	}
}

func seek(t *testing.T, r *Reader, to int64) {
	t.Helper()
	if pos, err := r.Seek(to, io.SeekStart); pos != to || err != nil {
		t.Fatal(pos, err)
	}
}
