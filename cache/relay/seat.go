package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// errBehind says that the window has left a reader behind.
var errBehind = errors.New("relay: behind the window")

// seat is the leg of a reader in a transfer.
type seat struct {
	t   *transfer
	ctx context.Context // the reader's
	src Source          // the reader's

	// The transfer's lock guards following. Unless it is behind, pos is not before the window.
	pos    int64
	behind bool

	// own is the reader's proof, of all before pos, while it is not known to be the transfer's, or not any more when it is
	// behind. The two may have got what comes before from different answers of sources: they are compared where a chunk
	// begins, and until they are the same, the reader hashes for itself.
	own proof

	failed error // what own came to; for the reader alone
}

// Read copies what is in the window at the position, waiting for at least one byte.
func (s *seat) Read(p []byte) (int, error) {
	var b []byte
	var size int64
	err := s.t.await(s.ctx, func() (ok bool, err error) {
		size = s.t.size
		b, err = s.readableLocked()
		return len(b) > 0, err
	})
	if err != nil {
		return 0, err
	}
	n := copy(p, b) // without the lock, see freeLocked
	if s.moved(n) {
		if s.failed = s.own.extend(p[:n], size, s.t.stream.digest); s.failed != nil {
			return n - 1, s.failed
		}
	}
	return n, nil
}

// moved takes down that the reader has got n bytes more, and reports whether it is to hash them itself. It may do so without
// the lock: the carrier does not touch a proof that the reader has.
func (s *seat) moved(n int) bool {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	s.pos += int64(n)
	select {
	case s.t.advanced <- struct{}{}:
	default: // the carrier is going to look anyway
	}
	return s.own.hasher != nil
}

// readableLocked is what the chunk at the position holds from there on, or why nothing comes any more.
func (s *seat) readableLocked() ([]byte, error) {
	switch {
	case s.failed != nil:
		return nil, s.failed
	case s.behind:
		return nil, errBehind
	case s.pos < s.t.head && s.t.chunks != nil:
		c := s.chunkLocked()
		if err := s.compareLocked(c.proof); err != nil {
			return nil, err
		}
		return c.buf[s.pos-c.at : min(int64(len(c.buf)), s.t.head-c.at)], nil
	}
	return nil, s.errLocked()
}

// compareLocked drops the reader's own proof where it is the transfer's as well. If it is another, one of them is wrong.
func (s *seat) compareLocked(p proof) error {
	if s.own.hasher == nil || p.hasher == nil || p.at != s.own.at {
		return nil
	}
	if !bytes.Equal(s.own.hasher.Sum(nil), p.hasher.Sum(nil)) {
		return fmt.Errorf("%w: %s: two answers differ before byte %d", ErrDigest, s.t.stream.digest, p.at)
	}
	s.own = proof{}
	return nil
}

// chunkLocked is the last chunk that begins at or before the position.
func (s *seat) chunkLocked() *piece {
	i := len(s.t.chunks) - 1
	for s.t.chunks[i].at > s.pos {
		i--
	}
	return s.t.chunks[i]
}

// errLocked is what the transfer ended with, for this reader.
func (s *seat) errLocked() error {
	err := s.t.err
	if err == nil || err == io.EOF || s.src == s.t.stream.src || errors.Is(err, ErrClosed) {
		return err
	}
	return fmt.Errorf("%w: %w", errOther, err)
}

func (s *seat) answer() (size int64, err error) {
	err = s.t.await(s.ctx, func() (bool, error) {
		size = s.t.size
		if size >= 0 {
			return true, nil
		}
		return false, s.errLocked()
	})
	return size, err
}

func (s *seat) reached() proof {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	if s.own.hasher != nil || s.behind || s.t.chunks == nil {
		return proof{s.pos, s.own.hasher}
	}
	return s.chunkLocked().proofAt(s.pos)
}

// Close leaves the transfer. The last reader ends it, in one moment: nobody takes a seat afterwards.
func (s *seat) Close() error {
	s.t.mu.Lock()
	defer s.t.mu.Unlock()
	delete(s.t.seats, s)
	if len(s.t.seats) == 0 {
		s.t.err = errLeft
		s.t.stop()
	}
	return nil
}
