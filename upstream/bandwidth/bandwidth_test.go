package bandwidth

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// endless yields zeros for ever and notes the largest Read it was asked for.
type endless struct{ largest int }

func (e *endless) Read(p []byte) (int, error) {
	e.largest = max(e.largest, len(p))
	return len(p), nil
}

func TestReaderKeepsToTheRate(t *testing.T) {
	for _, tt := range []struct {
		name string
		rate int64
		read int64
	}{
		{"slower than a chunk a second", 1 << 10, 64 << 10},
		{"a home line", 1 << 20, 8 << 20},
		{"a fast line", 1 << 28, 1 << 30},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				r := New(tt.rate).Reader(t.Context(), &endless{})
				if _, err := io.CopyN(io.Discard, r, tt.read); err != nil {
					t.Fatal(err)
				}
				took := time.Since(start).Seconds()
				paced := float64(tt.read-max(tt.rate/10, chunk)) / float64(tt.rate)
				if took < paced*0.99 || took > paced*1.01+0.1 {
					t.Errorf("%d bytes at %d/s took %.2fs, want %.2fs", tt.read, tt.rate, took, paced)
				}
			})
		})
	}
}

func TestReadersWithUnequalBuffersShareEqually(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(1 << 20)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		var read [2]int64
		var wg sync.WaitGroup
		for i, size := range []int{chunk, 1 << 20} {
			wg.Go(func() {
				r, buf := l.Reader(ctx, &endless{}), make([]byte, size)
				for {
					n, err := r.Read(buf)
					read[i] += int64(n)
					if err != nil {
						return
					}
				}
			})
		}
		wg.Wait()
		if share := float64(read[0]) / float64(read[1]); share < 0.9 || share > 1.1 {
			t.Errorf("small and large buffers read %d and %d bytes", read[0], read[1])
		}
	})
}

func TestReadTakesAtMostAChunk(t *testing.T) {
	from := &endless{}
	if _, err := New(1<<30).Reader(t.Context(), from).Read(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	if from.largest != chunk {
		t.Errorf("asked for %d bytes at once, want %d", from.largest, chunk)
	}
}

func TestWaitUsesAllTheTimeBeforeADeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		r := New(1<<10).Reader(ctx, &endless{}) // a chunk is 32 s of this line
		_, err := io.CopyN(io.Discard, r, 2*chunk)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 5*time.Second {
			t.Errorf("gave up after %v with %v, want the deadline", time.Since(start), err)
		}
	})
}

func TestCancelledWaitGivesBytesAndCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("client left")
		ctx, cancel := context.WithCancelCause(t.Context())
		r := New(1).Reader(ctx, &endless{})
		buf := make([]byte, chunk)
		if _, err := r.Read(buf); err != nil { // the burst
			t.Fatal(err)
		}
		time.AfterFunc(time.Second, func() { cancel(why) })
		if n, err := r.Read(buf); n != chunk || !errors.Is(err, why) {
			t.Errorf("Read = %d, %v; want %d, %v", n, err, chunk, why)
		}
	})
}

func TestReaderWhileIsLimitedOnlyThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var limited atomic.Bool
		limited.Store(true)
		r := New(1<<10).ReaderWhile(t.Context(), &endless{}, limited.Load) // a chunk is 32 s of this line
		timed := func(chunks int64) time.Duration {
			start := time.Now()
			if _, err := io.CopyN(io.Discard, r, chunks*chunk); err != nil {
				t.Error(err)
			}
			return time.Since(start)
		}
		if took := timed(2); took != 32*time.Second { // the first of them is the burst
			t.Errorf("limited, two chunks took %v", took)
		}
		time.AfterFunc(10500*time.Millisecond, func() { limited.Store(false) })
		if took := timed(1); took != 11*time.Second {
			t.Errorf("a chunk waited %v, though the limit was off after 10.5s", took)
		}
		if took := timed(100); took != 0 {
			t.Errorf("unlimited, a hundred chunks took %v", took)
		}
		limited.Store(true)
		if took := timed(1); took > 32*time.Second {
			t.Errorf("the place in the line that was given up still cost something: %v", took)
		}
	})
}

func TestUnlimitedIsTheReaderItself(t *testing.T) {
	from := bytes.NewReader(nil)
	for _, l := range []*Limiter{nil, New(0), New(-1)} {
		if got := l.Reader(t.Context(), from); got != io.Reader(from) {
			t.Errorf("Reader of %v wraps", l)
		}
	}
}

func TestReaderPassesErrorsOn(t *testing.T) {
	broken := errors.New("broken")
	for _, want := range []error{io.EOF, broken} {
		r := New(1<<20).Reader(t.Context(), iotest.DataErrReader(io.MultiReader(bytes.NewReader(make([]byte, 10)), iotest.ErrReader(want))))
		n, err := io.ReadFull(r, make([]byte, 10))
		if n != 10 || err != nil {
			t.Fatalf("ReadFull = %d, %v", n, err)
		}
		if _, err := r.Read(make([]byte, 1)); err != want {
			t.Errorf("Read error = %v, want %v", err, want)
		}
	}
}
