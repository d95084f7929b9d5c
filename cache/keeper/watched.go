package keeper

import (
	"errors"
	"hash"
	"io"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/disk"
)

// Due reports whether content is to be verified while it is read: it has never been, or so long ago, or when the clock was ahead.
func (k *Keeper) Due(f *disk.Content) bool {
	if f.Verified.IsZero() {
		return true
	}
	age := k.opts.Now().Sub(f.Verified)
	return k.opts.VerifyAfter > 0 && (age > k.opts.VerifyAfter || age < -ahead)
}

// ahead is by how much a stamp may be ahead of the clock: more than clocks that are kept right differ.
const ahead = 24 * time.Hour

// Watched is content that is verified while it is read, for one goroutine. Its last byte is held back until all of it is known to be
// right: who reads on to the end gets an error in place of it if it is not. Who reads only a part gets that at once, and the whole is
// verified behind its back.
type Watched struct {
	k       *Keeper
	d       digest.Digest
	f       *disk.Content
	pos     int64
	hasher  hash.Hash // of the bytes [0, hashed)
	hashed  int64
	settled bool // all is right
}

// Watch takes content over, and has it verified while it is read.
func (k *Keeper) Watch(f *disk.Content, d digest.Digest) *Watched {
	return &Watched{k: k, d: d, f: f, hasher: d.Algorithm().Hash()}
}

func (w *Watched) Read(p []byte) (int, error) {
	last := w.f.Size - 1
	switch {
	case w.settled || w.pos > last:
	case w.pos == last:
		if err := w.settle(); err != nil {
			return 0, err
		}
	default:
		p = p[:min(int64(len(p)), last-w.pos)]
	}
	n, err := w.f.ReadAt(p, w.pos)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil
	}
	if w.pos <= w.hashed && w.hashed < w.pos+int64(n) && !w.settled {
		_, _ = w.hasher.Write(p[w.hashed-w.pos : n])
		w.hashed = w.pos + int64(n)
	}
	w.pos += int64(n)
	return n, err
}

// settle verifies all, reading what was not read in order.
func (w *Watched) settle() error {
	at := w.k.opts.Now()
	if _, err := io.Copy(w.hasher, io.NewSectionReader(w.f, w.hashed, w.f.Size-w.hashed)); err != nil {
		w.k.Unreadable(w.d, w.f, err)
		return err
	}
	w.hashed = w.f.Size
	if digest.NewDigest(w.d.Algorithm(), w.hasher) != w.d {
		w.k.Drop(w.d, w.f, DamagedContent)
		return errContent
	}
	w.settled = true
	w.k.stamp(w.f, w.d, at)
	return nil
}

// Seek is an io.Seeker's.
func (w *Watched) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += w.pos
	case io.SeekEnd:
		offset += w.f.Size
	}
	if offset < 0 {
		return 0, errors.New("seek before the start")
	}
	w.pos = offset
	return offset, nil
}

// Close frees the content.
func (w *Watched) Close() error {
	if !w.settled {
		w.k.recheck(w.d)
	}
	return w.f.Close()
}
