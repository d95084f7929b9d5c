package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"

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
	wrote  int64 // guarded by the store's mu
}

// WriteAt writes, and notes that so much of the reservation is used now.
func (p *Partial) WriteAt(b []byte, off int64) (int, error) {
	n, err := p.File.WriteAt(b, off)
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	n64 := min(int64(n), p.size-p.wrote)
	p.wrote += n64
	p.store.unwritten -= n64
	return n, err
}

// Reopen opens the content once more, for reading at a position of its own; the caller closes that. The error is
// fs.ErrNotExist if it has no name any more. A name of its may be another's by now: what it names is looked at.
func (p *Partial) Reopen() (io.ReadSeekCloser, error) {
	own, err := p.Stat()
	if err != nil {
		return nil, err
	}
	for _, name := range []string{p.name, blobPath(p.digest)} { // in the order in which it gets them
		f, err := p.store.open(name, os.O_RDONLY, 0)
		if err != nil {
			continue
		}
		if is, err := f.Stat(); err == nil && os.SameFile(own, is) {
			return f, nil
		}
		f.Close()
	}
	return nil, fs.ErrNotExist
}

// releaseLocked gives the reservation back; to is where it goes, if anywhere. It is called with the store's lock held.
func (p *Partial) releaseLocked(to *int64) {
	p.store.landing -= blocks(p.size)
	p.store.unwritten -= p.size - p.wrote
	if to != nil {
		*to += blocks(p.size)
	}
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
	if err := s.reserve(size); err != nil {
		return nil, err
	}
	p := &Partial{store: s, name: name, digest: d, size: size}
	err := s.raise()
	if err == nil {
		p.File, err = s.createFile(name, size)
	}
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		p.releaseLocked(nil)
		return nil, fmt.Errorf("create %s: %w", d, err)
	}
	return p, nil
}

func (s *Store) createFile(name string, size int64) (f *os.File, err error) {
	for range 3 { // what is in the way is removed, and a directory that somebody has removed is made anew
		f, err = s.open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o640)
		switch {
		case errors.Is(err, fs.ErrExist):
			_ = s.root.Remove(name)
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

// Commit makes the content durable and then visible under its digest. The caller has verified it. After an error the
// content is not kept and needs no Discard.
func (p *Partial) Commit() error {
	dir := blobDir(p.digest)
	err := p.Sync()
	if err == nil {
		err = p.store.mkdir(dir)
	}
	made := false
	if err == nil {
		made, err = p.rename()
	}
	if err != nil {
		p.Discard()
		return fmt.Errorf("keep %s: %w", p.digest, err)
	}
	if !made {
		p.Discard()
		return nil
	}
	p.removeState()
	if err := p.store.syncDir(dir); err != nil {
		return fmt.Errorf("keep %s: %w", p.digest, errors.Join(err, p.store.Remove(p.digest, p.size)))
	}
	if p.store.opts.Made != nil {
		p.store.opts.Made(p.digest, p.size)
	}
	return nil
}

// rename gives the content its name, and counts it; made is false if it has one: from somebody else meanwhile, who counted it, or
// since before Open.
func (p *Partial) rename() (made bool, err error) {
	p.store.naming.Lock()
	defer p.store.naming.Unlock()
	if p.store.Has(p.digest) {
		return false, nil
	}
	if err := p.store.root.Rename(p.name, blobPath(p.digest)); err != nil {
		return false, err
	}
	if apart, pending := p.store.pending[blobDir(p.digest)]; pending {
		apart[p.digest] = true
	}
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	p.releaseLocked(&p.store.kept)
	return true, nil
}

// Discard gives the content up and frees its reservation.
func (p *Partial) Discard() {
	// A name that can't be removed now is a leftover for the next Open.
	_ = p.store.root.Remove(p.name)
	p.removeState()
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	p.releaseLocked(nil)
}

func (p *Partial) removeState() { _ = p.store.root.Remove(p.name + stateSuffix) }

// Put keeps small content that the caller holds and has verified. Any number may put the same at once.
func (s *Store) Put(d digest.Digest, content []byte) error {
	if err := validate(d); err != nil {
		return err
	}
	s.naming.Lock()
	p, err := s.create(fmt.Sprintf("partial/put-%d", s.puts.Add(1)), d, int64(len(content)))
	s.naming.Unlock()
	if err != nil {
		return err
	}
	defer p.Close()
	if _, err := p.WriteAt(content, 0); err != nil {
		p.Discard()
		return fmt.Errorf("write %s: %w", d, err)
	}
	return p.Commit()
}

// mkdir makes a directory of blobs/, and makes it durable when it is new.
func (s *Store) mkdir(dir string) error {
	if _, err := s.root.Lstat(dir); err == nil {
		return nil
	}
	if err := s.root.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	for d := path.Dir(dir); d != "."; d = path.Dir(d) {
		if err := s.syncDir(d); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) syncDir(dir string) error {
	f, err := s.root.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
