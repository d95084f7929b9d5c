package cache

import (
	"time"

	"github.com/entrepot/entrepot/cache/keeper"
)

// Damage is what became of something that was kept.
type Damage = keeper.Damage

// The kinds of damage.
const (
	DamagedContent    = keeper.DamagedContent
	DamagedMissing    = keeper.DamagedMissing
	DamagedUnreadable = keeper.DamagedUnreadable
	DamagedIndex      = keeper.DamagedIndex
	DamagedLeftover   = keeper.DamagedLeftover
)

// Damages are all of them.
var Damages = keeper.Damages

// Stats are momentary figures, and what adds up since the cache was opened. Their JSON is what the admin API answers.
type Stats struct {
	Bytes   int64 `json:"bytes"`        // that count against the limit: content, kept and reserved, what is beside it, and the index
	Limit   int64 `json:"limit_bytes"`  // of that at most; 0: as much as there is
	Free    int64 `json:"free_bytes"`   // on the file system of the content
	Content int   `json:"blobs"`        // kept, manifests among them
	Pinned  int   `json:"pinned"`       // of that, what stays when other content goes
	Parked  int64 `json:"parked_bytes"` // of Bytes, what of unfinished content waits for somebody to ask for it
	Index   int64 `json:"index_bytes"`  // that the index takes

	Fills   int `json:"fills"`                   // transfers from upstream in flight
	Readers int `json:"readers"`                 // clients that follow them
	Drafts  int `json:"manifests_being_written"` // manifests that are being written to disk

	Evicted       uint64    `json:"evicted"` // content that made room
	EvictedBytes  uint64    `json:"evicted_bytes"`
	Scrubbed      uint64    `json:"scrubbed"` // content that was read again
	ScrubbedBytes uint64    `json:"scrubbed_bytes"`
	Damaged       uint64    `json:"damaged"`                      // content that turned out to be damaged, and was dropped
	Oldest        time.Time `json:"oldest_verification,omitzero"` // of all that is kept; zero: not known yet

	Degraded []string `json:"degraded,omitempty"` // why the disk is not used as it might be; empty: it is
}

// Stats returns the figures of this moment.
func (c *Cache) Stats() Stats {
	f, k := c.fills.Stats(), c.keeper.Stats()
	transfers, readers := c.relays.Stats()
	s := Stats{
		Bytes: k.Total, Limit: c.opts.MaxSize, Free: k.Free, Content: k.Content, Pinned: k.Pinned, Parked: k.Parked, Index: c.index.Stats().Bytes,
		Fills: f.Flights + transfers, Readers: f.Readers + readers, Drafts: c.memory.draftsNow(),
		Evicted: k.Evicted, EvictedBytes: k.EvictedBytes, Scrubbed: k.Scrubbed, ScrubbedBytes: k.ScrubbedBytes,
		Damaged: k.Damaged, Oldest: k.Oldest,
	}
	if k.Trouble != "" {
		s.Degraded = append(s.Degraded, k.Trouble)
	}
	if c.index.Temporary() {
		s.Degraded = append(s.Degraded, "the index can't be written, and is in memory only")
	}
	return s
}
