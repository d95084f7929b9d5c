package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

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

// Blob opens complete content for reading. The caller closes the file. The error is fs.ErrNotExist when there is none;
// any other error means that there is something that can't be read.
func (s *Store) Blob(d digest.Digest) (*os.File, int64, error) {
	if err := validate(d); err != nil {
		return nil, 0, err
	}
	f, err := s.open(blobPath(d), os.O_RDONLY, 0)
	if err != nil {
		return nil, 0, err
	}
	var st unix.Stat_t
	err = onDescriptor(f, func(fd int) error { return unix.Fstat(fd, &st) })
	if err == nil && st.Mode&unix.S_IFMT != unix.S_IFREG {
		err = fmt.Errorf("%s is not a regular file", blobPath(d))
	}
	if err != nil {
		f.Close()
		return nil, 0, err
	}
	return f, st.Size, nil
}

// open opens a path without leaving the data directory, in one system call where os.Root makes one for each directory on
// the way, and asks the poller about a file that it can't poll. Whatever else the kernel says than that it is open, or that
// there is none, or that there is one, os.Root decides: the call may be unknown to it, or forbidden to containers.
func (s *Store) open(path string, flags int, perm os.FileMode) (f *os.File, err error) {
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
	}
	return s.root.OpenFile(path, flags, perm)
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
