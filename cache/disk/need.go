package disk

import (
	"context"
	"errors"
	"slices"
)

// Probe writes a small file, durably, and removes it: whether anything can be written at all.
func (s *Store) Probe() error {
	const name = "partial/probe"
	f, err := s.createFile(name, 0)
	if err != nil {
		return err
	}
	_, err = f.Write([]byte("probe\n"))
	return errors.Join(err, f.Sync(), f.Close(), s.root.Remove(name))
}

// sample is how much content Prune looks at before it removes any, at least, if there is so much.
const sample = 4096

// errRoomy ends a walk.
var errRoomy = errors.New("there is room")

// Prune makes room for the index to be opened with, on a file system that is full, before the census: it removes what is
// parked, and then content, of each sample what was used least recently first, until Roomy, or until nothing is left.
func (s *Store) Prune(ctx context.Context) {
	for !s.Roomy() && s.DropOldestParked() {
	}
	if s.Roomy() {
		return
	}
	var entries []Entry
	_ = s.Walk(ctx, func(dir []Entry) error {
		if entries = append(entries, dir...); len(entries) < sample {
			return nil
		}
		if s.prune(entries) {
			return errRoomy
		}
		entries = entries[:0]
		return nil
	})
	s.prune(entries)
}

// prune removes content until there is room.
func (s *Store) prune(entries []Entry) (roomy bool) {
	slices.SortFunc(entries, func(a, b Entry) int { return a.Used.Compare(b.Used) })
	for _, e := range entries {
		if s.Roomy() {
			return true
		}
		if size, ok := s.Meet(e.Digest); ok {
			_ = s.Remove(e.Digest, size)
		}
	}
	return s.Roomy()
}
