package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrFull says that the content does not fit at the moment: removing other content would help.
var ErrFull = errors.New("disk: no room left below the configured size")

// ErrTooLarge says that the content does not fit, and would not if all other content were removed: all that is counted, for
// nothing else can be.
var ErrTooLarge = errors.New("disk: larger than all the room that there could be")

const (
	// block is what file systems charge in: a file of one byte costs this much. ext4, XFS and tmpfs use 4 KiB by default.
	block = 4096

	// beside is what content that is landing may cost beside its own blocks: its state, the next state while that is being
	// written, and a directory for its name.
	beside = 3 * block

	// fixed is for what is there in any case: the lock, the bound and its next one, the directories above those of content.
	fixed = 8 * block

	// maxSize is the largest content that is believed in, in bytes: 16 TiB. What upstream states beyond that is nonsense, and
	// would overflow.
	maxSize = 16 << 40

	// unbounded stands for what is unseen when there is no bound: more than any file system has.
	unbounded = 1 << 60
)

// account is what room is taken for.
type account int

const (
	nowhere account = iota // it is not taken
	kept                   // complete content that is counted
	unseen                 // complete content that is not counted yet, at most
	landing                // reserved by content that is still landing
	parked                 // reserved by content that is parked
	held                   // content without a name that somebody has open
	sundry                 // states, directories, what is fixed
	ballast                // see there
	index                  // occupied by the index when that was measured last, and claimed by it since
	accounts
)

// space is who has taken how much of the room that there is. All sums are in bytes, and, but for what the index says, in whole
// blocks.
//
// Two limits are hard: content is refused what would leave less than reserve below maxSize, or less than minFree on the file
// system. The reserve is the index's: it can grow a little although content has taken all that it may. The lower marks, above which
// somebody should evict, lie margin and freeMargin before these limits.
type space struct {
	maxSize, reserve, margin int64 // maxSize 0: no limit
	minFree, freeMargin      int64
	free                     func() (int64, error) // what the file system has left
	pressed                  chan struct{}

	mu sync.Mutex
	// guards following
	sums      [accounts]int64
	wanted    int64 // what the ballast should have
	unwritten int64 // how much of landing has no blocks yet
}

// newSpace is the space below limits as they are configured, on a file system of that capacity.
func newSpace(opts Options, capacity int64) *space {
	s := &space{
		maxSize: opts.MaxSize, reserve: whole(min(4<<20, opts.MaxSize/32)), margin: whole(min(1<<30, opts.MaxSize/32)),
		minFree: opts.MinFree, freeMargin: min(1<<30, capacity/32),
		wanted:  ballastSize(capacity, opts.MaxSize),
		pressed: make(chan struct{}, 1),
	}
	s.sums[sundry] = fixed
	return s
}

// blocks is what content of that size takes up: its blocks, and, unless it is small, those that say where its blocks are. On ext4
// one of these is enough for 340 pieces.
func blocks(size int64) int64 {
	sum := whole(size + block - 1)
	if size > 256<<10 {
		sum += (size/(128<<20) + 1) * block
	}
	return sum
}

// whole is size less what is not a whole block.
func whole(size int64) int64 { return size / block * block }

// of is how much is taken for something.
func (s *space) of(a account) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sums[a]
}

// move has room that was taken for one thing taken for another.
func (s *space) move(sum int64, from, to account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sums[from] -= sum
	s.sums[to] += sum
}

// saw moves so much from what is unseen to what is kept.
func (s *space) saw(sum int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sums[kept] += sum
	if s.sums[unseen] < unbounded {
		s.sums[unseen] = max(0, s.sums[unseen]-sum)
	}
}

// set says how much is taken for something.
func (s *space) set(a account, sum int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sums[a] = sum
}

// land reserves room for content that is going to land, and beside it, or says why it can't.
func (s *space) land(sum, beside int64) error {
	free, err := s.free()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	err = s.roomLocked(sum+beside, free)
	if err == nil {
		s.sums[landing] += sum
		s.sums[sundry] += beside
		s.unwritten += sum
	}
	if err == ErrFull || s.excessLocked(free) > 0 {
		s.press()
	}
	return err
}

// want says what the ballast should have.
func (s *space) want(sum int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = sum
}

// lacks is how much of that it has not.
func (s *space) lacks() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wanted - s.sums[ballast]
}

// wrote says that so much of what is reserved has blocks now.
func (s *space) wrote(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unwritten -= n
}

// landed ends the landing of what so much was reserved for, of which so much has blocks; to is what that room goes to.
func (s *space) landed(sum, wrote int64, to account) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sums[landing] -= sum
	s.sums[to] += sum
	s.unwritten -= sum - wrote
}

// roomLocked returns nil if there is room for so much. Whether removing other content would help is decided here, before any is
// removed.
func (s *space) roomLocked(need, free int64) error {
	removable := s.sums[kept] + s.sums[parked]
	if s.maxSize > 0 {
		switch room := s.contentLocked() - s.sums[landing] - need; {
		case room < s.sums[unseen]:
			return ErrTooLarge
		case room < s.sums[unseen]+removable:
			return ErrFull
		}
	}
	switch room := free - s.unwritten - need - s.minFree; {
	case room+removable < 0:
		return ErrTooLarge
	case room < 0:
		return ErrFull
	}
	return nil
}

// contentLocked is how much content may have under a configured size, kept or not: what nothing else has.
func (s *space) contentLocked() int64 {
	return s.maxSize - s.reserve - s.sums[held] - s.sums[sundry] - s.sums[ballast] - s.sums[index]
}

// fits reports whether there could be room for content of that size in place of all that may be removed.
func (s *space) fits(size int64) bool {
	if size < 0 || size > maxSize {
		return false
	}
	free, err := s.free()
	if err != nil {
		return true // land will tell
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.roomLocked(blocks(size)+beside, free) != ErrTooLarge
}

// take takes room for what is no content, if it can be had without evicting any.
func (s *space) take(sum int64, a account) bool {
	free, err := s.free()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil || free-s.unwritten-s.minFree < sum {
		return false
	}
	if s.maxSize > 0 && s.contentLocked()-s.contentsLocked() < sum {
		return false
	}
	s.sums[a] += sum
	return true
}

// contentsLocked is what content has, as far as that is known.
func (s *space) contentsLocked() int64 {
	sum := s.sums[kept] + s.sums[landing] + s.sums[parked]
	if s.sums[unseen] < unbounded {
		sum += s.sums[unseen]
	}
	return sum
}

// claim takes room for the index, which may have the reserve too.
func (s *space) claim(n int64) bool {
	free, err := s.free()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.maxSize > 0 && s.contentLocked()+s.reserve-s.contentsLocked() < n {
		s.press()
		return false
	}
	s.sums[index] += n
	if err == nil && s.excessLocked(free) > 0 {
		s.press()
	}
	return true
}

// named is how much content has, or may get, a name in the data directory; if nobody knows, it is unbounded or more. It may be
// most at most.
func (s *space) named() (sum, most int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum, most = s.sums[kept]+s.sums[unseen]+s.sums[landing]+s.sums[parked], unbounded
	if s.maxSize > 0 {
		most = s.contentLocked()
	}
	return sum, most
}

// excessLocked is how many bytes are to be evicted to come below the lower marks, with a ballast. What is unseen can't be: it is
// left out, and with it what there may not even be. Where evicting everything would not leave as much free as is configured,
// nothing is evicted for that: others have filled the file system, and a cache that is empty helps nobody. Where it would, but not come
// below the mark, only as much goes as has to: what is admitted would go at once else.
func (s *space) excessLocked(free int64) int64 {
	var over, short int64
	missing := s.wanted - s.sums[ballast]
	if s.maxSize > 0 {
		over = s.sums[kept] + s.sums[landing] + s.sums[parked] - s.contentLocked() + s.margin + missing
	}
	removable, lacking := s.sums[kept]+s.sums[parked], s.minFree-(free-s.unwritten)
	switch ahead := lacking + s.freeMargin + missing; {
	case ahead <= removable:
		short = ahead
	case lacking <= removable:
		short = lacking
	}
	return max(0, over, short)
}

func (s *space) press() {
	select {
	case s.pressed <- struct{}{}:
	default: // it has been said
	}
}

// Used is how many bytes content has taken, kept and reserved, in whole blocks; at most, as long as not all is counted. The
// index, the ballast and what else there is beside content come on top.
func (s *Store) Used() int64 {
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	return s.space.contentsLocked() + s.space.sums[held]
}

// Total is all that counts against the configured size.
func (s *Store) Total() int64 {
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	sums := &s.space.sums
	return s.space.contentsLocked() + sums[held] + sums[sundry] + sums[ballast] + sums[index]
}

// Free is how many bytes of the file system an ordinary process may still take.
func (s *Store) Free() (int64, error) { return s.space.free() }

// ParkedBytes is how many bytes of Used parked content has.
func (s *Store) ParkedBytes() int64 { return s.space.of(parked) }

// Crowded reports whether less is free on the file system than is to be left free, although nothing that could be evicted would
// mend that: others have filled it.
func (s *Store) Crowded() bool {
	free, err := s.space.free()
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	return err == nil && s.space.minFree-(free-s.space.unwritten) > s.space.sums[kept]+s.space.sums[parked]
}

// Fits reports whether there could be room for content of that size, if need be in place of all that may be removed. What is
// not counted yet can't be.
func (s *Store) Fits(size int64) bool { return s.space.fits(size) }

// Excess is how many bytes are to be evicted to come below the lower marks: of the configured size, and of what is to be left free.
func (s *Store) Excess() int64 {
	free, err := s.space.free()
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	if err != nil {
		free = unbounded
	}
	return s.space.excessLocked(free)
}

// Pressed yields a value when something was reserved, or could not be, that took more than the lower marks leave.
func (s *Store) Pressed() <-chan struct{} { return s.space.pressed }

// Claim reserves n bytes that the index is going to write below the data directory; false: there is no room for them.
func (s *Store) Claim(n int64) bool { return s.space.claim(n) }

// Occupy says how many bytes the index has in all. What was claimed before is among them.
func (s *Store) Occupy(n int64) { s.space.set(index, n) }

// inodes is how many files there must still be room for: of those that are free, some are the index's.
const inodes = 128

// freeSpace is how many bytes of the file system an ordinary process may still take: none if there can be no more files, which
// evicting mends as well. File systems that make inodes as they go state no number of them.
func freeSpace(dir *os.File) (int64, error) {
	var st unix.Statfs_t
	if err := onDescriptor(dir, func(fd int) error { return unix.Fstatfs(fd, &st) }); err != nil {
		return 0, fmt.Errorf("statfs: %w", err)
	}
	if st.Files > 0 && st.Ffree < min(inodes, st.Files/8) {
		return 0, nil
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// Capacity is the size in bytes of the file system that holds dir, or of the nearest parent that exists.
func Capacity(dir string) (int64, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return 0, err
	}
	for {
		var st syscall.Statfs_t
		err := syscall.Statfs(dir, &st)
		if err == nil {
			return int64(st.Blocks) * st.Bsize, nil
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return 0, fmt.Errorf("statfs %s: %w", dir, err)
		}
		dir = filepath.Dir(dir)
	}
}
