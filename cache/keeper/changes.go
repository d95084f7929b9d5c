package keeper

import (
	"sync"

	"github.com/opencontainers/go-digest"
)

// changes are which content came and went since they were last taken, for who keeps a list of it: with such a list one can tell after
// a restart that a file was lost. The zero value is none.
type changes struct {
	mu sync.Mutex
	// guards following
	kept map[digest.Digest]bool
}

// maxChanges is how many changes wait to be taken. What is beyond is not listed, and not missed when its file is lost.
const maxChanges = 100_000

func (c *changes) note(d digest.Digest, kept bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept == nil {
		c.kept = make(map[digest.Digest]bool)
	}
	if _, ok := c.kept[d]; ok || len(c.kept) < maxChanges {
		c.kept[d] = kept
	}
}

// TakeChanges returns which content came (true) and went (false) since it was last called.
func (k *Keeper) TakeChanges() map[digest.Digest]bool {
	k.changes.mu.Lock()
	defer k.changes.mu.Unlock()
	changed := k.changes.kept
	k.changes.kept = nil
	return changed
}

// went reports whether content went since the changes were last taken.
func (c *changes) went(d digest.Digest) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept, ok := c.kept[d]
	return ok && !kept
}
