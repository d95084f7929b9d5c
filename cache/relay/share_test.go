package relay

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

func TestLateComerSharesWhatIsInTheWindow(t *testing.T) {
	content, d := random(12 << 20)
	w := newWorld(t, 0)
	src := w.source(content)
	first := w.join(d, src, whole)
	defer first.Close()
	expect(t, first, content[:1<<20])
	late, joined, err := w.Join(t.Context(), d, src, from(512<<10))
	if err != nil || !joined {
		t.Fatal(joined, err)
	}
	defer late.Close()
	attached, ok := w.Attach(t.Context(), d, src, whole)
	if !ok {
		t.Fatal("the start is not in the window")
	}
	defer attached.Close()
	expect(t, attached, content[:512<<10])
	inStep(t, content[512<<10:1<<20], late, attached)
	inStep(t, content[1<<20:], first, late, attached)
	for _, at := range []int64{0, int64(len(content) - window - chunk), int64(len(content))} {
		if _, ok := w.Attach(t.Context(), d, src, from(at)); ok {
			t.Errorf("attached at %d", at)
		}
	}
	expectRequests(t, src, [2]int64{0, -1})
}

func TestJoinsAtTheSameTimeShareOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(1 << 20)
		w := newWorld(t, 0)
		src := w.source(content)
		src.answer = make(chan struct{})
		impatient, leave := context.WithCancelCause(t.Context())
		cause := errors.New("had enough")
		go func() {
			if _, _, err := w.Join(impatient, d, src, whole); !errors.Is(err, cause) {
				t.Errorf("who began it got %v", err)
			}
		}()
		synctest.Wait()
		for range 8 {
			go func() {
				r, joined, err := w.Join(t.Context(), d, src, whole)
				if err != nil || !joined {
					t.Error(joined, err)
					return
				}
				defer r.Close()
				expectEnd(t, r, content)
			}()
		}
		synctest.Wait()
		leave(cause)
		synctest.Wait()
		close(src.answer)
		synctest.Wait()
		expectRequests(t, src, [2]int64{0, -1})
	})
}

func TestFailureOfAnothersSourceIsNotTheAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(1 << 20)
		w := newWorld(t, 0)
		bad, good := w.source(content), w.source(content)
		bad.answer, bad.fails = make(chan struct{}), map[int]error{1: errFinal}
		good.answer = make(chan struct{})
		for range 2 {
			go func() {
				if _, _, err := w.Join(t.Context(), d, bad, whole); !errors.Is(err, errFinal) {
					t.Errorf("with the bad source: %v", err)
				}
			}()
			synctest.Wait()
		}
		for range 3 {
			go func() {
				r, _, err := w.Join(t.Context(), d, good, whole)
				if err != nil {
					t.Error(err)
					return
				}
				defer r.Close()
				expectEnd(t, r, content)
			}()
		}
		synctest.Wait()
		close(bad.answer)
		synctest.Wait()
		close(good.answer)
		synctest.Wait()
		expectRequests(t, bad, [2]int64{0, -1})
		expectRequests(t, good, [2]int64{0, -1})
	})
}

func TestReaderGoesOnWhenAnothersSourceFailsMidway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(2 << 20)
		w := newWorld(t, 0)
		bad, good := w.source(content), w.source(content)
		bad.cut, bad.fails = 1_000_000, map[int]error{2: errFinal}
		first, second := w.join(d, bad, whole), w.join(d, good, whole)
		defer first.Close()
		defer second.Close()
		inStep(t, content[:1_000_000], first, second)
		if _, err := first.Read(make([]byte, 1)); !errors.Is(err, errFinal) {
			t.Errorf("got %v", err)
		}
		expectEnd(t, second, content[1_000_000:])
		expectRequests(t, good, [2]int64{1_000_000, -1})
	})
}

func TestBoundedReadersCostWhatTheyAskFor(t *testing.T) {
	for name, memory := range map[string]int64{"shared": 0, "alone": -1} {
		for _, size := range []int64{-1, 9 << 20} {
			t.Run(name, func(t *testing.T) {
				content, d := random(9 << 20)
				w := newWorld(t, memory)
				src := w.source(content)
				r := w.join(d, src, Start{Offset: 1_000_000, To: 1_050_000, Size: size})
				defer r.Close()
				expect(t, r, content[1_000_000:1_050_000])
				expectRequests(t, src, [2]int64{1_000_000, 50_000})
				expectEnd(t, r, content[1_050_000:]) // who reads on gets more and more at once
				expectRequests(t, src, [2]int64{1_000_000, 50_000}, [2]int64{1_050_000, ask},
					[2]int64{1_050_000 + ask, 2 * ask}, [2]int64{1_050_000 + 3*ask, 4 * ask}, [2]int64{1_050_000 + 7*ask, -1})
			})
		}
	}
}

func TestSourceMayStreamMoreThanAskedFor(t *testing.T) {
	content, d := random(1 << 20)
	w := newWorld(t, 0)
	src := w.source(content)
	src.whole = true
	r := w.join(d, src, Start{To: 1000, Size: -1})
	defer r.Close()
	expectEnd(t, r, content)
	if src.sent > int64(len(content)) {
		t.Errorf("%d bytes were sent", src.sent)
	}
}

func TestTransferWaitsOnlyForReadersThatAreNotSlow(t *testing.T) {
	for name, test := range map[string]struct {
		pause    time.Duration // of one of two readers, at each chunk
		requests int
	}{
		"fast": {grace - 1, 1},
		"slow": {grace + 1, 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				content, d := random(8 << 20)
				w := newWorld(t, 0)
				src := w.source(content)
				pausing, other := w.join(d, src, whole), w.join(d, src, whole)
				defer pausing.Close()
				go func() {
					defer other.Close()
					expectEnd(t, other, content)
				}()
				for at := 0; at < len(content); at += chunk {
					<-time.After(test.pause) // by the clock of the bubble
					expect(t, pausing, content[at:at+chunk])
				}
				if n := len(src.requests()); n != test.requests {
					t.Errorf("%d requests", n)
				}
			})
		})
	}
}

func TestSeekJoinsOrBeginsATransferThere(t *testing.T) {
	content, d := random(12 << 20)
	w := newWorld(t, 0)
	src := w.source(content)
	r, other := w.join(d, src, whole), w.join(d, src, whole)
	defer r.Close()
	defer other.Close()
	inStep(t, content[:1<<20], r, other)
	if end, err := r.Seek(0, io.SeekEnd); end != r.Size() || err != nil {
		t.Fatal(end, err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatal(n, err)
	}
	seek(t, r, 1<<20)
	inStep(t, content[1<<20:2<<20], r, other) // nothing was read elsewhere
	seek(t, r, 1_500_000)
	expect(t, r, content[1_500_000:2<<20]) // it is in the window
	expectRequests(t, src, [2]int64{0, -1})
	seek(t, r, 10<<20)
	expect(t, r, content[10<<20:11<<20])
	if pos, err := r.Seek(-100, io.SeekCurrent); pos != 11<<20-100 || err != nil {
		t.Fatal(pos, err)
	}
	expectEnd(t, r, content[11<<20-100:])
	expectEnd(t, other, content[2<<20:])
	expectRequests(t, src, [2]int64{0, -1}, [2]int64{10 << 20, -1})
	if _, err := r.Seek(-1, io.SeekStart); err == nil {
		t.Error("sought before the start")
	}
}

func TestScatteredReadersHaveNoMoreWindowsThanAllowed(t *testing.T) {
	content, d := random(24 << 20)
	w := newWorld(t, 0)
	src := w.source(content)
	for i := range 6 {
		at := int64(i) * (4 << 20)
		r := w.join(d, src, from(at))
		defer r.Close()
		expect(t, r, content[at:at+1<<20])
	}
	if reserved, _ := w.memory(); reserved != maxTransfers*window {
		t.Errorf("%d bytes are reserved", reserved)
	}
	if transfers, readers := w.Stats(); transfers != 6 || readers != 6 {
		t.Errorf("%d transfers, %d readers", transfers, readers)
	}
}

func TestReaderSharesOnlyContentOfTheSameSize(t *testing.T) {
	content, d := random(8 << 20)
	w := newWorld(t, 0)
	src, liar := w.source(content), w.source(append(content, "more"...))
	r, other := w.join(d, src, whole), w.join(d, liar, from(5<<20))
	defer r.Close()
	defer other.Close()
	seek(t, r, 5<<20)
	expectEnd(t, r, content[5<<20:])
	expectRequests(t, src, [2]int64{0, -1}, [2]int64{5 << 20, -1})
}
