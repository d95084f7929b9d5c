package fill

import (
	"context"
	"errors"
	"io"
)

// Reader reads a fill's content while it lands. It is for one goroutine; Close frees it.
type Reader struct {
	ctx  context.Context
	f    *flight
	size int64
	pos  int64
}

// Size is the size of the whole content.
func (r *Reader) Size() int64 { return r.size }

// Verified reports whether all of the content is here and the digest matched.
func (r *Reader) Verified() bool {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	return r.f.verified
}

// Read reads what has landed at the reader's position, waiting for at least one byte. It fails with the error that ended
// the fill once all that landed before has been read, and with the context's.
func (r *Reader) Read(p []byte) (int, error) {
	if r.pos >= r.size {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	var n int64
	err := r.f.await(r.ctx, func() bool {
		n = r.f.readableLocked() - r.pos
		return n > 0
	})
	if err != nil {
		return 0, err
	}
	if n < int64(len(p)) {
		p = p[:n]
	}
	m, err := r.f.file.ReadAt(p, r.pos)
	r.pos += int64(m)
	return m, err
}

// ReadAt reads bytes that this or another Read has been given already; it never waits.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	r.f.mu.Lock()
	readable := r.f.readableLocked()
	r.f.mu.Unlock()
	if off+int64(len(p)) > readable {
		return 0, errors.New("fill: not landed yet")
	}
	return r.f.file.ReadAt(p, off)
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

// Close detaches the reader; the fill goes on.
func (r *Reader) Close() error {
	r.f.leave()
	return nil
}
