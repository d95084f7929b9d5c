package cache

import "sync"

// entrusted are the registries that were ever asked with more than nobody in particular has: credentials, or what clients have
// presented. What came of that may be private, and is still here when the credentials have been taken away.
//
// The index has them too, and loses them only with the memberships: then upstream is asked again what belongs where, by who may
// be shown it then.
type entrusted struct {
	mu sync.Mutex
	// guards following
	known map[string]bool // whether it is recorded
	never map[string]bool // what the index says no of, which stays so
}

func newEntrusted() *entrusted {
	return &entrusted{known: make(map[string]bool), never: make(map[string]bool)}
}

// Entrust takes down that a registry is asked with more than nobody in particular has. It comes before that is done.
func (c *Cache) Entrust(registry string) {
	c.entrusted.mu.Lock()
	defer c.entrusted.mu.Unlock()
	if !c.entrusted.known[registry] {
		c.entrustLocked(registry)
	}
}

func (c *Cache) entrustLocked(registry string) {
	temporary := c.index.Temporary() // what that one knows may be lost when the real one is opened
	err := c.index.SetEntrusted(registry)
	c.logged(err)
	c.entrusted.known[registry] = err == nil && !temporary
}

// Entrusted reports whether a registry was ever asked so, as far as the content goes that is here: then not all of it is for everybody.
func (c *Cache) Entrusted(registry string) bool {
	c.entrusted.mu.Lock()
	defer c.entrusted.mu.Unlock()
	if _, ok := c.entrusted.known[registry]; ok || c.entrusted.never[registry] {
		return ok
	}
	temporary := c.index.Temporary() // that one may know it which is not open
	if c.index.Entrusted(registry) {
		return true
	}
	if !temporary {
		c.entrusted.never[registry] = true
	}
	return false
}

// recordEntrusted records what could not be recorded before.
func (c *Cache) recordEntrusted() {
	if c.index.Temporary() {
		return
	}
	c.entrusted.mu.Lock()
	defer c.entrusted.mu.Unlock()
	for registry, recorded := range c.entrusted.known {
		if !recorded {
			c.entrustLocked(registry)
		}
	}
}
