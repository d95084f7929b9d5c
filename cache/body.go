package cache

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/fill"
)

// body is the content of a blob that a fill brings. If the fill's storage fails, it goes on without it.
type body struct {
	*fill.Reader
	ctx    context.Context
	src    source
	direct *direct // nil while the fill serves
}

func newBody(ctx context.Context, r *fill.Reader, src source, how Outcome) *Blob {
	b := &body{Reader: r, ctx: ctx, src: src}
	return &Blob{Content: b, Size: r.Size(), Verdict: Verdict{Outcome: how, Stored: how != Hit}, close: b.Close}
}

func (b *body) Read(p []byte) (int, error) {
	if b.direct == nil {
		n, err := b.Reader.Read(p)
		if n > 0 || !errors.Is(err, fill.ErrStorage) {
			return n, err
		}
		if err := b.switchOver(); err != nil {
			return 0, err
		}
	}
	return b.direct.Read(p)
}

// switchOver goes on directly from upstream. What landed before is hashed first, so that the digest still decides about
// the last byte.
func (b *body) switchOver() error {
	pos, err := b.Reader.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	b.direct = newDirect(b.ctx, b.src, b.Size())
	b.direct.pos = pos
	landed := io.NewSectionReader(b.Reader, 0, pos)
	if _, err := io.Copy(b.direct.hasher, landed); err != nil {
		b.direct.hasher.Reset() // the client's own check has to do
		return nil
	}
	b.direct.hashed = pos
	return nil
}

func (b *body) Seek(offset int64, whence int) (int64, error) {
	if b.direct != nil {
		return b.direct.Seek(offset, whence)
	}
	return b.Reader.Seek(offset, whence)
}

func (b *body) Close() error {
	if b.direct != nil {
		b.direct.Close()
	}
	return b.Reader.Close()
}

// direct reads a blob from upstream past the cache: slower for upstream, but a pull does not fail because the disk does.
type direct struct {
	ctx  context.Context
	src  source
	size int64
	pos  int64

	stream io.ReadCloser // from upstream, standing at at; nil if none is open
	at     int64

	hasher hash.Hash // of the bytes [0, hashed)
	hashed int64
}

func newDirect(ctx context.Context, src source, size int64) *direct {
	return &direct{ctx: ctx, src: src, size: size, hasher: src.d.Algorithm().Hash()}
}

// directBlob opens a blob past the cache. expect is its size if upstream states none, or -1.
func directBlob(ctx context.Context, src source, expect int64) (*Blob, error) {
	stream, size, err := src.Open(ctx, 0, -1)
	if err != nil {
		return nil, err
	}
	if size < 0 {
		size = expect
	}
	if size < 0 {
		stream.Close()
		return nil, fmt.Errorf("%s: upstream states no size", src.d)
	}
	b := newDirect(ctx, src, size)
	b.stream = stream
	if size == 0 && digest.NewDigest(src.d.Algorithm(), b.hasher) != src.d {
		return nil, errors.Join(fmt.Errorf("%w: %s is not empty", ErrMismatch, src.d), stream.Close())
	}
	return &Blob{Content: b, Size: size, Verdict: Verdict{Outcome: Miss}, close: b.Close}, nil
}

// Read reads on at the position. Of a blob that was read from its start, the last byte comes only if the digest matches.
func (b *direct) Read(p []byte) (int, error) {
	if b.pos >= b.size {
		return 0, io.EOF
	}
	if b.stream == nil || b.at != b.pos {
		if err := b.reopen(); err != nil {
			return 0, err
		}
	}
	n, err := b.stream.Read(p[:min(int64(len(p)), b.size-b.pos)])
	if b.pos == b.hashed {
		b.hasher.Write(p[:n])
		b.hashed += int64(n)
	}
	b.pos += int64(n)
	b.at = b.pos
	if n > 0 && b.hashed == b.size && digest.NewDigest(b.src.d.Algorithm(), b.hasher) != b.src.d {
		b.pos--
		return n - 1, fmt.Errorf("%w: %s", ErrMismatch, b.src.d)
	}
	if err == io.EOF && b.pos < b.size {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (b *direct) reopen() error {
	b.Close()
	stream, size, err := b.src.Open(b.ctx, b.pos, -1)
	if err != nil {
		return err
	}
	if size >= 0 && size != b.size {
		stream.Close()
		return fmt.Errorf("%s: upstream stated %d bytes before and %d now", b.src.d, b.size, size)
	}
	b.stream, b.at = stream, b.pos
	return nil
}

func (b *direct) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += b.pos
	case io.SeekEnd:
		offset += b.size
	}
	if offset < 0 {
		return 0, errors.New("seek before the start")
	}
	b.pos = offset
	return offset, nil
}

func (b *direct) Close() error {
	if b.stream == nil {
		return nil
	}
	err := b.stream.Close()
	b.stream = nil
	return err
}
