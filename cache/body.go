package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/entrepot/entrepot/cache/fill"
	"github.com/entrepot/entrepot/cache/relay"
)

// body is the content of a blob that a fill brings. If the fill's storage fails, it goes on past the cache.
type body struct {
	*fill.Reader
	ctx  context.Context
	src  source
	part Part          // what is going to be read, as far as known
	past *relay.Reader // nil while the fill serves
}

func newBody(ctx context.Context, r *fill.Reader, src source, part Part, how Outcome) *Blob {
	b := &body{Reader: r, ctx: ctx, src: src, part: part}
	return &Blob{Content: b, Size: r.Size(), Verdict: Verdict{Outcome: how, Stored: how != Hit}, close: b.Close}
}

func (b *body) Read(p []byte) (int, error) {
	if b.past == nil {
		n, err := b.Reader.Read(p)
		if n > 0 || !errors.Is(err, fill.ErrStorage) {
			return n, err
		}
		if err := b.switchOver(); err != nil {
			return 0, err
		}
	}
	return b.past.Read(p)
}

// Send is Read, but writes what it has read to w, at most so many bytes, in the cheapest way that there is.
func (b *body) Send(w io.Writer, most int64) (int64, error) {
	if b.past == nil {
		n, err := b.Reader.Send(w, most)
		if n > 0 || !errors.Is(err, fill.ErrStorage) {
			return n, err
		}
		if err := b.switchOver(); err != nil {
			return 0, err
		}
	}
	return io.CopyN(w, b.past, most)
}

// switchOver goes on past the cache. What was read before is unverified yet: its hash goes along, so that the last byte
// depends on all of it, whoever brings the rest. Nobody who has read from the start goes on without.
func (b *body) switchOver() error {
	pos, err := b.Reader.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	at := relay.Start{Offset: pos, To: b.part.To, Size: b.Size()}
	if b.part.From < 0 || at.To <= pos {
		at.To = math.MaxInt64
	}
	if at.Hasher, err = b.Reader.Hasher(pos); err != nil {
		return err
	}
	b.past, _, err = b.src.c.relays.Join(b.ctx, b.src.d, past{b.src}, at)
	return err
}

func (b *body) Seek(offset int64, whence int) (int64, error) {
	if b.past != nil {
		return b.past.Seek(offset, whence)
	}
	return b.Reader.Seek(offset, whence)
}

func (b *body) Close() error {
	var err error
	if b.past != nil {
		err = b.past.Close()
	}
	return errors.Join(err, b.Reader.Close())
}

// past is a source as a relay wants it.
type past struct{ source }

// Open streams the blob from upstream.
func (s past) Open(ctx context.Context, offset, length int64) (relay.Stream, error) {
	stream, err := s.source.Open(ctx, fill.Request{Offset: offset, Length: length})
	return relay.Stream{Body: stream.Body, Size: stream.Size, Origin: stream.Origin}, err
}

// passing returns a blob that somebody streams past the cache at the moment, if it is near what this reader wants; ok is false
// if there is none.
func (c *Cache) passing(ctx context.Context, t title, src source, part Part) (b *Blob, ok bool) {
	r, ok := c.relays.Attach(ctx, src.d, past{src}, start(part, t.Size))
	if !ok {
		return nil, false
	}
	return passed(r, Collapsed), true
}

// pass returns a blob that streams past the cache.
func (c *Cache) pass(ctx context.Context, t title, src source, part Part) (*Blob, error) {
	r, joined, err := c.relays.Join(ctx, src.d, past{src}, start(part, t.Size))
	switch {
	case errors.Is(err, relay.ErrDigest):
		return nil, fmt.Errorf("%w: %w", ErrMismatch, err)
	case err != nil:
		return nil, err
	case joined:
		return c.grant(ctx, t, passed(r, Collapsed))
	}
	return passed(r, Miss), nil
}

func passed(r *relay.Reader, how Outcome) *Blob {
	return &Blob{Content: r, Size: r.Size(), Verdict: Verdict{Outcome: how}, close: r.Close}
}

// start is where a reader of a part begins, in a blob of a size that is known or -1.
func start(part Part, size int64) relay.Start {
	at := relay.Start{Offset: part.From, To: part.To, Size: size}
	if part.From < 0 {
		at.Offset = max(0, size+part.From)
	}
	if at.Offset >= at.To || size >= 0 && at.Offset >= size { // nothing is wanted but the size: a byte tells it
		at.Offset, at.To = 0, 1
	}
	return at
}
