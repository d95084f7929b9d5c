package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
)

// Partial is content that is still landing. WriteAt and ReadAt may be called concurrently; Commit, Discard or Park ends it,
// once, after the last WriteAt. ReadAt goes on working until Close.
type Partial struct {
	*os.File
	store  *Store
	name   string
	digest digest.Digest
	size   int64

	mu sync.Mutex
	// guards following, in bytes
	wrote  int64 // how much of the size has been written to
	beside int64 // reserved for what is beside the content
}

// WriteAt writes, and notes that so much of the reservation is used now.
func (p *Partial) WriteAt(b []byte, off int64) (int, error) {
	n, err := p.File.WriteAt(b, off)
	p.mu.Lock()
	used := min(int64(n), p.size-p.wrote)
	p.wrote += used
	p.mu.Unlock()
	p.store.space.wrote(used)
	return n, err
}

// Close ends its being in use.
func (p *Partial) Close() error {
	err := p.File.Close()
	if !errors.Is(err, os.ErrClosed) { // which it is for all but one
		p.store.endUse(p.digest)
	}
	return err
}

// Reopen opens the content once more, for reading at a position of its own; the caller closes that. The error is
// fs.ErrNotExist if it has no name any more. A name of its may be another's by now: what it names is looked at.
func (p *Partial) Reopen() (io.ReadSeekCloser, error) {
	own, err := p.Stat()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{p.name, blobPath(p.digest)} { // in the order in which it gets them
		c, err := p.store.openContent(p.digest, name)
		if err != nil {
			continue
		}
		if is, err := c.Stat(); err == nil && os.SameFile(own, is) {
			return c, nil
		}
		c.Close()
	}
	return nil, fs.ErrNotExist
}

// landed ends the landing: the reservation goes to another account.
func (p *Partial) landed(to account) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if to != parked {
		p.store.space.move(p.beside, sundry, nowhere)
	}
	p.store.space.landed(p.size, p.wrote, to)
}

// Create reserves room for content of that size and opens a file for it, as long as the content from the start but
// without blocks. At most one Partial of a digest may be open and not yet ended: the caller's duty. A new one never
// touches the file of an older one that somebody still reads; what is parked of the digest is dropped. The error is ErrFull
// or ErrTooLarge when there is no room.
func (s *Store) Create(d digest.Digest, size int64) (*Partial, error) {
	if err := validate(d); err != nil {
		return nil, err
	}
	s.dropParked(d)
	s.naming.Lock()
	defer s.naming.Unlock()
	return s.create(partialPath(d), d, size)
}

// create is called with naming held.
func (s *Store) create(name string, d digest.Digest, size int64) (*Partial, error) {
	if err := s.space.land(size); err != nil {
		return nil, err
	}
	p := &Partial{store: s, name: name, digest: d, size: size, beside: beside}
	err := s.raise()
	if err == nil {
		s.uses.begin(d)
		if p.File, err = s.createFile(name, size); err != nil {
			s.endUse(d)
		}
	}
	if err != nil {
		p.landed(nowhere)
		return nil, fmt.Errorf("create %s: %w", d, err)
	}
	return p, nil
}

func (s *Store) createFile(name string, size int64) (f *os.File, err error) {
	for range 3 { // what is in the way is removed, and a directory that somebody has removed is made anew
		_, err = s.mending("partial", func() error {
			f, err = s.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o640)
			return err
		})
		switch {
		case errors.Is(err, fs.ErrExist):
			_ = s.root.RemoveAll(name)
			continue
		case errors.Is(err, fs.ErrNotExist):
			_ = s.root.Mkdir("partial", 0o750)
			continue
		}
		break
	}
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, errors.Join(err, s.root.Remove(name))
	}
	return f, nil
}

// Discard gives the content up and frees its reservation, when nobody reads it any more.
func (p *Partial) Discard() {
	p.removeState()
	to := held // for good if its name can't be removed: then it is a leftover for the next Open
	if err := p.store.root.Remove(p.name); err == nil || errors.Is(err, fs.ErrNotExist) {
		to = p.store.uses.gone(p.digest, blocks(p.size))
	}
	p.landed(to)
}

func (p *Partial) removeState() { _ = p.store.root.Remove(p.name + stateSuffix) }
