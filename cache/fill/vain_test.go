package fill

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// lame is a source that breaks off at some byte, and at once for whoever asks for what is behind it.
type lame struct {
	content []byte
	breaks  int64
	opened  atomic.Int64
}

func (l *lame) Open(_ context.Context, r Request) (Stream, error) {
	l.opened.Add(1)
	body := io.MultiReader(bytes.NewReader(l.content[min(r.Offset, l.breaks):l.breaks]), broken{})
	return Stream{Body: io.NopCloser(body), Size: int64(len(l.content)), Origin: "lame"}, nil
}

func (*lame) Distrust(string) {}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

// TestReadersAtSeveralPlacesLearnThatNothingMoreComes has a source give nothing from some byte on: a reader of the whole and
// one of a range far behind get the error, although each has a worker of its own that might still succeed.
func TestReadersAtSeveralPlacesLearnThatNothingMoreComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content, d := random(32 << 20)
		w := newWorld(t)
		src := &lame{content: content, breaks: 8 << 20}
		read := func(part Part) chan error {
			done := make(chan error, 1)
			r, _, err := w.Join(t.Context(), d, int64(len(content)), src, part)
			if err != nil {
				t.Fatal(err)
			}
			go func() {
				defer r.Close()
				if _, err := r.Seek(part.From, io.SeekStart); err != nil {
					done <- err
					return
				}
				_, err := io.Copy(io.Discard, r)
				done <- err
			}()
			return done
		}
		whole := read(Whole)
		elapse(500 * time.Millisecond)
		ranged := read(Part{From: 24 << 20, To: 25 << 20, Ranged: true})
		for name, done := range map[string]chan error{"whole": whole, "range": ranged} {
			select {
			case err := <-done:
				if err == nil {
					t.Errorf("%s: read to its end", name)
				}
			case <-time.After(2 * time.Minute):
				t.Errorf("%s: waits for ever", name)
			}
		}
		if n := src.opened.Load(); n > 4*tries {
			t.Errorf("the source was asked %d times", n)
		}
	})
}
