package keeper

import (
	"maps"
	"sync"

	"github.com/opencontainers/go-digest"
)

// changes are which content came and went and is not written down yet, for who keeps a list of it: with such a list one can tell after
// a restart that a file was lost. The zero value is none.
type changes struct {
	mu sync.Mutex
	// guards following
	kept  map[digest.Digest]bool // since they were last taken
	taken map[digest.Digest]bool // and are being written down; only read until that has ended
}

// maxChanges is how many changes wait to be written down. What is beyond is not listed, and not missed when its file is lost.
const maxChanges = 100_000

func (c *changes) note(d digest.Digest, kept bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept == nil {
		c.kept = make(map[digest.Digest]bool)
	}
	_, known := c.kept[d]
	_, written := c.taken[d] // which what is noted here corrects
	if known || written || len(c.kept)+len(c.taken) < maxChanges {
		c.kept[d] = kept
	}
}

// TakeChanges returns which content came (true) and went (false) since it was last called, to be written down. done is called once that
// has ended, before it is called again: what was not written is among the next changes, unless there is newer word of it. The map
// is only read, and not after done.
func (k *Keeper) TakeChanges() (changed map[digest.Digest]bool, done func(written bool)) {
	c := &k.changes
	c.mu.Lock()
	defer c.mu.Unlock()
	c.taken, c.kept = c.kept, nil
	return c.taken, c.done
}

func (c *changes) done(written bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !written && len(c.taken) > 0 {
		maps.Copy(c.taken, c.kept)
		c.kept = c.taken
	}
	c.taken = nil
}

// went reports whether content went, which is not written down yet.
func (c *changes) went(d digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, changed := range []map[digest.Digest]bool{c.kept, c.taken} {
		if kept, ok := changed[d]; ok {
			return !kept
		}
	}
	return false
}
