package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Content that was parked: unfinished, with a state beside it that says how far it is. It keeps the room that it has used,
// survives a restart, and is the first to go when room is needed.

const (
	stateSuffix = ".state"
	draftSuffix = ".draft" // of a state that is being written

	// maxState bounds the states that are read: thousands of spans.
	maxState = 1 << 20
)

// parking is what a Store knows of parked content.
type parking struct {
	size    int64
	touched touched
	beside  int64 // reserved for what is beside it
	at      time.Time
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

// header goes before a state, on a line of its own.
type header struct {
	boot  string // in which the state was written
	mtime int64  // when the content had last been written to, in nanoseconds
	size  int64
	ended bool // nothing was to be written to it after that
}

func (h header) String() string { return fmt.Sprintf("%s %d %d %t", h.boot, h.mtime, h.size, h.ended) }

func parseHeader(line string) (h header, err error) {
	fields := strings.Split(line, " ")
	if len(fields) != 4 {
		return header{}, errors.New("no state of parked content")
	}
	var errs [3]error
	h.boot = fields[0]
	h.mtime, errs[0] = strconv.ParseInt(fields[1], 10, 64)
	h.size, errs[1] = strconv.ParseInt(fields[2], 10, 64)
	h.ended, errs[2] = strconv.ParseBool(fields[3])
	return h, errors.Join(errs[:]...)
}

// besideState is what is reserved beside content with a state of that size: two of them, and a directory.
func besideState(size int) int64 { return max(beside, 2*blocks(int64(size))+block) }

// Save writes the state beside the content while it goes on landing, for the case that the process ends without Park. A
// state that was written says nothing that the content does not hold.
func (p *Partial) Save(state []byte) error { return p.save(state, false) }

func (p *Partial) save(state []byte, ended bool) error {
	info, err := p.Stat()
	if err != nil {
		return err
	}
	h := header{boot(), info.ModTime().UnixNano(), p.size, ended}
	b := append([]byte(h.String()+"\n"), state...)
	if err := p.reserveBeside(besideState(len(b))); err != nil {
		return fmt.Errorf("save the state of %s: %w", p.digest, err)
	}
	draft := p.name + draftSuffix
	f, err := p.store.root.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err == nil {
		err = p.store.root.Rename(draft, p.name+stateSuffix)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("save the state of %s: %w", p.digest, err), p.store.root.Remove(draft))
	}
	return nil
}

// reserveBeside sees to it that so much is reserved beside the content.
func (p *Partial) reserveBeside(sum int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if more := sum - p.beside; more > 0 {
		if !p.store.space.take(more, sundry) {
			return ErrFull
		}
		p.beside = sum
	}
	return nil
}

// Park ends the writing and keeps the content and its state for Parked. After an error the content was discarded.
func (p *Partial) Park(state []byte) error {
	_ = setTimes(p.File, leave, stamp(p.digest, p.size, time.Now())) // a clock may be too coarse to tell later writing from ours
	if err := p.save(state, true); err != nil {
		p.Discard()
		return err
	}
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	p.landed(parked)
	p.store.parkings[p.digest] = parking{p.size, p.touched, p.beside, time.Now()}
	return nil
}

// Parked opens what is parked of the digest, with room for what is there of it; ok is false if nothing is, or nothing that can be
// read, or if it was changed since the writing ended. intact tells that nobody has written to the content since its state
// was: a process that was killed may have.
func (s *Store) Parked(d digest.Digest) (p *Partial, state []byte, intact, ok bool) {
	s.naming.Lock()
	defer s.naming.Unlock()
	p, ok = s.unpark(d)
	if !ok {
		return nil, nil, false, false
	}
	h, state, err := s.readState(d)
	if err == nil {
		intact, err = p.reopen(h)
	}
	if err != nil {
		p.Discard()
		if errors.Is(err, errSpoiled) && s.opts.Spoiled != nil {
			s.opts.Spoiled(d)
		}
		return nil, nil, false, false
	}
	return p, state, intact, true
}

var errSpoiled = errors.New("disk: somebody has changed what is parked")

// reopen opens the file of parked content, if it is as its state says.
func (p *Partial) reopen(h header) (intact bool, err error) {
	s := p.store
	s.uses.begin(p.digest)
	mended, err := s.mending(p.name, func() (err error) {
		p.File, err = s.open(p.name, os.O_RDWR, 0)
		return err
	})
	if err != nil {
		s.endUse(p.digest)
		return false, err
	}
	var st unix.Stat_t
	err = onDescriptor(p.File, func(fd int) error { return unix.Fstat(fd, &st) })
	intact = !mended && st.Mtim.Nano() == h.mtime
	if err == nil && (st.Size != h.size || h.ended && !intact) {
		err = errSpoiled
	}
	if err != nil {
		return false, errors.Join(err, p.Close())
	}
	return intact, nil
}

// unpark makes parked content one that is landing.
func (s *Store) unpark(d digest.Digest) (p *Partial, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	is, ok := s.parkings[d]
	if !ok {
		return nil, false
	}
	delete(s.parkings, d)
	room := is.touched.blocks(is.size)
	s.space.move(room, parked, landing)
	return &Partial{store: s, name: partialPath(d), digest: d, size: is.size, room: room, touched: is.touched, beside: is.beside}, true
}

func (s *Store) readState(d digest.Digest) (h header, state []byte, err error) {
	f, err := s.root.Open(partialPath(d) + stateSuffix)
	if err != nil {
		return header{}, nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxState))
	if err != nil {
		return header{}, nil, err
	}
	line, rest, _ := strings.Cut(string(b), "\n")
	h, err = parseHeader(line)
	if err == nil && h.boot != boot() {
		err = errors.New("the machine was started anew since")
	}
	return h, []byte(rest), err
}

// DropOldestParked gives up the content that was parked first; ok is false if none is parked.
func (s *Store) DropOldestParked() (ok bool) {
	var oldest digest.Digest
	s.mu.Lock()
	for d, p := range s.parkings {
		if oldest == "" || p.at.Before(s.parkings[oldest].at) {
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

// adopt takes over what an earlier process left in partial/: content with a state is parked, all else is removed. What can't be
// removed goes on being counted, if it is a file.
func (s *Store) adopt() error {
	entries, err := s.readDir("partial")
	if err != nil {
		return err
	}
	ours := make(map[string]bool)
	for _, e := range entries {
		if d, is, ok := s.leftover(e); ok {
			s.parkings[d] = is
			s.space.move(is.touched.blocks(is.size), nowhere, parked)
			s.space.move(is.beside, nowhere, sundry)
			ours[e.Name()], ours[e.Name()+stateSuffix] = true, true
		}
	}
	for _, e := range entries {
		if ours[e.Name()] {
			continue
		}
		if s.opts.Look {
			s.leftovers++
		} else if err := s.root.RemoveAll("partial/" + e.Name()); err == nil {
			s.leftovers++
		} else if info, err := e.Info(); err == nil {
			s.space.move(blocks(info.Size()), nowhere, held)
		}
	}
	return nil
}

// Leftovers is how many names in partial/ that are no parked content Open has removed, or only seen.
func (s *Store) Leftovers() int { return s.leftovers }

// leftover tells what a name in partial/ is; ok is false if that is no parked content.
func (s *Store) leftover(e os.DirEntry) (d digest.Digest, is parking, ok bool) {
	algorithm, encoded, _ := strings.Cut(e.Name(), "-")
	d = digest.NewDigestFromEncoded(digest.Algorithm(algorithm), encoded)
	if validate(d) != nil || !e.Type().IsRegular() {
		return "", parking{}, false
	}
	info, err := e.Info()
	if err != nil {
		return "", parking{}, false
	}
	h, state, err := s.readState(d)
	if err != nil || h.size != info.Size() {
		return "", parking{}, false
	}
	has := touched{data: whole(allocated(info) + block - 1)}
	return d, parking{info.Size(), has, besideState(len(h.String()) + 1 + len(state)), info.ModTime()}, true
}
