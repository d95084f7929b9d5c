package upstream

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/entrepot/entrepot/upstream/bandwidth"
)

// heldBack is how long nobody may have read from the network for the endpoint to be blamed for what comes then: servers
// give up on who takes nothing after half a minute or more, and some boxes on the way sooner.
const heldBack = 15 * time.Second

const (
	// held is how long a body must have been held back by a bandwidth limit, and for longer than by the network, for the limit
	// to be taken for what is narrow, and narrowFor for how long it is then. Bodies of seconds say it again and again.
	held      = 100 * time.Millisecond
	narrowFor = 5 * time.Second
)

// maxSmall is the size in bytes of the largest blob that never waits for bandwidth: configurations, which clients ask for
// before all else, are no larger.
const maxSmall = 64 << 10

// blobBody is the body of a blob: the network under a watchdog, at the pace of the registry's lines, within its extent. It
// tells how the endpoint fared.
type blobBody struct {
	extent
	err error // of all reads from now on

	idle func() bool    // whether nobody waits for the bytes; nil: somebody does
	flow bandwidth.Flow // what shares the lines: the blob, however many connections bring it
	owed atomic.Int64   // bytes that are here and have not been taken from the lines yet

	registry *Registry
	from     *endpoint
	asked    question
	since    time.Time

	ctx      context.Context // of the request
	cancel   context.CancelCauseFunc
	network  io.ReadCloser
	watchdog *time.Timer
	unread   time.Time // since then nobody has read from the network
	excused  bool      // it was unread for too long once; what is buffered on the way can make the consequence come late

	// Bytes of the network, and nanoseconds that it and the lines took. Close may come while a Read is waiting.
	brought, waited, limited atomic.Int64
	failed                   atomic.Bool
	once                     sync.Once
}

func (b *blobBody) Read(p []byte) (int, error) {
	for b.skip > 0 && len(p) > 0 {
		n, err := b.next(p[:min(int64(len(p)), b.skip)])
		b.skip -= int64(n)
		if err != nil {
			return 0, err
		}
	}
	return b.next(p)
}

// next reads what the network has next, and sees to it that the end comes where it was stated to be.
func (b *blobBody) next(p []byte) (int, error) {
	if b.err == nil && b.left == 0 {
		b.err = io.EOF
	}
	if b.err != nil || len(p) == 0 {
		return 0, b.err
	}
	if b.left > 0 {
		p = p[:min(int64(len(p)), b.left)]
	}
	n, err := b.pacedRead(p)
	if b.left > 0 {
		b.left -= int64(n)
	}
	switch {
	case err == io.EOF && b.left > 0:
		b.err = b.fail(io.ErrUnexpectedEOF)
	case err == io.EOF:
		b.err = io.EOF
	case err != nil:
		b.err = b.fail(err)
	}
	if b.left == 0 || b.err == io.EOF { // who was told how much there is need not read on to learn that this was all
		b.well()
	}
	return n, b.err
}

// well notes that the endpoint has brought what can be expected.
func (b *blobBody) well() { b.registry.revive(b.from, blobs, b.since) }

// fail returns the error of a body that ends with err, and notes whose fault that is.
func (b *blobBody) fail(err error) error {
	err = causeOf(b.ctx, err)
	b.failed.Store(!b.excused && b.registry.broke(b.ctx, b.from, b.asked, b.since, err))
	return b.registry.failed(b.asked, err)
}

// pacedRead reads at the pace of the lines. It pays after reading, when it is known how much there was to pay for, and for a
// portion at a time: what comes in smaller pieces is paid for together, and at the end.
func (b *blobBody) pacedRead(p []byte) (int, error) {
	if b.size >= 0 && b.size <= maxSmall {
		n, err := b.watchedRead(p)
		b.registry.lines.Spend(n)
		return n, err
	}
	portion := b.portion()
	n, err := b.watchedRead(p[:min(len(p), portion)])
	if owed := b.owed.Add(int64(n)); owed >= int64(portion) || err != nil || int64(n) == b.left {
		if cause := b.pay(); cause != nil {
			return n, cause
		}
	}
	return n, err
}

// portion is how many bytes are best paid for at a time.
func (b *blobBody) portion() int {
	n := b.registry.lines.Portion()
	if b.registry.background.Rate() > 0 && b.idle != nil && b.idle() {
		n = min(n, b.registry.background.Portion())
	}
	return n
}

// pay takes what is owed from the lines, that for what nobody waits for first, and takes down what time that cost. If it is the
// limit that holds the body back, further connections would bring nothing, and leave bytes on the way when they are given
// up. What is not waited for to the end has come over the lines all the same.
func (b *blobBody) pay() error {
	start, n := time.Now(), int(b.owed.Swap(0))
	var err error
	if b.idle != nil {
		err = b.registry.background.TakeWhile(b.ctx, b.flow, n, b.idle)
	}
	if err == nil {
		err = b.registry.lines.Take(b.ctx, b.flow, n)
	}
	if err != nil {
		b.registry.lines.Spend(n)
	}
	now := time.Now()
	if limited := b.limited.Add(int64(now.Sub(start))); limited > max(int64(held), b.waited.Load()) {
		b.registry.narrow.Store(now.Add(narrowFor).UnixNano())
	}
	return err
}

// watchedRead lets the watchdog run for as long as the network keeps it waiting, and no longer.
func (b *blobBody) watchedRead(p []byte) (int, error) {
	start := time.Now()
	b.excused = b.excused || start.Sub(b.unread) > heldBack
	b.watchdog.Reset(b.registry.stall)
	defer b.watchdog.Stop()
	n, err := b.network.Read(p)
	b.unread = time.Now()
	b.brought.Add(int64(n))
	b.waited.Add(int64(b.unread.Sub(start)))
	return n, err
}

// Close ends the request. A Read that is waiting returns.
func (b *blobBody) Close() error {
	b.cancel(nil)
	b.once.Do(func() {
		if b.brought.Load() >= telling && !b.failed.Load() {
			b.well()
		}
		b.registry.lines.Spend(int(b.owed.Swap(0)))
		b.from.leave(b.speed())
	})
	return b.network.Close()
}

// speed returns how many bytes a second the network brought; 0 if that can't be told. Behind a limit it can't: while one
// held it back, bytes gathered that then came in no time.
func (b *blobBody) speed() float64 {
	brought, waited := b.brought.Load(), time.Duration(b.waited.Load())
	switch {
	case time.Duration(b.limited.Load()) > waited/10:
		return 0
	case waited > 0 && (brought >= telling || waited >= tellingWait):
		return max(float64(brought)/waited.Seconds(), hopeless)
	case b.failed.Load():
		return hopeless
	}
	return 0
}
