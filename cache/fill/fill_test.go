package fill

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
)

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

func (s *slowFailure) Distrust(string) {}

func (s *slowFailure) Open(context.Context, Request) (Stream, error) {
	<-s.release
	return Stream{}, errFinal
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
