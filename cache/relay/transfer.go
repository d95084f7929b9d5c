package relay

import (
	"context"
	"errors"
	"io"
	"slices"
	"sync"
	"time"
)

const (
	// chunk is in what pieces the window moves. A reader that leaves it within one hashes up to there again: that takes a
	// fraction of a millisecond.
	chunk = 256 << 10

	// window is how much of a transfer is in memory: a second of 30 Mbit/s, time enough for readers that started together
	// to be unlike each other for a while.
	window = 4 << 20

	// ahead is how far the transfer may be ahead of its fastest reader when it goes on: with the chunk that it goes on by,
	// half a window. The other half is what slower readers have.
	ahead = window/2 - chunk

	// grace is how long the transfer waits, chunk by chunk, for readers that it is about to leave behind. Who takes a chunk
	// in that time is as fast as a gigabit line, and likely only waits for a processor: left to itself it would hash all that
	// it reads, and make the others wait for theirs. Who is slower holds the others up once, for this long.
	grace = 2 * time.Millisecond
)

// errLeft ends a transfer that nobody is left in.
var errLeft = errors.New("relay: all readers have left")

// transfer is a stream whose last stretch, the window, is in memory for the readers in it.
type transfer struct {
	ctx      context.Context // ends when the last reader leaves
	stop     context.CancelFunc
	stream   *stream       // for the goroutine that carries it; its src never changes
	reserved int64         // bytes; guarded by the relays' lock
	advanced chan struct{} // receives when a reader has advanced; it holds one

	mu sync.Mutex
	// guards following
	size    int64    // of the whole content; -1 until the source has answered
	to      int64    // up to where it goes
	head    int64    // up to where it has got
	chunks  []*piece // the window: never empty before its end, and head is in the last one, which isn't full
	seats   map[*seat]bool
	err     error         // no more comes; io.EOF: because it is all there
	changed chan struct{} // closed at the next change; nil if nobody waits for one
}

// piece is a chunk of the window.
type piece struct {
	proof        // of all before it; never written to
	buf   []byte // from at on; nil until there is something to go in
}

// proofAt is the proof of all before pos, which is in the chunk or just after it.
func (c *piece) proofAt(pos int64) proof {
	if c.hasher == nil {
		return proof{at: pos}
	}
	p := c.clone()
	p.hasher.Write(c.buf[:pos-c.at])
	return proof{pos, p.hasher}
}

// newTransfer returns a transfer of what body streams, which it takes over.
func newTransfer(ctx context.Context, body *stream, reserved int64) *transfer {
	t := &transfer{stream: body, reserved: reserved, advanced: make(chan struct{}, 1), size: body.size, to: body.to, head: body.at,
		chunks: []*piece{{proof: body.proof.clone()}}, seats: make(map[*seat]bool)}
	t.ctx, t.stop = context.WithCancel(ctx)
	body.ctx = t.ctx
	return t
}

// board returns a seat for r if its position is in the window, or just after it, and the transfer is of content of the same
// size; nil if not. The seat takes over the proof of all before.
func (t *transfer) board(r *Reader, from proof) *seat {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.err != nil && t.err != io.EOF,
		r.pos < t.chunks[0].at || r.pos > t.head || r.pos >= t.to,
		r.size >= 0 && r.size != t.size:
		return nil
	}
	st := t.seatLocked(r)
	st.own = from
	return st
}

// seat returns a seat for the reader that begins the transfer, whose proof is the reader's.
func (t *transfer) seat(r *Reader) *seat {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.seatLocked(r)
}

func (t *transfer) seatLocked(r *Reader) *seat {
	st := &seat{t: t, ctx: r.ctx, src: r.src, pos: r.pos}
	t.seats[st] = true
	return st
}

// answered takes down what the source has answered.
func (t *transfer) answered() {
	t.update(func() { t.size, t.to = t.stream.size, t.stream.to })
}

// carry brings the stream into the window, and returns io.EOF when all of it is there.
func (t *transfer) carry() error {
	for t.stream.at < t.stream.to {
		buf, err := t.room()
		if err != nil {
			return err
		}
		n, err := t.stream.Read(buf)
		if n > 0 {
			t.update(func() { t.landedLocked(n) })
		}
		if err != nil {
			return err
		}
	}
	return io.EOF
}

// room waits until the fastest reader is near, and a moment for those who are about to be left behind, and returns the free
// part of the window's last chunk.
func (t *transfer) room() ([]byte, error) {
	var over <-chan time.Time // runs once the fastest is near
	patient := true
	for {
		t.mu.Lock()
		near := t.head-t.leadLocked() <= ahead
		if near && !(patient && t.lagsLocked()) {
			defer t.mu.Unlock()
			return t.freeLocked(), nil
		}
		t.mu.Unlock()
		if near && over == nil {
			over = time.After(grace)
		}
		select {
		case <-t.advanced:
		case <-over:
			patient = false
		case <-t.ctx.Done():
			return nil, context.Cause(t.ctx)
		}
	}
}

// leadLocked is the position of the fastest reader.
func (t *transfer) leadLocked() (pos int64) {
	for st := range t.seats {
		pos = max(pos, st.pos)
	}
	return pos
}

// fullLocked reports whether the window has to let go of its first chunk for what comes next.
func (t *transfer) fullLocked() bool {
	return t.chunks[len(t.chunks)-1].buf == nil && len(t.chunks) > window/chunk
}

// lagsLocked reports whether that would leave a reader behind.
func (t *transfer) lagsLocked() bool {
	if t.fullLocked() {
		for st := range t.seats {
			if st.pos < t.chunks[1].at {
				return true
			}
		}
	}
	return false
}

// freeLocked returns the free part of the last chunk. If the window is full, it lets go of its first, and of the readers
// there. The fastest is not among them, being half a window from the head.
//
// Readers copy out of chunks without the lock. That is no race: they copy what is before head, and this, which the stream
// is going to write to, is behind it. It is no use after free either: no chunk is used again, and what the window let go of
// lives until the last has copied from it.
func (t *transfer) freeLocked() []byte {
	if t.fullLocked() {
		t.dropLocked()
	}
	last := t.chunks[len(t.chunks)-1]
	if last.buf == nil {
		last.buf = make([]byte, min(chunk, t.to-last.at))
	}
	return last.buf[t.head-last.at:]
}

func (t *transfer) dropLocked() {
	first, next := t.chunks[0], t.chunks[1]
	for st := range t.seats {
		if st.pos < next.at {
			st.behind = true
			if st.own.hasher == nil {
				st.own = first.proofAt(st.pos)
			}
			delete(t.seats, st)
		}
	}
	t.chunks = slices.Delete(t.chunks, 0, 1) // this zeroes what is behind, so that nothing holds the chunk
}

// landedLocked shows n more bytes to the readers. Where a chunk is full, the stream's proof is that of the next.
func (t *transfer) landedLocked(n int) {
	t.head += int64(n)
	if last := t.chunks[len(t.chunks)-1]; t.head == last.at+int64(len(last.buf)) {
		t.chunks = append(t.chunks, &piece{proof: t.stream.proof.clone()})
	}
}

// end tells the readers that no more comes.
func (t *transfer) end(err error) {
	t.update(func() {
		if t.err == nil {
			t.err = err
		}
	})
}

// discard ends the transfer for readers that are in it still, because the relays are closed, and lets go of the window,
// although those that it left behind may hold on to the transfer.
func (t *transfer) discard() {
	t.update(func() { t.err, t.chunks = context.Cause(t.ctx), nil })
}

// update changes the state and wakes who waits for a change.
func (t *transfer) update(change func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change()
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

// await returns once ready, which is called with the lock held, says so or fails.
func (t *transfer) await(ctx context.Context, ready func() (bool, error)) error {
	for {
		t.mu.Lock()
		ok, err := ready()
		if ok || err != nil {
			t.mu.Unlock()
			return err
		}
		if t.changed == nil {
			t.changed = make(chan struct{})
		}
		changed := t.changed
		t.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
