package cache

import (
	"context"
	"io/fs"
	"path/filepath"
	"syscall"
	"time"

	"github.com/entrepot/entrepot/cache/disk"
)

// surveyPatience is how long a Survey waits for a process that has the directory open: that one works there is worth knowing too.
const surveyPatience = time.Second

// Survey returns the figures of a data directory that no process has open, as far as its files tell, and changes nothing. indexDir
// is the directory of the index, "" for index in dataDir. The error is ErrLocked if a process has the directory open.
func Survey(ctx context.Context, dataDir, indexDir string) (s Stats, err error) {
	opening, cancel := context.WithTimeout(ctx, surveyPatience)
	defer cancel()
	store, err := disk.Open(opening, disk.Options{Dir: dataDir, Look: true})
	if err != nil {
		return s, err
	}
	defer store.Close()
	oldest, all := time.Now(), true
	err = store.Walk(ctx, func(dir []disk.Entry) error {
		s.Content += len(dir)
		for _, e := range dir {
			if all = all && !e.Verified.IsZero(); all && e.Verified.Before(oldest) {
				oldest = e.Verified
			}
		}
		return nil
	})
	if err != nil {
		return s, err
	}
	if all && s.Content > 0 {
		s.Oldest = oldest
	}
	if indexDir == "" {
		indexDir = store.Dir("index")
	}
	s.Bytes, s.Index, s.Parked = occupied(dataDir), occupied(indexDir), store.ParkedBytes()
	s.Free, err = store.Free()
	return s, err
}

// occupied is how many bytes of disk a directory takes, with all that is in it. What can't be read takes none.
func occupied(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if info, err := e.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				sum += st.Blocks * 512
			}
		}
		return nil
	})
	return sum
}
