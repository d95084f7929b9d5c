package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"sync"
	"syscall"
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

// boot tells one start of the machine from another, where the system says so. Content that was not synced is what was
// written as long as the machine runs, whatever becomes of the process; after a power cut, nobody knows. So a state of
// another boot is not believed.
var boot = sync.OnceValue(func() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(id))
})

// header goes before a state: in which boot it was written, and when the content had last been written to.
func header(info fs.FileInfo) string { return fmt.Sprintf("%s %d", boot(), info.ModTime().UnixNano()) }

// Save writes the state beside the content while it goes on landing, for the case that the process ends without Park. A
// state that was written says nothing that the content does not hold.
func (p *Partial) Save(state []byte) error {
	info, err := p.Stat()
	if err != nil {
		return err
	}
	draft := p.name + draftSuffix
	f, err := p.store.root.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(append([]byte(header(info)+"\n"), state...))
	if err = errors.Join(err, f.Close()); err == nil {
		err = p.store.root.Rename(draft, p.name+stateSuffix)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("save the state of %s: %w", p.digest, err), p.store.root.Remove(draft))
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

// Parked opens what is parked of the digest; ok is false if nothing is, or nothing that can be read, or there is no room for
// the rest of it. intact tells that nobody has written to the content since the state was: a process that was killed
// may have, and so may whoever tampers with files.
func (s *Store) Parked(d digest.Digest) (p *Partial, state []byte, intact, ok bool) {
	s.naming.Lock()
	defer s.naming.Unlock()
	p, ok = s.unpark(d)
	if !ok {
		return nil, nil, false, false
	}
	head, state, err := s.readState(d)
	if err == nil {
		err = p.reopen()
	}
	if err != nil {
		p.Discard()
		return nil, nil, false, false
	}
	info, err := p.Stat()
	return p, state, err == nil && header(info) == head, true
}

// reopen opens the file of parked content, and makes sure that there is room for what it has no blocks for yet.
func (p *Partial) reopen() error {
	f, err := p.store.root.OpenFile(p.name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	var st syscall.Stat_t
	free, err := freeSpace(p.store.opts.Dir)
	if err = errors.Join(err, syscall.Fstat(int(f.Fd()), &st)); err != nil {
		return errors.Join(err, f.Close())
	}
	p.store.mu.Lock()
	p.wrote = min(p.size, st.Blocks*512)
	p.store.unwritten -= p.wrote
	roomy := free-p.store.unwritten >= p.store.opts.MinFree
	p.store.mu.Unlock()
	if !roomy {
		return errors.Join(ErrFull, f.Close())
	}
	p.File = f
	return nil
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
	s.unwritten += is.size
	return &Partial{store: s, name: partialPath(d), digest: d, size: is.size}, true
}

func (s *Store) readState(d digest.Digest) (head string, state []byte, err error) {
	f, err := s.root.Open(partialPath(d) + stateSuffix)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxState))
	head, rest, _ := strings.Cut(string(b), "\n")
	if id, _, _ := strings.Cut(head, " "); err == nil && id != boot() {
		err = errors.New("the machine was started anew since")
	}
	return head, []byte(rest), err
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

// dropParked gives up what is parked of the digest. The lock is held until its names are gone: one who finds that it is not
// parked any more makes files of the same names.
func (s *Store) dropParked(d digest.Digest) (ok bool) {
	s.naming.Lock()
	defer s.naming.Unlock()
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
	ours := make(map[string]bool)
	for _, e := range entries {
		if d, is := s.leftover(e); is.size >= 0 {
			s.parked[d] = is
			s.parkedSum += blocks(is.size)
			ours[e.Name()], ours[e.Name()+stateSuffix] = true, true
		}
	}
	for _, e := range entries {
		if ours[e.Name()] {
			continue
		}
		if err := s.root.RemoveAll("partial/" + e.Name()); err != nil {
			return err
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
	if _, _, err := s.readState(d); err != nil {
		return "", none
	}
	return d, parked{info.Size(), info.ModTime()}
}
