package keeper

import (
	"context"
	"errors"
	"io"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/zap"

	"github.com/entrepot/entrepot/cache/disk"
)

// Blob opens content for reading; ok is false if there is none that is fit to be read. Content that has changed since it was verified is
// verified first, once however many ask for it: it may have been touched, or put there by somebody else, and be right all the same.
// What takes too long to verify is returned before that, and is Due. The caller closes it.
func (k *Keeper) Blob(ctx context.Context, d digest.Digest) (f *disk.Content, ok bool) {
	f, err := k.disk.Blob(d)
	if err == nil && f.Verified.IsZero() && !k.unstamped.know(f, d) {
		f.Close()
		if err := k.await(ctx, d); err != nil && !errors.Is(err, errSlow) {
			return nil, false // whoever has read it through has done what is to be done
		}
		f, err = k.disk.Blob(d)
	}
	switch {
	case err == nil:
		k.Used(d)
		return f, true
	case missing(err):
		k.lost(d)
	case ownFault(err):
		k.log.Warn("kept content can't be read now", zap.Stringer("digest", d), zap.Error(err))
	default:
		k.Unreadable(d, nil, err)
	}
	return nil, false
}

// ownFault reports whether an error is the process's and not the content's: it has too many files open, no memory, or ends.
func ownFault(err error) bool {
	for _, is := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, context.Canceled} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

// patience is how long content is waited for that is being verified: clients want an answer within 25 seconds, and some bytes soon
// after it.
const patience = 10 * time.Second

// errSlow says that content is still being verified.
var errSlow = errors.New("content is being verified")

// await has content verified, by one for all who ask at the same time. What that finds is acted upon also if all of them have left.
func (k *Keeper) await(ctx context.Context, d digest.Digest) error {
	result := make(chan error, 1)
	k.work.Go(func() {
		_, err, _ := k.reading.Do(string(d), func() (any, error) { return nil, k.verify(d) })
		result <- err
	})
	slow := time.NewTimer(patience)
	defer slow.Stop()
	select {
	case <-slow.C:
		return errSlow
	case err := <-result:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// errContent says that kept content is not what its digest stands for.
var errContent = errors.New("kept content does not match its digest")

// verify reads content through, and takes down that it is right, or removes it.
func (k *Keeper) verify(d digest.Digest) error {
	f, err := k.disk.Blob(d)
	if err != nil {
		return err
	}
	defer f.Close()
	at, v := k.opts.Now(), d.Verifier()
	_, err = io.Copy(v, until{f, k.ctx})
	switch {
	case err != nil && ownFault(err):
	case err != nil:
		k.Unreadable(d, f, err)
	case !v.Verified():
		k.Drop(d, f, DamagedContent)
		err = errContent
	default:
		k.stamp(f, d, at)
	}
	return err
}

// until is a reader that fails when ctx ends.
type until struct {
	io.Reader
	ctx context.Context
}

func (u until) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, u.ctx.Err()
	}
	return u.Reader.Read(p)
}

// stamp takes down that content was verified: at its file, or if that can't be written, in memory.
func (k *Keeper) stamp(f *disk.Content, d digest.Digest, at time.Time) {
	if err := k.disk.Stamp(f, at); err != nil {
		k.log.Debug("not taken down as verified", zap.Stringer("digest", d), zap.Error(err))
		k.unstamped.note(f, d, at)
	}
}

// unstamped is content that was verified and could not be stamped, on a file system that is read-only for example: it would be read
// through each time that somebody asks for it. The zero value is none.
type unstamped struct {
	mu sync.Mutex
	// guards following
	of map[digest.Digest]verdict
}

// verdict is when a file was verified, and what tells that it is that file.
type verdict struct {
	at       time.Time
	modified time.Time
	size     int64
}

// maxUnstamped is how much of it is remembered. When there is more, all is forgotten, and verified once more.
const maxUnstamped = 100_000

func (u *unstamped) note(f *disk.Content, d digest.Digest, at time.Time) {
	info, err := f.Stat()
	if err != nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.of == nil || len(u.of) >= maxUnstamped {
		u.of = make(map[digest.Digest]verdict)
	}
	u.of[d] = verdict{at, info.ModTime(), info.Size()}
}

// know reports whether the very content is known to be right, and notes in it since when.
func (u *unstamped) know(f *disk.Content, d digest.Digest) bool {
	u.mu.Lock()
	is, ok := u.of[d]
	u.mu.Unlock()
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Size() != is.size || !info.ModTime().Equal(is.modified) {
		return false
	}
	f.Verified = is.at
	return true
}
