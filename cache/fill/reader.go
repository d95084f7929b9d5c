package fill

import (
	"context"
	"errors"
	"hash"
	"io"
)

// Reader reads a fill's content while it lands. It is for one goroutine; Close frees it.
type Reader struct {
	ctx  context.Context
	f    *flight
	size int64
	pos  int64

	toTheEnd bool // it reads on to the end, wherever it begins

	own   io.ReadSeekCloser // of its own, to be sent from; nil until it is
	ownAt int64             // its position

	want   span  // what it said it would read, as far as it has not been asked for
	window int64 // how much was last asked for beyond that
	asked  int64 // up to where
}

// Size is the size of the whole content.
func (r *Reader) Size() int64 { return r.size }

// Verified reports whether all of the content is here and the digest matched.
func (r *Reader) Verified() bool {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	return r.f.verified
}

// Asked reports whether the fill's source has answered. If not, all that the first reader wants was parked by an earlier
// fill, whose source may have been another.
func (r *Reader) Asked() bool {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	return r.f.asked
}

// Read reads what has landed at the reader's position, waiting for at least one byte. It fails with the error that ended
// the fill once all that landed there has been read, and with the context's.
func (r *Reader) Read(p []byte) (int, error) {
	if r.pos >= r.size {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := r.landed(int64(len(p)))
	if err != nil {
		return 0, err
	}
	m, err := r.f.file.ReadAt(p[:n], r.pos)
	r.pos += int64(m)
	return m, err
}

// Send is Read, but writes to w, once, what it has read: at most so many bytes. If w can take them from a file, as sockets
// do, they never come into this process.
func (r *Reader) Send(w io.Writer, most int64) (int64, error) {
	if r.pos >= r.size {
		return 0, io.EOF
	}
	n, err := r.landed(most)
	if err != nil {
		return 0, err
	}
	from := &io.LimitedReader{R: io.NewSectionReader(r.f.file, r.pos, n), N: n}
	if own := r.positioned(); own != nil {
		from.R = own
	}
	sent, err := io.Copy(w, from)
	r.pos += sent
	if r.ownAt = r.pos; err != nil {
		r.ownAt = -1 // more may have been read than was sent
	}
	if err == nil && sent < n {
		err = io.ErrUnexpectedEOF // the file was cut short
	}
	return sent, err
}

// positioned returns a file of the reader's own at its position, or nil if there can be none.
func (r *Reader) positioned() io.Reader {
	if r.own == nil {
		own, err := r.f.file.Reopen()
		if err != nil {
			return nil
		}
		r.own, r.ownAt = own, 0
	}
	if r.ownAt != r.pos {
		if _, err := r.own.Seek(r.pos, io.SeekStart); err != nil {
			return nil
		}
	}
	return r.own
}

// landed waits until something has landed at the position, and returns how many bytes follow there, at most so many.
func (r *Reader) landed(most int64) (n int64, err error) {
	err = r.f.await(r.ctx, func() bool {
		if n = r.f.readableLocked(r.pos, r.toTheEnd) - r.pos; n <= 0 {
			r.f.wantLocked(r.next())
		}
		return n > 0
	})
	return min(n, most), err
}

// next is what to ask for at the position.
func (r *Reader) next() span {
	switch {
	case r.want.from <= r.pos && r.pos < r.want.to:
		return span{r.pos, r.want.to} // it said how much
	case r.asked > 0 && r.pos < r.asked && r.pos >= r.asked-r.window: // asked for already
	case r.asked > 0 && r.pos == r.asked:
		r.window = min(2*r.window, maxWindow)
		r.asked = r.pos + r.window
	default:
		r.window = window
		r.asked = r.pos + r.window
	}
	return span{r.pos, r.asked}
}

// ReadAt reads bytes that have landed; it never waits.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	r.f.mu.Lock()
	readable := r.f.readableLocked(off, r.toTheEnd)
	r.f.mu.Unlock()
	if off+int64(len(p)) > readable {
		return 0, errors.New("fill: not landed yet")
	}
	return r.f.file.ReadAt(p, off)
}

// Hasher returns a hasher of the first n bytes, or nil if not all of these have landed. The error is that of the file.
func (r *Reader) Hasher(n int64) (hash.Hash, error) {
	r.f.mu.Lock()
	landed := r.f.have.end(0)
	r.f.mu.Unlock()
	if landed < n {
		return nil, nil
	}
	h, hashed := r.f.digest.Algorithm().Hash(), int64(0)
	r.f.hashing.Lock()
	if cloner, ok := r.f.hasher.(hash.Cloner); ok && r.f.hashed <= n {
		if clone, err := cloner.Clone(); err == nil {
			h, hashed = clone, r.f.hashed
		}
	}
	r.f.hashing.Unlock()
	if got, err := io.Copy(h, io.NewSectionReader(r.f.file, hashed, n-hashed)); err != nil || got < n-hashed {
		return nil, errors.Join(errors.New("fill: what has landed can't be read"), err)
	}
	return h, nil
}

// Seek moves the position; it never waits. Any position from 0 on may be read from.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.size
	}
	if offset < 0 {
		return 0, errors.New("fill: seek before the start")
	}
	r.pos = offset
	return offset, nil
}

// Close detaches the reader; a fill of the whole goes on.
func (r *Reader) Close() error {
	r.f.leave()
	if r.own != nil {
		return r.own.Close()
	}
	return nil
}
