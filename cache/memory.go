package cache

import (
	"bytes"
	"container/list"
	"context"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/cache/disk"
	"github.com/entrepot/entrepot/cache/keeper"
)

const (
	// maxSmallBlob is the size in bytes up to which a blob is served from memory: configs, and the layers that hold a file
	// or two. What is larger goes from its file to the socket inside the kernel, which copying costs more than.
	maxSmallBlob = 64 << 10

	// maxInMemory is how large a manifest may be that stays in memory, in bytes. Those of real images have 1 to 30 KiB.
	maxInMemory = 1 << 20

	// memoryLimit is how many bytes are held in all: the manifests and configs of several hundred images.
	memoryLimit = 16 << 20

	// entryCost is charged for what is held beside the bytes, so that many tiny ones are bounded too.
	entryCost = 512
)

// small is small content in memory: verified, and never changed. Who serves it shares its bytes.
type small struct {
	digest digest.Digest
	body   []byte

	// mediaType is what the body was read as, and names what it names as that; both are empty when nobody asked for it as
	// a manifest.
	mediaType string
	names     document
}

// cost is what the content is charged: a descriptor read takes about as much as the JSON that it was read from.
func (s *small) cost() int64 { return int64(len(s.body)+len(s.mediaType)) + s.names.cost() + entryCost }

func nothing() error { return nil }

// blob is the content as a blob.
func (s *small) blob() *Blob {
	return &Blob{Content: bytes.NewReader(s.body), Size: int64(len(s.body)), Verdict: Verdict{Outcome: Hit}, close: nothing}
}

// memory holds small content that was used lately, in place of its file: what is found here is not opened, read, hashed
// and parsed again. The zero value is empty.
type memory struct {
	mu sync.Mutex
	// guards following
	at    map[digest.Digest]*list.Element
	order list.List // of *small, the most recently used in front
	held  int64     // the sum of their costs

	// drafts are what is being written to disk: they are found too, and stay until they are written. There are at most
	// maxDrafts.
	drafts map[digest.Digest]draft
}

// draft is content that is being written, and what is closed when nobody writes it any more.
type draft struct {
	*small
	written chan struct{}
}

// maxDrafts is how many manifests are written behind the backs of those who asked for them: those of a few dozen pulls
// that begin at once. While there are as many, who asks for a further one waits until that is written.
const maxDrafts = 32

// find returns content that is in memory.
func (m *memory) find(d digest.Digest) (*small, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.at[d]
	if !ok {
		is, ok := m.drafts[d]
		return is.small, ok
	}
	m.order.MoveToFront(e)
	return e.Value.(*small), true
}

// draft takes in what is going to be written, until written is called with it; ok is false if there are too many.
func (m *memory) draft(s *small) (ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.drafts) >= maxDrafts {
		return false
	}
	if m.drafts == nil {
		m.drafts = make(map[digest.Digest]draft)
	}
	is, ok := m.drafts[s.digest]
	if !ok {
		is.written = make(chan struct{})
	}
	m.drafts[s.digest] = draft{s, is.written}
	return true
}

// written says that a draft is on disk, or can't be kept. Of several of one digest the last stays.
func (m *memory) written(s *small) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if is := m.drafts[s.digest]; is.small == s {
		close(is.written)
		delete(m.drafts, s.digest)
	}
}

// awaitWritten returns when the content is no draft, or with the error that ended ctx.
func (m *memory) awaitWritten(ctx context.Context, d digest.Digest) error {
	m.mu.Lock()
	is, ok := m.drafts[d]
	m.mu.Unlock()
	if !ok {
		return nil
	}
	select {
	case <-is.written:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (m *memory) draftsNow() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.drafts)
}

// isDraft reports whether the content is being written.
func (m *memory) isDraft(d digest.Digest) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.drafts[d]
	return ok
}

// hold takes content in, in place of what is held under its digest. What was used least recently makes room for it.
func (m *memory) hold(s *small) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.at == nil {
		m.at = make(map[digest.Digest]*list.Element)
	}
	m.removeLocked(m.at[s.digest])
	m.at[s.digest] = m.order.PushFront(s)
	m.held += s.cost()
	for m.held > memoryLimit {
		m.removeLocked(m.order.Back())
	}
}

// drop forgets content, if it is held.
func (m *memory) drop(d digest.Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.removeLocked(m.at[d])
}

func (m *memory) removeLocked(e *list.Element) {
	if e == nil {
		return
	}
	s := m.order.Remove(e).(*small)
	delete(m.at, s.digest)
	m.held -= s.cost()
}

// smallContent returns kept content of at most limit bytes: from memory, or else from its file, verified; ok is false if
// there is no such content, or none that is intact. Damaged content is removed, and so fetched again.
//
// What is in memory is served without a look at its file. If that was deleted or damaged behind our back, the bytes served
// are right all the same, and the loss heals once they have left memory.
func (c *Cache) smallContent(ctx context.Context, d digest.Digest, limit int64) (s *small, ok bool) {
	if s, ok = c.remembered(d); ok {
		return s, true
	}
	f, ok := c.keeper.Blob(ctx, d)
	if !ok {
		return nil, false
	}
	defer f.Close()
	if f.Size > limit {
		return nil, false
	}
	return c.readSmall(d, f)
}

// remembered returns content that is in memory; its use counts as one of what is on disk.
func (c *Cache) remembered(d digest.Digest) (s *small, ok bool) {
	if s, ok = c.memory.find(d); ok {
		c.keeper.Used(d)
	}
	return s, ok
}

// readSmall reads the content of a file from its start, verifies it, and holds it in memory.
func (c *Cache) readSmall(d digest.Digest, f *disk.Content) (s *small, ok bool) {
	body := make([]byte, f.Size)
	if _, err := io.ReadFull(f, body); err != nil {
		c.keeper.Unreadable(d, f, err)
		return nil, false
	}
	if d.Algorithm().FromBytes(body) != d {
		c.keeper.Drop(d, f, keeper.DamagedContent)
		return nil, false
	}
	s = &small{digest: d, body: body}
	c.remember(s)
	return s, true
}

// keep has verified content written to disk, behind the back of who asked for it: a file that is to outlive a power cut takes as
// long as the disk does. Until it is there, memory has it. The result says whether it is kept, or is going to be.
//
// What is too large for memory is too large for a draft, so that drafts have maxDrafts times maxInMemory bytes at most. The
// caller is one whom Close waits for: a cache that is being closed takes what such a one has got, but starts nothing for it.
func (c *Cache) keep(s *small) (kept bool) {
	release, err := c.hold()
	if err != nil {
		return c.write(s)
	}
	if len(s.body) > maxInMemory || !c.keeper.Fits(int64(len(s.body))) || !c.memory.draft(s) {
		defer release()
		return c.write(s)
	}
	go func() {
		defer release()
		defer c.memory.written(s)
		c.write(s)
	}()
	return true
}

// write puts verified content on disk, and holds it in memory.
func (c *Cache) write(s *small) (kept bool) {
	if !c.put(s.digest, s.body) {
		return false
	}
	c.remember(s)
	return true
}

// here reports whether content is on disk, or in memory on its way there.
func (c *Cache) here(d digest.Digest) bool { return c.memory.isDraft(d) || c.keeper.Has(d) }

// remember holds content in memory as long as it is kept on disk.
//
// Who removes content makes the keeper forget it first and drops it from memory after that. If that is before the look at
// what the keeper knows here, it is dropped here; if it is after, the dropping there comes after the holding here. Either way it does not
// stay. Content that the keeper does not know (yet) is not held.
func (c *Cache) remember(s *small) {
	if len(s.body) > maxInMemory {
		return
	}
	c.memory.hold(s)
	if !c.keeper.Knows(s.digest) {
		c.memory.drop(s.digest)
	}
}

// read returns s read as a manifest of that type. One that can't be read names nothing.
func (c *Cache) read(s *small, mediaType string) *small {
	if s.mediaType == mediaType {
		return s
	}
	names, _ := parseDocument(mediaType, s.body)
	as := &small{digest: s.digest, body: s.body, mediaType: mediaType, names: names}
	c.remember(as)
	return as
}
