package fill

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	// chunk is how much a worker reads at the most before it shows it to readers: large enough that the cost of a
	// system call and of a wake-up is spread over many bytes, small enough to stay in the processor's cache.
	chunk = 256 << 10

	// tries is how often in a row a source may break off without having brought at least progress bytes. With the
	// waits between them that is about ten seconds: an upstream that restarts is back by then, and clients, which
	// notice only a pause, have more patience than that.
	tries    = 6
	progress = 64 << 10
)

// transfer is the worker: it carries the content from the source into a committed file, or returns why it could not.
func (f *flight) transfer(ctx context.Context, opts Options) error {
	if opts.Kept(f.digest) {
		return ErrKept
	}
	body, err := f.open(ctx, opts)
	if err != nil {
		return err
	}
	// Only this goroutine sets them, so it may read them without the lock.
	file, hasher := f.file, f.digest.Algorithm().Hash()
	if err := f.receive(ctx, opts, body, hasher); err != nil {
		file.Discard()
		return err
	}
	if sum := hasher.Sum(nil); fmt.Sprintf("%x", sum) != f.digest.Encoded() {
		file.Discard()
		return fmt.Errorf("%w: %s: got %x", ErrDigest, f.digest, sum)
	}
	// Readers may have the last byte now: what is left to do can fail, but not make it wrong.
	f.update(func() { f.verified = true })
	if err := file.Commit(); err != nil {
		return fmt.Errorf("%w: %w", ErrStorage, err)
	}
	return nil
}

// open asks the source for the first time and opens the file.
func (f *flight) open(ctx context.Context, opts Options) (io.ReadCloser, error) {
	body, size, err := f.src.Open(ctx, 0)
	if err != nil {
		return nil, err
	}
	if size < 0 {
		size = f.expect
	}
	if size < 0 {
		body.Close()
		return nil, fmt.Errorf("fill: %s: the source states no size", f.digest)
	}
	file, err := opts.Create(f.digest, size)
	if err != nil {
		body.Close()
		return nil, fmt.Errorf("%w: %w", ErrStorage, err)
	}
	f.update(func() { f.file, f.size = file, size })
	return body, nil
}

// receive brings all bytes into the file and the hasher, going on from the last good byte when the source breaks off.
// It closes body.
func (f *flight) receive(ctx context.Context, opts Options, body io.ReadCloser, hasher hash.Hash) error {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval = 200 * time.Millisecond
	pause.Multiplier = 2
	failures, mark := 0, int64(0)
	for {
		err := f.copy(body, hasher)
		body.Close()
		for err != nil {
			if errors.Is(err, ErrStorage) || ctx.Err() != nil || opts.Final(err) {
				return f.cause(ctx, err)
			}
			if f.landed-mark >= progress {
				failures, mark = 0, f.landed
				pause.Reset()
			}
			if failures++; failures > tries {
				return fmt.Errorf("gave up at byte %d of %d: %w", f.landed, f.size, err)
			}
			if err := sleep(ctx, pause.NextBackOff()); err != nil {
				return err
			}
			body, err = f.resume(ctx)
		}
		if f.landed == f.size {
			return nil
		}
	}
}

// resume asks the source for what is missing.
func (f *flight) resume(ctx context.Context) (io.ReadCloser, error) {
	body, size, err := f.src.Open(ctx, f.landed)
	if err != nil {
		return nil, err
	}
	if size >= 0 && size != f.size {
		body.Close()
		return nil, fmt.Errorf("the source stated %d bytes before and %d now", f.size, size)
	}
	return body, nil
}

// copy lands the bytes of body until all are there. The worker alone changes landed, so it may read it without the lock.
func (f *flight) copy(body io.Reader, hasher hash.Hash) error {
	buf := make([]byte, min(chunk, max(1, f.size-f.landed)))
	for f.landed < f.size {
		n, err := body.Read(buf[:min(int64(len(buf)), f.size-f.landed)])
		if n > 0 {
			if _, err := f.file.WriteAt(buf[:n], f.landed); err != nil {
				return fmt.Errorf("%w: %w", ErrStorage, err)
			}
			f.update(func() { f.landed += int64(n) })
			hasher.Write(buf[:n])
		}
		if err == io.EOF && f.landed < f.size {
			err = io.ErrUnexpectedEOF
		}
		if err != nil && err != io.EOF {
			return err
		}
	}
	return nil
}

// cause prefers the reason for which ctx ended to what a transfer said when it was cut off.
func (f *flight) cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
