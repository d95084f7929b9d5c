package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Entry is content that is kept.
type Entry struct {
	Digest   digest.Digest
	Size     int64
	Used     time.Time // when it was used last, as far as that was noted
	Verified time.Time // when it was verified last; zero if that is not known, or it was changed since
}

// Walk lists what is kept, a directory at a time, while it may change; each must not keep the slice, and its error ends the
// walk. What can't be read is left out, and an error at the end.
func (s *Store) Walk(ctx context.Context, each func(dir []Entry) error) error {
	dirs, err := s.contentDirs()
	var entries []Entry
	for _, dir := range dirs {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var listErr error
		if entries, listErr = s.list(entries[:0], dir); listErr != nil {
			err = errors.Join(err, fmt.Errorf("list %s: %w", dir, listErr))
		}
		if err := each(entries); err != nil {
			return err
		}
	}
	return err
}

// contentDirs are the paths of the directories that content is in.
func (s *Store) contentDirs() (paths []string, err error) {
	algorithms, err := s.directories("blobs")
	for _, algorithm := range algorithms {
		dirs, listErr := s.directories(algorithm)
		err = errors.Join(err, listErr)
		paths = append(paths, dirs...)
	}
	return paths, err
}

// directories are the paths of the directories within one.
func (s *Store) directories(name string) (paths []string, err error) {
	entries, err := s.readDir(name)
	for _, e := range entries {
		if e.IsDir() {
			paths = append(paths, name+"/"+e.Name())
		}
	}
	return paths, err
}

// readDir lists a directory. One that does not exist is empty.
func (s *Store) readDir(name string) ([]os.DirEntry, error) {
	dir, err := s.openDir(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return dir.ReadDir(-1)
}

func (s *Store) openDir(name string) (dir *os.File, err error) {
	_, err = s.mending(name, func() (err error) {
		dir, err = s.root.Open(name)
		return err
	})
	return dir, err
}

// list appends what is kept in a directory, which may change meanwhile.
func (s *Store) list(entries []Entry, name string) ([]Entry, error) {
	dir, err := s.openDir(name)
	if errors.Is(err, fs.ErrNotExist) {
		return entries, nil
	}
	if err != nil {
		return entries, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return entries, err
	}
	err = onDescriptor(dir, func(fd int) error {
		entries, err = s.look(entries, name, fd, names)
		return err
	})
	return entries, err
}

// algorithmOf is the one whose digests name what is in a directory of content.
func algorithmOf(dir string) digest.Algorithm { return digest.Algorithm(strings.Split(dir, "/")[1]) }

// look appends those of the names in a directory that are kept content.
func (s *Store) look(entries []Entry, name string, dir int, names []string) ([]Entry, error) {
	algorithm := algorithmOf(name)
	for _, encoded := range names {
		d := digest.NewDigestFromEncoded(algorithm, encoded)
		if validate(d) != nil || blobDir(d) != name {
			continue
		}
		var st unix.Stat_t
		switch err := unix.Fstatat(dir, encoded, &st, unix.AT_SYMLINK_NOFOLLOW); {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return entries, err
		case st.Mode&unix.S_IFMT == unix.S_IFREG:
			entries = append(entries, Entry{Digest: d, Size: st.Size, Used: time.Unix(st.Atim.Unix()), Verified: s.verified(d, &st)})
		}
	}
	return entries, nil
}
