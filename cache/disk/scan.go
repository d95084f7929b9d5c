package disk

import (
	"io/fs"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
)

// Entry is a blob that Scan found.
type Entry struct {
	Digest digest.Digest
	Size   int64
	Kept   time.Time // when its content last changed: when it was kept
}

// Scan finds what is kept and counts it as used; it is called once, before anything else is. Names that are not digests
// are somebody else's and left alone.
func (s *Store) Scan() ([]Entry, error) {
	var found []Entry
	var used int64
	err := fs.WalkDir(s.root.FS(), "blobs", func(name string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		parts := strings.Split(name, "/")
		if len(parts) != 4 {
			return nil
		}
		d := digest.NewDigestFromEncoded(digest.Algorithm(parts[1]), parts[3])
		if d.Validate() != nil || blobPath(d) != name {
			return nil
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		used += blocks(info.Size())
		found = append(found, Entry{Digest: d, Size: info.Size(), Kept: info.ModTime()})
		return nil
	})
	s.mu.Lock()
	s.kept += used
	s.mu.Unlock()
	return found, err
}
