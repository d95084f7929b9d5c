package disk

import (
	"errors"
	"io/fs"
	"strings"
)

// mending runs op on a path, and if it was forbidden, gives the permissions back that somebody has taken and runs it once more.
func (s *Store) mending(path string, op func() error) (mended bool, err error) {
	err = op()
	if errors.Is(err, fs.ErrPermission) && s.mend(path) {
		return true, op()
	}
	return false, err
}

// mend gives the owner of a path, and of the directories above it, the permissions that the program needs, as far as it may: it
// must be the owner itself. It reports whether any were missing and are there now.
func (s *Store) mend(path string) (mended bool) {
	if s.opts.Look {
		return false
	}
	names := strings.Split(path, "/")
	for i := range names {
		name := strings.Join(names[:i+1], "/")
		info, err := s.root.Lstat(name)
		if err != nil {
			return mended
		}
		if s.mendOne(name, info.Mode()) {
			mended = true
		}
	}
	return mended
}

func (s *Store) mendOne(name string, mode fs.FileMode) (mended bool) {
	var need fs.FileMode
	switch {
	case mode.IsDir():
		need = 0o750
	case mode.IsRegular():
		need = 0o640
	}
	const owner = 0o700
	if mode&need&owner == need&owner || s.root.Chmod(name, mode.Perm()|need) != nil {
		return false
	}
	if s.opts.Mended != nil {
		s.opts.Mended()
	}
	return true
}
