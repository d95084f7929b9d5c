package bandwidth

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Clients are the lines to clients: one for all of them, which their addresses share, and within it one for each address,
// all of the same rate. Its methods may be called from many goroutines.
type Clients struct {
	total *Line

	rate atomic.Int64 // of each client's line; 0: unlimited. Written under the mutex

	mu sync.Mutex
	// guards following
	known   map[netip.Addr]*Client
	sweepAt int           // how many there are when those that might as well be new are forgotten
	waited  time.Duration // in the lines that are forgotten
}

// Client is what is sent to one address.
type Client struct {
	of    *Clients
	own   *Line
	lines Lines // its own, then that of all
	flow  Flow

	users int // who is sending to it; guarded by the mutex of Clients
}

// NewClients returns the lines to clients, of so many bytes a second for all of them and for each; zero and less: unlimited.
func NewClients(total, each int64) *Clients {
	c := &Clients{total: NewLine(total), known: make(map[netip.Addr]*Client)}
	c.rate.Store(max(each, 0))
	return c
}

// Total is the line that all share.
func (c *Clients) Total() *Line { return c.total }

// SetRate changes the rate of each client's line; zero and less: unlimited. All obey it at once.
func (c *Clients) SetRate(bytesPerSecond int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rate.Store(max(bytesPerSecond, 0))
	for _, one := range c.known {
		one.own.SetRate(bytesPerSecond)
	}
}

// Limited reports whether there is any limit at all at the moment.
func (c *Clients) Limited() bool { return c.rate.Load() > 0 || c.total.Rate() > 0 }

// Stats returns the figures of all clients' own lines; the rate is that of each.
func (c *Clients) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := Stats{Rate: c.rate.Load(), Waited: c.waited}
	for _, one := range c.known {
		s := one.own.Stats()
		all.Waiting += s.Waiting
		all.Waited += s.Waited
	}
	return all
}

// Join returns the client of an address, for who is going to send to it. They leave it when they are done.
func (c *Clients) Join(address netip.Addr) *Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	one := c.known[address]
	if one == nil {
		if len(c.known) >= c.sweepAt {
			c.sweepLocked()
		}
		own := NewLine(c.rate.Load())
		one = &Client{of: c, own: own, lines: Lines{own, c.total}, flow: Flow(address.String())}
		c.known[address] = one
	}
	one.users++
	return one
}

// sweepLocked forgets whom nobody sends to and whose line is as good as new: a client that comes back at once, with one
// request after the other, finds what it has used up.
func (c *Clients) sweepLocked() {
	for address, one := range c.known {
		if one.users == 0 && one.own.idle() {
			c.waited += one.own.Stats().Waited
			delete(c.known, address)
		}
	}
	c.sweepAt = 2*len(c.known) + 64
}

// Leave ends what Join began.
func (c *Client) Leave() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.users--
}

// Limited reports whether there is a limit for the client at the moment.
func (c *Client) Limited() bool { return c.of.Limited() }

// Portion is how many bytes are best sent at a time.
func (c *Client) Portion() int { return c.lines.Portion() }

// Take takes n bytes that are about to be sent, and waits until the lines have them. It fails with the cause of ctx when that
// ends first: then nothing was taken.
func (c *Client) Take(ctx context.Context, n int) error { return c.lines.Take(ctx, c.flow, n) }

// Spend takes n bytes that are sent without waiting.
func (c *Client) Spend(n int) { c.lines.Spend(n) }
