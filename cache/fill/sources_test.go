package fill

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/synctest"
)

func TestSourceOfAnotherReaderTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(4 << 20)
		w := newWorld(t)
		first := &source{content: content, cuts: []int64{1 << 20}, fails: map[int64]error{2: errFinal}, gate: 1000, open: make(chan struct{})}
		second := &source{content: content}
		a := join(t, w, d, first)
		defer a.Close()
		b := join(t, w, d, second)
		defer b.Close()
		close(first.open)
		expectRead(t, a, content)
		expectRead(t, b, content)
		w.idle()
		if len(first.asked()) > 2 || len(second.asked()) == 0 || first.sent+second.sent != int64(len(content)) {
			t.Errorf("asked %v and %v, sent %d and %d", first.asked(), second.asked(), first.sent, second.sent)
		}
	})
}

func TestReaderWhoseSourceNeverAnsweredIsNotServedByAnothers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(8 << 20)
		w := newWorld(t)
		// What is wanted first was parked, so no source has to answer for it.
		w.part(t, d, &source{content: content}, content, 0, 2<<20)
		w.idle()
		first := &source{content: content, fails: map[int64]error{1: errors.New("no answer"), 2: errFinal}}
		r, _, err := w.Join(t.Context(), d, int64(len(content)), first, Part{To: 1 << 20, Ranged: true})
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		other := join(t, w, d, &source{content: content})
		defer other.Close()
		expectRead(t, other, content)
		if r.Asked() {
			t.Error("the source that answered was not the reader's")
		}
	})
}

func TestOriginOfWrongBytesIsDistrusted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(4 << 20)
		wrong := bytes.Clone(content)
		wrong[3<<20]++
		w := newWorld(t)
		src := &source{content: wrong, origin: "liar"}
		r := join(t, w, d, src)
		defer r.Close()
		if got, err := io.ReadAll(r); !errors.Is(err, ErrDigest) || len(got) >= len(content) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		w.idle()
		if len(src.distrusted) != 1 {
			t.Errorf("distrusted: %v", src.distrusted)
		}
	})
}

func TestWhatRottedWhileParkedIsNoSourcesLie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(8 << 20)
		w := newWorld(t)
		src := &source{content: content, origin: "good"}
		w.part(t, d, src, content, 3<<20, 4<<20)
		w.idle()
		w.parked[d].b[3<<20+5] ^= 1
		r := join(t, w, d, src)
		defer r.Close()
		if _, err := io.ReadAll(r); !errors.Is(err, ErrDigest) || len(src.distrusted) > 0 {
			t.Errorf("%v; distrusted: %v", err, src.distrusted)
		}
	})
}

func TestContradictingSizesAreNobodysLie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(4 << 20)
		w := newWorld(t)
		// The first answer states a wrong size, and breaks off; all others tell the truth.
		src := &source{content: content, sizes: []int64{5 << 20}, cuts: []int64{1 << 20}}
		r, _, err := w.Join(t.Context(), d, -1, src, Whole)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err == nil {
			t.Errorf("%d bytes of a wrong size, and no error", len(got))
		}
		r.Close()
		w.idle()
		if len(src.distrusted) > 0 {
			t.Errorf("distrusted: %v", src.distrusted)
		}
		r = join(t, w, d, src) // what was parked with the wrong size is in nobody's way
		defer r.Close()
		expectRead(t, r, content)
	})
}

func TestValidatorGoesWithWhatIsResumed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(4 << 20)
		w := newWorld(t)
		src := &source{content: content, validator: "v1", cuts: []int64{1 << 20}, fails: map[int64]error{2: errors.New("it has changed")}}
		r := join(t, w, d, src)
		defer r.Close()
		expectRead(t, r, content)
		var got []string
		for _, r := range src.requests {
			got = append(got, r.Validator)
		}
		if len(got) != 3 || got[0] != "" || got[1] != "v1" || got[2] != "" {
			t.Errorf("validators %q", got)
		}
	})
}

func TestSourceKnowsWhetherAnybodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(4 << 20)
		w := newWorld(t)
		src := &source{content: content, gate: 1000, open: make(chan struct{})}
		r := join(t, w, d, src)
		waiting := src.requests[0].Waiting
		if !waiting() {
			t.Error("nobody waits while a reader does")
		}
		r.Close()
		if waiting() {
			t.Error("somebody waits when no reader is left")
		}
		close(src.open)
		w.idle()
	})
}

func TestAbandonedIsParkedIfSoConfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(8 << 20)
		w := newWorld(t)
		w.Close()
		w.open(func(o *Options) { o.Park = true })
		src := &source{content: content, gate: 3 << 20, open: make(chan struct{})}
		r := join(t, w, d, src)
		expectRead(t, r, content[:3<<20])
		r.Close()
		close(src.open)
		w.idle()
		if w.content(d) != nil || src.sent > 4<<20 || !w.reports[0].Parked {
			t.Errorf("%d bytes were fetched, reports %+v", src.sent, w.reports)
		}
		r = join(t, w, d, src)
		defer r.Close()
		expectRead(t, r, content)
		if src.sent != int64(len(content)) {
			t.Errorf("%d bytes were fetched in all", src.sent)
		}
	})
}

func TestAbandonedBeyondABoundAreParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		open := make(chan struct{})
		for i := range maxAbandoned + 5 {
			content, d := random(2<<20 + i)
			r := join(t, w, d, &source{content: content, gate: 1 << 20, open: open})
			expectRead(t, r, content[:1<<20])
			r.Close()
		}
		close(open)
		w.idle()
		kept, parked := w.ends()
		if kept != maxAbandoned || parked != 5 || w.abandoned.Load() != 0 {
			t.Errorf("%d kept, %d parked, %d counted at the end", kept, parked, w.abandoned.Load())
		}
	})
}

func TestPartHasTheWholeFetchedIfSoConfigured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(16 << 20)
		w := newWorld(t)
		w.Close()
		w.open(func(o *Options) { o.Whole = true })
		src := &source{content: content}
		w.part(t, d, src, content, 8<<20, 8<<20+1000)
		w.idle()
		if !bytes.Equal(w.content(d), content) || src.sent != int64(len(content)) {
			t.Errorf("kept %d bytes, fetched %d", len(w.content(d)), src.sent)
		}
		if src.asked()[0] != 8<<20 {
			t.Errorf("asked at %v: what the reader waits for comes first", src.asked())
		}
	})
}

func TestSourceIsNotAskedForWhatCannotFit(t *testing.T) {
	content, d := random(1000)
	w := newWorld(t)
	w.small = true
	src := &source{content: content}
	if _, _, err := w.Join(t.Context(), d, 1000, src, Whole); !errors.Is(err, ErrStorage) || len(src.asked()) > 0 {
		t.Errorf("%v; asked at %v", err, src.asked())
	}
}
