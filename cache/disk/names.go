package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
)

// Commit makes the content durable and then visible under its digest. The caller has verified it. After an error the
// content is not kept and needs no Discard.
func (p *Partial) Commit() error {
	dir := blobDir(p.digest)
	now := time.Now()
	_ = setTimes(p.File, timespec(now), stamp(p.digest, p.size, now)) // without it, it counts as not verified
	// There is room for all that was written, but for what was parked where the file system gives it fewer blocks than it has
	// bytes.
	err := p.Reserve()
	if err == nil {
		err = p.Sync()
	}
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
// since before Open. What has that name and is no file is in the way.
func (p *Partial) rename() (made bool, err error) {
	s, name := p.store, blobPath(p.digest)
	s.naming.Lock()
	defer s.naming.Unlock()
	if s.Has(p.digest) {
		return false, nil
	}
	_, err = s.mending(blobDir(p.digest), func() error { return s.root.Rename(p.name, name) })
	if info, statErr := s.root.Lstat(name); err != nil && statErr == nil && !info.Mode().IsRegular() {
		err = errors.Join(s.root.RemoveAll(name), s.root.Rename(p.name, name))
	}
	if err != nil {
		return false, err
	}
	if apart, pending := s.pending[blobDir(p.digest)]; pending {
		apart[p.digest] = true
	}
	p.landed(kept)
	return true, nil
}

// Put keeps small content that the caller holds and has verified. Any number may put the same at once.
func (s *Store) Put(d digest.Digest, content []byte) error {
	if err := validate(d); err != nil {
		return err
	}
	s.naming.Lock()
	p, err := s.create(fmt.Sprintf("partial/put-%d", s.puts.Add(1)), d, int64(len(content)), int64(len(content)))
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

// Remove takes content of that size away: what is damaged, or lost. Content that is gone already is only uncounted. The caller
// sees to it that each content is removed once. Who has it open reads on, and until they have closed it, it goes on taking up room.
func (s *Store) Remove(d digest.Digest, size int64) error {
	if err := validate(d); err != nil {
		return err
	}
	s.naming.Lock()
	defer s.naming.Unlock()
	return s.remove(d, size)
}

// Evict is Remove, but the error is ErrInUse while anybody has the content open: that would free nothing. One who comes to
// open it at this moment may still get hold of it.
func (s *Store) Evict(d digest.Digest, size int64) error {
	if err := validate(d); err != nil {
		return err
	}
	s.naming.Lock()
	defer s.naming.Unlock()
	if s.uses.any(d) {
		return ErrInUse
	}
	return s.remove(d, size)
}

// Lost uncounts content of that size that is gone without having been removed; false: it is there.
func (s *Store) Lost(d digest.Digest, size int64) bool {
	s.naming.Lock()
	defer s.naming.Unlock()
	if s.Exists(d) {
		return false
	}
	s.space.move(blocks(size), kept, s.uses.gone(d, blocks(size)))
	return true
}

// remove is called with naming held.
func (s *Store) remove(d digest.Digest, size int64) error {
	if _, err := s.mending(blobDir(d), func() error { return s.root.RemoveAll(blobPath(d)) }); err != nil {
		return fmt.Errorf("remove %s: %w", d, err)
	}
	s.space.move(blocks(size), kept, s.uses.gone(d, blocks(size)))
	return nil
}

// mkdir makes a directory of blobs/, and makes it durable when it is new.
func (s *Store) mkdir(dir string) error {
	make := func() error {
		err := s.root.Mkdir(dir, 0o750)
		if errors.Is(err, fs.ErrNotExist) {
			err = s.root.MkdirAll(dir, 0o750)
		}
		return err
	}
	_, err := s.mending(path.Dir(dir), make)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTDIR) {
		if !s.clear(dir) && errors.Is(err, fs.ErrExist) {
			return nil
		}
		err = make()
	}
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	s.space.move(block, nowhere, sundry)
	for d := path.Dir(dir); d != "."; d = path.Dir(d) {
		if err := s.syncDir(d); err != nil {
			return err
		}
	}
	return nil
}

// clear removes a file that is where a directory of that path should be, or one above it; false: there is none.
func (s *Store) clear(dir string) bool {
	for ; dir != "."; dir = path.Dir(dir) {
		if info, err := s.root.Lstat(dir); err == nil && info.Mode().IsRegular() {
			return s.root.Remove(dir) == nil
		}
	}
	return false
}

func (s *Store) syncDir(dir string) error {
	f, err := s.root.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}
