package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// validate is d.Validate without its regular expression, which costs as much as opening the file, for the digests that there
// are.
func validate(d digest.Digest) error {
	encoded, ok := strings.CutPrefix(string(d), "sha256:")
	if !ok || len(encoded) != 64 {
		return d.Validate()
	}
	for _, c := range []byte(encoded) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return d.Validate()
		}
	}
	return nil
}

// Content is complete content that is open for reading. It counts as in use until Close.
type Content struct {
	*os.File
	Size     int64
	Verified time.Time // when it was verified last; zero if that is not known, or it was changed since
	mended   bool      // it could not be opened before its permissions were mended; then it does not count as verified

	store  *Store
	digest digest.Digest
	mtime  unix.Timespec
}

// Same reports whether both are the same file.
func (c *Content) Same(as *Content) bool {
	a, errA := c.Stat()
	b, errB := as.Stat()
	return errA == nil && errB == nil && os.SameFile(a, b)
}

// Forget says that so many bytes from an offset on won't be read again soon: their memory is of more use to others.
func (c *Content) Forget(offset, n int64) {
	_ = onDescriptor(c.File, func(fd int) error { return unix.Fadvise(fd, offset, n, unix.FADV_DONTNEED) })
}

// Close ends its being in use.
func (c *Content) Close() error {
	err := c.File.Close()
	if !errors.Is(err, os.ErrClosed) { // which it is for all but one
		c.store.endUse(c.digest)
	}
	return err
}

// Blob opens complete content for reading. The caller closes it. The error is fs.ErrNotExist when there is none; any other
// error means that there is something that can't be read.
func (s *Store) Blob(d digest.Digest) (*Content, error) {
	if err := validate(d); err != nil {
		return nil, err
	}
	return s.openContent(d, blobPath(d))
}

// openContent opens a file that holds content of the digest. What had to be mended before it could be opened was in wrong hands: it
// does not count as verified, now and later.
func (s *Store) openContent(d digest.Digest, path string) (c *Content, err error) {
	s.uses.begin(d)
	defer func() {
		if err != nil {
			s.endUse(d)
		}
	}()
	f, err := s.open(path, os.O_RDONLY, 0)
	mended := errors.Is(err, fs.ErrPermission) && s.mend(path)
	if mended {
		f, err = s.open(path, os.O_RDONLY, 0)
	}
	if missing(err) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	if mended {
		_ = setTimes(f, leave, unix.Timespec{Nsec: unix.UTIME_NOW})
	}
	var st unix.Stat_t
	err = onDescriptor(f, func(fd int) error { return unix.Fstat(fd, &st) })
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = fmt.Errorf("%s is not a regular file", path)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	c = &Content{File: f, Size: st.Size, mended: mended, store: s, digest: d, mtime: st.Mtim}
	if !mended {
		c.Verified = s.verified(d, &st)
	}
	return c, nil
}

// open opens a path without leaving the data directory, in one system call where os.Root makes one for each directory on
// the way, and asks the poller about a file that it can't poll. Whatever else the kernel says than that it is open, or that
// there is none, or that there is one, os.Root decides: the call may be unknown to it, or forbidden to containers. Reading
// leaves the time of the last use alone, which only the owner of a file may ask for.
func (s *Store) open(path string, flags int, perm os.FileMode) (f *os.File, err error) {
	flags |= unix.O_NOATIME
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC | unix.O_NOFOLLOW, Mode: uint64(perm),
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_MAGICLINKS}
	err = onDescriptor(s.dir, func(dir int) error {
		fd, err := unix.Openat2(dir, path, &how)
		if err == nil {
			f = os.NewFile(uintptr(fd), path)
		}
		return err
	})
	switch {
	case err == nil:
		return f, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrExist):
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	case errors.Is(err, unix.ELOOP):
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("a symbolic link")}
	}
	if f, err = s.root.OpenFile(path, flags, perm); errors.Is(err, unix.EPERM) {
		f, err = s.root.OpenFile(path, flags&^unix.O_NOATIME, perm)
	}
	return f, err
}

// Has reports whether complete content is there.
func (s *Store) Has(d digest.Digest) bool {
	if validate(d) != nil {
		return false
	}
	var st unix.Stat_t
	err := onDescriptor(s.dir, func(dir int) error { return unix.Fstatat(dir, blobPath(d), &st, unix.AT_SYMLINK_NOFOLLOW) })
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// Exists reports whether there is anything of the content's name.
func (s *Store) Exists(d digest.Digest) bool {
	var st unix.Stat_t
	err := onDescriptor(s.dir, func(dir int) error { return unix.Fstatat(dir, blobPath(d), &st, unix.AT_SYMLINK_NOFOLLOW) })
	return !missing(err)
}

// missing reports whether an error says that there is no such file, or that a file is where its directory should be.
func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) }

// onDescriptor makes a system call on an open file, which stays open as long as that takes. Of a file that is closed the error
// is os.ErrClosed.
func onDescriptor(f *os.File, call func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = call(int(fd)) }); err != nil {
		return err
	}
	return failed
}
