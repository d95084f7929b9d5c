package keeper

import (
	"context"
	"errors"
	"hash"
	"io"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"

	"github.com/entrepot/entrepot/cache/disk"
)

// Scrubbing reads all content through again and again, so that what rots unread is found while upstream still has it.
//
// When content was last verified is written at its file, so there is no position to be remembered: a round takes what has not been
// verified for as long as a round takes, and a process that is started anew goes on where the last one was.

const (
	// week is what a round takes if no rate is configured, and minScrubRate the least rate then, in bytes a second: what is small
	// is done sooner.
	week         = 7 * 24 * time.Hour
	minScrubRate = 1 << 20

	// minRound is what a round takes at least: little content is not read all the time, whatever the rate.
	minRound = time.Minute

	// piece is how much is read at once: between two pieces nobody has the file open, so that it can be evicted.
	piece = 1 << 20

	// Between two looks at all there is lies a hundredth of a round, within these.
	minScrubPause = time.Second
	maxScrubPause = time.Hour

	// maxRest is for how long listing pauses at most: what takes longer is the disk's work, and not the processor's.
	maxRest = 100 * time.Millisecond
)

// recheckRate is how fast content is read through that somebody has read unverified, in bytes a second.
const recheckRate = 64 << 20

// recheck has content verified soon. What there is no place for waits until it is read again, or for its round.
func (k *Keeper) recheck(d digest.Digest) {
	select {
	case k.rechecks <- d:
	default:
	}
}

// verifyRechecks verifies what was read unverified, until ctx ends.
func (k *Keeper) verifyRechecks(ctx context.Context) {
	for {
		select {
		case d := <-k.rechecks:
			f, err := k.disk.Blob(d)
			if err != nil {
				continue // somebody will find out
			}
			e := disk.Entry{Digest: d, Size: f.Size, Verified: f.Verified}
			k.unstamped.know(f, d)
			due := k.Due(f)
			f.Close()
			if due {
				_ = k.scrubOne(ctx, e, recheckRate)
			}
		case <-ctx.Done():
			return
		}
	}
}

// scrub verifies content until ctx ends.
func (k *Keeper) scrub(ctx context.Context) {
	if k.opts.ScrubRate < 0 {
		return
	}
	_, round := k.pace()
	elapse(ctx, min(scrubPause(round), time.Minute)) // a start has enough to do
	for ctx.Err() == nil {
		rate, round := k.pace()
		if err := k.scrubDue(ctx, rate, k.opts.Now().Add(-round)); err != nil && ctx.Err() == nil {
			k.log.Warn("not all content could be scrubbed", zap.Error(err))
		}
		elapse(ctx, scrubPause(round))
	}
}

func scrubPause(round time.Duration) time.Duration {
	return min(max(round/100, minScrubPause), maxScrubPause)
}

// scrubDue verifies all content that was not verified since due. To list a million files takes seconds of processor time, so it rests
// as long as it lists.
func (k *Keeper) scrubDue(ctx context.Context, rate int64, due time.Time) error {
	now, begun := k.opts.Now(), time.Now()
	oldest := now
	err := k.disk.Walk(ctx, func(dir []disk.Entry) error {
		elapse(ctx, min(time.Since(begun), maxRest))
		for _, e := range dir {
			if e.Verified.After(due) && !e.Verified.After(now.Add(ahead)) {
				if e.Verified.Before(oldest) {
					oldest = e.Verified
				}
				continue
			}
			if err := k.scrubOne(ctx, e, rate); err != nil {
				return err
			}
		}
		begun = time.Now()
		return nil
	})
	if err == nil {
		k.oldest.Store(&oldest)
	}
	return err
}

// pace is how fast content is scrubbed, in bytes a second, and how long a round takes so.
func (k *Keeper) pace() (rate int64, round time.Duration) {
	kept := k.disk.Used()
	if k.opts.ScrubRate > 0 {
		return k.opts.ScrubRate, max(minRound, time.Duration(float64(kept)/float64(k.opts.ScrubRate)*float64(time.Second)))
	}
	// A quarter more than it takes, for rounds overlap: what was verified early in one is due early in the next.
	return max(minScrubRate, int64(1.25*float64(kept)/week.Seconds())), week
}

// scrubOne reads content through, and removes it if it is damaged. The error is that of ctx alone.
func (k *Keeper) scrubOne(ctx context.Context, e disk.Entry, rate int64) error {
	at, hasher := k.opts.Now(), e.Digest.Algorithm().Hash()
	for offset := int64(0); ; {
		begun := time.Now()
		n, f, err := k.readPiece(e, hasher, offset)
		offset += n
		switch {
		case errors.Is(err, io.EOF):
			k.scrubbed.Add(1)
			if digest.NewDigest(e.Digest.Algorithm(), hasher) == e.Digest {
				k.stamp(f, e.Digest, at)
			} else {
				k.Drop(e.Digest, f, DamagedContent)
			}
			return f.Close()
		case f == nil && (missing(err) || errors.Is(err, errChanged) || ownFault(err)): // it was evicted, or is another's work by now, or has to wait
			return nil
		case f != nil && err != nil:
			k.Unreadable(e.Digest, f, err)
			return f.Close()
		case err != nil:
			k.Unreadable(e.Digest, nil, err)
			return nil
		}
		k.scrubbedBytes.Add(uint64(n))
		elapse(ctx, time.Duration(float64(n)/float64(rate)*float64(time.Second))-time.Since(begun))
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// errChanged says that content is not the file any more of which some was read.
var errChanged = errors.New("content was changed meanwhile")

// readPiece hashes the next piece of content. At the end of it the error is io.EOF. A file that is returned is the caller's to close.
func (k *Keeper) readPiece(e disk.Entry, to hash.Hash, offset int64) (n int64, f *disk.Content, err error) {
	f, err = k.disk.Blob(e.Digest)
	if err != nil {
		return 0, nil, err
	}
	if f.Size != e.Size || !f.Verified.Equal(e.Verified) {
		f.Close()
		return 0, nil, errChanged
	}
	n, err = io.Copy(to, io.NewSectionReader(f, offset, piece))
	switch {
	case err != nil:
		return n, f, err
	case n == 0:
		return 0, f, io.EOF
	}
	f.Forget(offset, n)
	return n, nil, f.Close()
}

// elapse lets time pass, unless ctx ends first.
func elapse(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	after := time.NewTimer(d)
	defer after.Stop()
	select {
	case <-after.C:
	case <-ctx.Done():
	}
}
