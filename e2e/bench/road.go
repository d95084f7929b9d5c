package main

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"golang.org/x/time/rate"
)

// road is the way to the registry. It passes bytes on and knows nothing of HTTP, so that next to nothing of the machine
// goes into it: on Linux they don't even leave the kernel. What comes back is counted, and can be capped.
type road struct {
	to       string
	listener net.Listener
	ctx      context.Context
	cancel   context.CancelFunc
	accepted sync.WaitGroup

	// perConnection is in bytes a second, 0 for no cap.
	perConnection      atomic.Int64
	bytes, connections atomic.Int64
}

// step is what passes at a time. When capped it is a few milliseconds' worth: the stream is even.
const step = 64 << 10

// openRoad opens a road to an address.
func openRoad(to string) (*road, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &road{to: to, listener: l}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.accepted.Go(r.serve)
	return r, nil
}

func (r *road) address() string { return r.listener.Addr().String() }

// close cuts all connections and returns when they are gone.
func (r *road) close() error {
	err := r.listener.Close()
	r.cancel()
	r.accepted.Wait()
	return err
}

// serve returns when the listener is closed.
func (r *road) serve() {
	for {
		client, err := r.listener.Accept()
		if err != nil {
			return
		}
		r.connections.Add(1)
		r.accepted.Go(func() { r.connect(client) })
	}
}

// connect joins client to the registry until one of them, or the road, ends the connection.
func (r *road) connect(client net.Conn) {
	defer client.Close()
	registry, err := new(net.Dialer).DialContext(r.ctx, "tcp", r.to)
	if err != nil {
		return // the client sees its connection end
	}
	defer registry.Close()
	ctx, cancel := context.WithCancel(r.ctx)
	defer cancel()
	// Whoever ends first ends both: neither side of HTTP/1.1 goes on when the other has closed.
	defer context.AfterFunc(ctx, func() { client.Close(); registry.Close() })()
	var requests sync.WaitGroup
	defer requests.Wait()
	defer cancel()
	requests.Go(func() {
		defer cancel()
		io.Copy(registry, client) // an error is the connection's end
	})
	r.answers(ctx, client, registry)
}

// answers passes on what comes back.
func (r *road) answers(ctx context.Context, client io.Writer, registry io.Reader) {
	limit := rate.NewLimiter(rate.Inf, 4*step) // a burst that makes up for a timer that was late
	if n := r.perConnection.Load(); n > 0 {
		limit.SetLimit(rate.Limit(n))
	}
	for limit.WaitN(ctx, step) == nil {
		n, err := io.CopyN(client, registry, step)
		r.bytes.Add(n)
		if err != nil {
			return
		}
	}
}

// crossed is what has come back by a road, and over how many connections.
type crossed struct {
	bytes, connections int64
}

func (r *road) crossed() crossed { return crossed{r.bytes.Load(), r.connections.Load()} }
