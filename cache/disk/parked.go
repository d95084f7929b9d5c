package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Content that was parked: unfinished, with a state beside it that says how far it is. It keeps its reservation, survives a
// restart, and is the first to go when room is needed.

const (
	stateSuffix = ".state"
	draftSuffix = ".draft" // of a state that is being written

	// maxState bounds the states that are read: thousands of spans.
	maxState = 1 << 20
)

// parked is what a Store knows of parked content.
type parked struct {
	size int64
	at   time.Time
}

// Save writes the state beside the content while it goes on landing, for the case that the process ends without Park. A
// state that was written says nothing that the content does not hold, as far as a process's end goes; a power cut can
// lose some of the content that it speaks of.
func (p *Partial) Save(state []byte) error {
	draft := p.name + draftSuffix
	f, err := p.store.root.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(state)
	if err = errors.Join(err, f.Close()); err == nil {
		err = p.store.root.Rename(draft, p.name+stateSuffix)
	}
	if err != nil {
		return fmt.Errorf("save the state of %s: %w", p.digest, err)
	}
	return nil
}

// Park ends the writing and keeps the content and its state for Parked. After an error the content was discarded.
func (p *Partial) Park(state []byte) error {
	if err := p.Save(state); err != nil {
		p.Discard()
		return err
	}
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	p.releaseLocked(&p.store.parkedSum)
	p.store.parked[p.digest] = parked{p.size, time.Now()}
	return nil
}

// Parked opens what is parked of the digest; ok is false if nothing is, or nothing that can be read.
func (s *Store) Parked(d digest.Digest) (p *Partial, state []byte, ok bool) {
	p, ok = s.unpark(d)
	if !ok {
		return nil, nil, false
	}
	state, err := s.readState(d)
	if err == nil {
		p.File, err = s.root.OpenFile(p.name, os.O_RDWR, 0)
	}
	if err != nil {
		p.Discard()
		return nil, nil, false
	}
	return p, state, true
}

// unpark makes parked content one that is landing.
func (s *Store) unpark(d digest.Digest) (p *Partial, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	is, ok := s.parked[d]
	if !ok {
		return nil, false
	}
	delete(s.parked, d)
	s.parkedSum -= blocks(is.size)
	s.landing += blocks(is.size)
	s.unwritten += is.size // pessimistic: some of it is written
	return &Partial{store: s, name: partialPath(d), digest: d, size: is.size}, true
}

func (s *Store) readState(d digest.Digest) ([]byte, error) {
	f, err := s.root.Open(partialPath(d) + stateSuffix)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxState))
}

// DropOldestParked gives up the content that was parked first; ok is false if none is parked.
func (s *Store) DropOldestParked() (ok bool) {
	var oldest digest.Digest
	s.mu.Lock()
	for d, p := range s.parked {
		if oldest == "" || p.at.Before(s.parked[oldest].at) {
			oldest = d
		}
	}
	s.mu.Unlock()
	return oldest != "" && s.dropParked(oldest)
}

func (s *Store) dropParked(d digest.Digest) (ok bool) {
	p, ok := s.unpark(d)
	if ok {
		p.Discard()
	}
	return ok
}

// adopt takes over what an earlier process left in partial/: content with a state is parked, all else is removed.
func (s *Store) adopt() error {
	dir, err := s.root.Open("partial")
	if err != nil {
		return err
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		return err
	}
	for _, e := range entries {
		d, is := s.leftover(e)
		switch {
		case is.size >= 0:
			s.parked[d] = is
			s.parkedSum += blocks(is.size)
		case !strings.HasSuffix(e.Name(), stateSuffix) || !s.hasContent(e.Name()):
			if err := s.root.RemoveAll("partial/" + e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// leftover tells what a name in partial/ is: parked content, or, with the size -1, something else.
func (s *Store) leftover(e os.DirEntry) (digest.Digest, parked) {
	none := parked{size: -1}
	algorithm, encoded, _ := strings.Cut(e.Name(), "-")
	d := digest.NewDigestFromEncoded(digest.Algorithm(algorithm), encoded)
	if d.Validate() != nil || !e.Type().IsRegular() {
		return "", none
	}
	info, err := e.Info()
	if err != nil {
		return "", none
	}
	if _, err := s.root.Lstat(partialPath(d) + stateSuffix); err != nil {
		return "", none
	}
	return d, parked{info.Size(), info.ModTime()}
}

// hasContent reports whether a state's name has content beside it.
func (s *Store) hasContent(state string) bool {
	_, err := s.root.Lstat("partial/" + strings.TrimSuffix(state, stateSuffix))
	return err == nil
}
