package relay

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/opencontainers/go-digest"
)

// tries is how often in a row a source may break off without having brought at least progress bytes. With the waits
// between them that is about ten seconds: an upstream that restarts is back by then, and clients, which notice only a
// pause, have more patience than that.
const (
	tries    = 6
	progress = 64 << 10
)

// proof is what the digest can be verified with from at on.
type proof struct {
	at     int64
	hasher hash.Hash // has hashed all before at; nil: it can't be verified
}

// clone is a proof of its own.
func (p proof) clone() proof {
	if p.hasher == nil {
		return p
	}
	h, err := p.hasher.(hash.Cloner).Clone()
	if err != nil {
		panic(err) // the standard library's hashes, which digests are made with, can always be cloned
	}
	return proof{p.at, h}
}

// extend takes down that b comes next. It fails with ErrDigest if that completes content of that size, and that is wrong.
func (p *proof) extend(b []byte, size int64, d digest.Digest) error {
	p.at += int64(len(b))
	if p.hasher == nil {
		return nil
	}
	p.hasher.Write(b)
	if p.at < size {
		return nil
	}
	if sum := digest.NewDigest(d.Algorithm(), p.hasher); sum != d {
		return fmt.Errorf("%w: %s: got %s", ErrDigest, d, sum)
	}
	return nil
}

// stream reads content from a source in order, going on from the last good byte when that breaks off. If it has a proof,
// the last byte of the content comes only if the digest matched. It is for one goroutine.
type stream struct {
	ctx    context.Context
	src    Source
	final  func(error) bool
	digest digest.Digest
	expect int64 // the size if the source states none, or -1
	size   int64 // of the whole content; -1 until the source has answered for the first time
	to     int64 // up to where it reads; not beyond size, once that is known

	proof    // of what has been read: at is the position
	body     io.ReadCloser
	began    int64    // the position at first
	origins  []string // who has sent of it
	failures int      // in a row
	since    int64    // the position at which they are counted from
	pause    *backoff.ExponentialBackOff
	err      error // that ended it
}

// newStream returns the stream that r needs at its position, going on from a proof. Its context is to be set.
func newStream(r *Reader, from proof, final func(error) bool) *stream {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval = 200 * time.Millisecond
	pause.Multiplier = 2
	s := &stream{ctx: r.ctx, src: r.src, final: final, digest: r.digest, expect: r.expect, size: r.size, to: r.until(),
		proof: from, began: from.at, since: from.at, pause: pause}
	if s.size >= 0 {
		s.to = min(s.to, s.size)
	}
	return s
}

// Read reads on; it fails with io.EOF at to. An error is repeated.
func (s *stream) Read(p []byte) (int, error) {
	for s.err == nil && s.at < s.to {
		n, err := s.read(p)
		switch {
		case n > 0: // an error beside bytes comes again
			if s.err = s.extend(p[:n], s.size, s.digest); s.err != nil {
				s.distrust()
				return n - 1, s.err
			}
			return n, nil
		case err != nil:
			s.err = s.interrupted(err)
		}
	}
	if s.err != nil {
		return 0, s.err
	}
	return 0, io.EOF
}

func (s *stream) read(p []byte) (int, error) {
	if s.body == nil {
		if err := s.open(); err != nil {
			return 0, err
		}
	}
	n, err := s.body.Read(p[:min(int64(len(p)), s.to-s.at)])
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// interrupted returns nil when it is time to try again after err, and otherwise what to give up with. What the source
// says before it has ever answered is its answer.
func (s *stream) interrupted(err error) error {
	s.Close()
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	if s.size < 0 || s.final(err) {
		return err
	}
	if s.at-s.since >= progress {
		s.failures, s.since = 0, s.at
		s.pause.Reset()
	}
	if s.failures++; s.failures > tries {
		return fmt.Errorf("gave up at byte %d of %d: %w", s.at, s.size, err)
	}
	select {
	case <-time.After(s.pause.NextBackOff()):
		return nil
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

// answer opens the stream unless it is known what the source answers.
func (s *stream) answer() (size int64, err error) {
	if s.size < 0 && s.err == nil {
		if err := s.open(); err != nil {
			s.err = s.interrupted(err)
		}
	}
	return s.size, s.err
}

// open asks the source for what is to be read, no more, from the position on.
func (s *stream) open() error {
	end := s.size
	if end < 0 {
		end = s.expect
	}
	length := int64(-1)
	if s.to < math.MaxInt64 && (end < 0 || s.to < end) {
		length = s.to - s.at
	}
	answer, err := s.src.Open(s.ctx, s.at, length)
	if err != nil {
		return fmt.Errorf("open at byte %d: %w", s.at, err)
	}
	if !slices.Contains(s.origins, answer.Origin) {
		s.origins = append(s.origins, answer.Origin)
	}
	s.body, err = answer.Body, s.state(answer.Size)
	if errors.Is(err, ErrDigest) {
		s.distrust()
	}
	if err != nil {
		s.Close()
	}
	return err
}

// distrust tells the source who has sent what does not match the digest, if all of it came from one.
func (s *stream) distrust() {
	if s.began == 0 && len(s.origins) == 1 {
		s.src.Distrust(s.origins[0])
	}
}

// state takes down the size that the source states, or -1.
func (s *stream) state(size int64) error {
	if s.size >= 0 {
		if size >= 0 && size != s.size {
			return fmt.Errorf("the source stated %d bytes before and %d now", s.size, size)
		}
		return nil
	}
	if size < 0 {
		size = s.expect
	}
	switch {
	case size < 0:
		return fmt.Errorf("relay: %s: the source states no size", s.digest)
	case size == 0 && s.digest.Algorithm().FromBytes(nil) != s.digest:
		return fmt.Errorf("%w: %s is not empty", ErrDigest, s.digest)
	}
	s.size, s.to = size, max(s.at, min(s.to, size))
	return nil
}

// Close ends the request; reading on makes another.
func (s *stream) Close() error {
	if s.body == nil {
		return nil
	}
	err := s.body.Close()
	s.body = nil
	return err
}

// lone is the leg of a reader that has a stream to itself.
type lone struct {
	*stream
	release func()
}

// newLone returns a leg that ends with the reader's context or when the relays are closed.
func newLone(r *Reader, body *stream) *lone {
	ctx, stop := context.WithCancelCause(r.ctx)
	unhook := context.AfterFunc(r.relays.ctx, func() { stop(ErrClosed) })
	body.ctx = ctx
	return &lone{body, func() {
		unhook()
		stop(nil)
		r.relays.count(-1, 0)
	}}
}

func (l *lone) reached() proof { return l.proof }

func (l *lone) Close() error {
	err := l.stream.Close()
	l.release()
	return err
}
