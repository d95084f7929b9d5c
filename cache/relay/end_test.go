package relay

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"testing"
	"testing/synctest"
)

func TestLeavingOfAllEndsTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(1 << 20)
		w := newWorld(t, 0)
		src := w.source(content)
		src.gate, src.open = 1000, make(chan struct{})
		a, b := w.join(d, src, whole), w.join(d, src, whole)
		expect(t, b, content[:1000])
		a.Close()
		a.Close()
		if n, err := a.Read(make([]byte, 1)); n != 0 || !errors.Is(err, fs.ErrClosed) {
			t.Error(n, err)
		}
		synctest.Wait()
		if src.streams() != 1 {
			t.Error("one left and all ended")
		}
		b.Close()
		synctest.Wait()
		reserved, _ := w.memory()
		if transfers, _ := w.Stats(); src.streams() != 0 || reserved != 0 || transfers != 0 {
			t.Errorf("%d streams, %d bytes and %d transfers are left", src.streams(), reserved, transfers)
		}
	})
}

func TestStreamThatIsAllThereIsEndedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(1000)
		w := newWorld(t, 0)
		src := w.source(content)
		r := w.join(d, src, whole)
		synctest.Wait()
		if src.streams() != 0 {
			t.Error("the stream is open")
		}
		expectEnd(t, r, content)
		r.Close()
	})
}

func TestReadersWaitingEndsWithTheirContext(t *testing.T) {
	for name, memory := range map[string]int64{"shared": 0, "alone": -1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				content, d := random(1 << 20)
				w := newWorld(t, memory)
				src := w.source(content)
				src.gate, src.open = 1000, make(chan struct{})
				ctx, cancel := context.WithCancel(t.Context())
				r, _, err := w.Join(ctx, d, src, whole)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				expect(t, r, content[:1000])
				go func() {
					synctest.Wait()
					cancel()
				}()
				if _, err := r.Read(make([]byte, 1)); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		})
	}
}

func TestCloseEndsReaders(t *testing.T) {
	for name, memory := range map[string]int64{"shared": 0, "alone": -1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				content, d := random(1 << 20)
				w := newWorld(t, memory)
				src := w.source(content)
				src.gate, src.open = 1000, make(chan struct{})
				waiting, idle := w.join(d, src, whole), w.join(d, src, whole)
				defer waiting.Close()
				defer idle.Close()
				expect(t, waiting, content[:1000])
				go func() {
					synctest.Wait()
					w.Close()
				}()
				if _, err := waiting.Read(make([]byte, 1)); !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
				if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
				if _, _, err := w.Join(t.Context(), d, src, whole); !errors.Is(err, ErrClosed) {
					t.Error(err)
				}
				if _, ok := w.Attach(t.Context(), d, src, whole); ok {
					t.Error("attached")
				}
			})
		})
	}
}

func TestSizeIsThatOfTheSourceOrElseTheExpectedOne(t *testing.T) {
	content, d := random(1000)
	w := newWorld(t, 0)
	silent := w.source(content)
	silent.size = -1
	if _, _, err := w.Join(t.Context(), d, silent, whole); err == nil {
		t.Error("nobody knows the size")
	}
	r := w.join(d, silent, Start{To: math.MaxInt64, Size: 1000})
	defer r.Close()
	expectEnd(t, r, content)
	r = w.join(d, w.source(content), Start{To: math.MaxInt64, Size: 7})
	defer r.Close()
	expectEnd(t, r, content)
}

func TestAnotherSizeIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(1000)
		w := newWorld(t, 0)
		src := w.source(content)
		src.gate, src.open, src.cut = 500, make(chan struct{}), 500
		r := w.join(d, src, whole)
		defer r.Close()
		expect(t, r, content[:500])
		src.mu.Lock()
		src.size = 2000
		src.mu.Unlock()
		close(src.open)
		if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil || len(src.requests()) != tries+1 {
			t.Errorf("%d bytes, %v after %d requests", n, err, len(src.requests()))
		}
	})
}
