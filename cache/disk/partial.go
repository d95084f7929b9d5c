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

// Partial is content that is still landing. WriteAt, Reserve and ReadAt may be called concurrently; Commit, Discard or Park ends
// it, once, after the last WriteAt and Reserve. ReadAt goes on working until Close.
type Partial struct {
	*os.File
	store  *Store
	name   string
	digest digest.Digest
	size   int64

	mu sync.Mutex
	// guards following
	room    int64 // reserved for the content, in whole blocks: never less than what is touched, nor more than all of it
	touched touched
	beside  int64 // reserved for what is beside the content
}

// Size is the size of the whole content.
func (p *Partial) Size() int64 { return p.size }

// growth is by how much the room for content grows at most, in bytes: so rarely that it costs nothing. While there is less of the
// content, its room doubles: what is reserved in vain may be what other content has to go for.
const growth = 8 << 20

// WriteAt writes. The error is ErrFull or ErrTooLarge, and nothing is written, when more room is needed for that and there is
// none.
func (p *Partial) WriteAt(b []byte, off int64) (int, error) {
	sum, err := p.touch(off, int64(len(b)))
	if err != nil {
		return 0, err
	}
	n, err := p.File.WriteAt(b, off)
	p.store.space.wrote(sum) // also if it failed: then what was reserved is given back soon
	return n, err
}

// touch has n bytes at an offset count as written, and returns how much of the room they take.
//
// It ends: in each round but the last there is more room than before, and what is needed is never more than all of it.
func (p *Partial) touch(off, n int64) (sum int64, err error) {
	for {
		p.mu.Lock()
		after := p.touched.write(off, n)
		sum, need := after.blocks(p.size)-p.touched.blocks(p.size), after.blocks(p.size)
		enough := need <= p.room
		if enough {
			p.touched = after
		}
		p.mu.Unlock()
		if enough {
			return sum, nil
		}
		err := p.reserve(min(need+min(need, growth), blocks(p.size)))
		if errors.Is(err, ErrTooLarge) {
			err = p.reserve(need)
		}
		if err != nil {
			return 0, err
		}
	}
}

// Reserve sees to it that there is room for all of the content. The error is ErrFull or ErrTooLarge when there is none.
func (p *Partial) Reserve() error { return p.reserve(blocks(p.size)) }

// reserve sees to it that there is so much room for the content, in whole blocks.
func (p *Partial) reserve(room int64) error {
	s := p.store
	s.naming.Lock() // and nobody else changes the room
	defer s.naming.Unlock()
	more := room - p.roomNow()
	if more <= 0 {
		return nil
	}
	if err := s.space.land(more, 0); err != nil {
		return err
	}
	if err := s.raise(); err != nil {
		s.space.landed(more, 0, nowhere)
		return fmt.Errorf("more room for %s: %w", p.digest, err)
	}
	p.mu.Lock()
	p.room += more
	p.mu.Unlock()
	return nil
}

func (p *Partial) roomNow() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.room
}

// used is what was touched, with the blocks that say where that is.
func (p *Partial) used() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.touched.blocks(p.size)
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

// landed ends the landing: the room goes to another account, and what of it was not used is given back.
func (p *Partial) landed(to account) {
	p.mu.Lock()
	defer p.mu.Unlock()
	used := p.touched.blocks(p.size)
	if to == kept { // it is what is counted when it is removed
		p.store.space.landed(p.room, used, kept)
	} else {
		p.store.space.landed(p.room-used, 0, nowhere)
		p.store.space.landed(used, used, to)
	}
	if p.room = used; to != parked {
		p.store.space.move(p.beside, sundry, nowhere)
	}
}

// Create opens a file for content of that size, as long as the content from the start but without blocks, and reserves room for
// the first bytes that are going to be written, wherever they are: more is reserved as it is needed. At most one Partial of a
// digest may be open and not yet ended: the caller's duty. A new one never touches the file of an older one that somebody still
// reads; what is parked of the digest is dropped. The error is ErrFull or ErrTooLarge when there is no room.
func (s *Store) Create(d digest.Digest, size, first int64) (*Partial, error) {
	if err := validate(d); err != nil {
		return nil, err
	}
	s.dropParked(d)
	s.naming.Lock()
	defer s.naming.Unlock()
	return s.create(partialPath(d), d, size, first)
}

// create is called with naming held.
func (s *Store) create(name string, d digest.Digest, size, first int64) (*Partial, error) {
	if size < 0 || size > maxSize {
		return nil, ErrTooLarge
	}
	room := roomFor(min(first, size), size)
	if err := s.space.land(room, beside); err != nil {
		return nil, err
	}
	p := &Partial{store: s, name: name, digest: d, size: size, room: room, beside: beside}
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
			if s.root.RemoveAll(name) == nil {
				s.unstick(name)
			}
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

// Discard gives the content up and frees its reservation; what was touched, when nobody reads it any more.
func (p *Partial) Discard() {
	p.removeState()
	to := held
	if err := p.store.root.Remove(p.name); err == nil || missing(err) {
		to = p.store.uses.gone(p.digest, p.used())
	} else {
		p.store.stick(p.name, p.used())
	}
	p.landed(to)
}

// stick says that a file in partial/ could not be removed: so much stays held until it is, by who needs the name or by the next Open.
func (s *Store) stick(name string, sum int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stuck == nil {
		s.stuck = make(map[string]int64)
	}
	s.stuck[name] += sum
}

func (s *Store) unstick(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.space.move(s.stuck[name], held, nowhere)
	delete(s.stuck, name)
}

func (p *Partial) removeState() { _ = p.store.root.Remove(p.name + stateSuffix) }
