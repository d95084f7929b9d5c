package disk

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"time"
	"unsafe"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// The inode is the record of what is known of content. Its mtime is the stamp: the seconds say when the content was verified, and
// the nanoseconds are a number that depends on digest, size and seconds. Whoever writes to the file, or puts one there, leaves
// another time, whose nanoseconds fit by a chance of one in a billion. So it costs nothing to keep, and to look at no more than the
// fstat that is made anyway, and outlives the loss of everything else. Its atime says when the content was used last; it is set
// explicitly, and our own reading leaves it alone, so the options of the mount don't matter.
//
// The number is no secret: it tells of accidents and of tools, not of somebody who forges stamps.

// check is the number that belongs into the nanoseconds of a stamp.
func check(d digest.Digest, size, seconds int64) int64 {
	b := make([]byte, 0, 160)
	b = append(b, d...)
	b = binary.BigEndian.AppendUint64(b, uint64(size))
	b = binary.BigEndian.AppendUint64(b, uint64(seconds))
	sum := sha256.Sum256(b)
	return int64(binary.BigEndian.Uint64(sum[:]) % 1e9)
}

// stamp is the mtime of content that was verified at that time.
func stamp(d digest.Digest, size int64, at time.Time) unix.Timespec {
	seconds := at.Unix()
	return timespec(time.Unix(seconds, check(d, size, seconds)))
}

// verified is when the content of a file was verified last; zero if that is not known, for nobody has done so yet, or somebody
// has changed it since.
func (s *Store) verified(d digest.Digest, st *unix.Stat_t) time.Time {
	seconds, nanoseconds := st.Mtim.Unix()
	if !s.coarse && nanoseconds != check(d, st.Size, seconds) {
		return time.Time{}
	}
	return time.Unix(seconds, 0)
}

func timespec(t time.Time) unix.Timespec {
	ts, err := unix.TimeToTimespec(t)
	if err != nil { // it is beyond what the system can say
		return unix.Timespec{}
	}
	return ts
}

// leave leaves one of the two times as it is.
var leave = unix.Timespec{Nsec: unix.UTIME_OMIT}

// setTimes sets the times of an open file. Package unix has no futimens, nor the null path that makes it of utimensat.
func setTimes(f *os.File, atime, mtime unix.Timespec) error {
	times := [2]unix.Timespec{atime, mtime}
	return onDescriptor(f, func(fd int) error {
		_, _, errno := unix.Syscall6(unix.SYS_UTIMENSAT, uintptr(fd), 0, uintptr(unsafe.Pointer(&times)), 0, 0, 0)
		if errno != 0 {
			return os.NewSyscallError("utimensat", errno)
		}
		return nil
	})
}

// isCoarse reports whether the file system loses the nanoseconds of the times that it is told, which is tried with a file of our
// own. Then only the seconds of a stamp count, and no file counts as changed by its stamp. Who only looks finds what who tried it
// last has left.
func isCoarse(f *os.File, look bool) bool {
	const odd = 123456789
	var st unix.Stat_t
	var err error
	if !look {
		err = setTimes(f, leave, timespec(time.Unix(time.Now().Unix(), odd)))
	}
	if err == nil {
		err = onDescriptor(f, func(fd int) error { return unix.Fstat(fd, &st) })
	}
	return err == nil && (st.Mtim.Nsec == 0 || !look && st.Mtim.Nsec != odd)
}

// errChanged says that content was changed while it was verified.
var errChanged = errors.New("disk: the file was changed meanwhile")

// Stamp notes that the content was verified at that time, by who has read it from c. It fails if the file was changed since
// it was opened.
func (s *Store) Stamp(c *Content, at time.Time) error {
	var st unix.Stat_t
	if err := onDescriptor(c.File, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		return err
	}
	if st.Size != c.Size || st.Mtim != c.mtime && s.verified(c.digest, &st).IsZero() {
		return errChanged
	}
	mtime := stamp(c.digest, c.Size, at)
	if err := setTimes(c.File, leave, mtime); err != nil {
		return err
	}
	c.mtime, c.Verified = mtime, time.Unix(at.Unix(), 0)
	return nil
}

// Note notes that content was used at that time.
func (s *Store) Note(d digest.Digest, used time.Time) error {
	if err := validate(d); err != nil {
		return err
	}
	times := []unix.Timespec{timespec(used), leave}
	return onDescriptor(s.dir, func(dir int) error {
		return unix.UtimesNanoAt(dir, blobPath(d), times, unix.AT_SYMLINK_NOFOLLOW)
	})
}
