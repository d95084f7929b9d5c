package proxy

import (
	"context"
	"net"
	"net/http"
)

// Listener returns l as s is to serve it: by connections that take the header of an answer and its body in one send. By
// others all is answered alike, in more sends. It sets s.ConnContext.
func Listener(s *http.Server, l net.Listener) net.Listener {
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	return listener{l}
}

type listener struct{ net.Listener }

func (l listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if tcp, ok := accepted.(*net.TCPConn); ok {
		return &conn{TCPConn: tcp}, err
	}
	return accepted, err
}

// connKey finds a request's connection in its context.
type connKey struct{}

// connOf returns the connection of a request, or nil if it is another's.
func connOf(r *http.Request) *conn {
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}

// conn is a connection to a client that can hold a header back until the body comes. net/http sends what does not fit into
// its buffer of 4 KiB in two parts, and each send is a system call that wakes the client.
//
// It needs no mutex: hold, Write and release are called by the goroutine that serves the connection, the only one that
// net/http writes from. A file goes past all of this, by the TCP connection's own ReadFrom: nothing waits then, for who
// holds also releases.
type conn struct {
	*net.TCPConn

	holding bool        // the next Write is to wait
	held    []byte      // what waits, to go before all that is written later
	parts   [2][]byte   // of one send: here, so that it takes no allocation
	rest    net.Buffers // the parts that are still to be sent
}

// hold has what is written next wait for what is written after it.
func (c *conn) hold() { c.holding = true }

// release ends a hold, and sends what still waits. Who calls hold defers it, and does nothing in between that could take its
// time: so no byte is late, and none is left behind if there is a panic.
func (c *conn) release() {
	c.holding = false
	if len(c.held) > 0 {
		_, _ = c.Write(nil) // if it fails, so will what net/http does next
	}
}

func (c *conn) Write(p []byte) (int, error) {
	if c.holding {
		c.holding = false
		c.held = append(c.held, p...) // a copy: net/http uses its buffer again
		return len(p), nil
	}
	if len(c.held) == 0 {
		return c.TCPConn.Write(p)
	}
	before := int64(len(c.held))
	c.parts = [2][]byte{c.held, p}
	c.rest = c.parts[:]
	n, err := c.rest.WriteTo(c.TCPConn)
	c.parts, c.held = [2][]byte{}, c.held[:0]
	return int(max(0, n-before)), err
}
