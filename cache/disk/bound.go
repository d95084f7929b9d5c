package disk

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// step is by how much the bound is raised beyond what is needed, in bytes: so much may stay unused after a kill until all is
// counted, and each step costs two fsyncs.
const step = 256 << 20

// parseBound is what the file says; -1: nothing.
func parseBound(b []byte) int64 {
	bound, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || bound < 0 || bound >= unbounded {
		return -1
	}
	return bound
}

// raise makes sure that the bound holds. It is called with naming held, after more was reserved and before there is a file.
func (s *Store) raise() error {
	need, most := s.space.named()
	if need <= s.bound || need >= unbounded {
		return nil
	}
	return s.setBound(max(need, min(need+step, most)))
}

// lower makes the bound what is kept and reserved, if that is known. Names that were removed are made durably so before: they
// would be back after a power cut, and nobody would expect them. It is called with naming held, and at times when nobody waits.
func (s *Store) lower() error {
	known, _ := s.space.named()
	if known == s.bound || known >= unbounded {
		return nil
	}
	dirs, err := s.contentDirs()
	for _, dir := range dirs {
		err = errors.Join(err, s.syncDir(dir))
	}
	if err != nil {
		return err
	}
	return s.setBound(known)
}

// setBound writes the bound durably. It is called with naming held.
func (s *Store) setBound(bound int64) error {
	const draft = "bound" + draftSuffix
	f, err := s.root.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err == nil {
		_, err = fmt.Fprintln(f, bound)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err == nil {
		err = s.root.Rename(draft, "bound")
	}
	if err == nil {
		err = s.syncDir(".")
	}
	if err != nil {
		return fmt.Errorf("bound: %w", err)
	}
	s.bound = bound
	return nil
}
