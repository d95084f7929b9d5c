package proxy

import (
	"io"
	"net/http"
	"net/netip"

	"github.com/entrepot/entrepot/upstream/bandwidth"
)

// maxUnmetered is the size in bytes of the largest blob that does not wait for bandwidth, as upstream: clients ask for
// configurations before all else.
const maxUnmetered = 64 << 10

// meter has the body of a blob wait for its client's bandwidth, piece by piece. The call is settled when it has ended.
func (p *Proxy) meter(c *call, size int64) {
	if p.egress != nil && size > maxUnmetered {
		c.client = p.clientOf(c)
	}
}

// settle ends the metering of a call. A body that did not wait, whatever it was of, is paid for by those that do.
func (p *Proxy) settle(c *call) {
	if c.client == nil && p.egress != nil && c.written > 0 && p.egress.Limited() {
		c.client = p.clientOf(c)
		c.client.Spend(int(c.written))
	}
	if c.client != nil {
		c.client.Leave()
	}
}

// clientOf returns the client of a call by its address. All whose address can't be told are one.
func (p *Proxy) clientOf(c *call) *bandwidth.Client {
	from, _ := netip.ParseAddrPort(c.request.RemoteAddr)
	return p.egress.Join(from.Addr().Unmap())
}

// Write sends bytes of the body, at the client's pace if the body is metered.
func (c *call) Write(b []byte) (n int, err error) {
	if c.client == nil {
		return c.write(b)
	}
	for n < len(b) && err == nil {
		var portion, sent int
		if portion, err = c.take(int64(len(b) - n)); err == nil {
			sent, err = c.write(b[n : n+portion])
			n += sent
		}
	}
	return n, err
}

// ReadFrom sends the body, or what is next of it. If src is a file, or a part of one, it goes to the socket inside the kernel,
// in pieces, so that a limit that is set meanwhile holds for what is left of it. What is paid beforehand is one piece: a client
// that takes nothing has that, and nothing that others wait for.
func (c *call) ReadFrom(src io.Reader) (n int64, err error) {
	if c.client == nil {
		return c.pass(src)
	}
	part, ok := src.(*io.LimitedReader)
	if !ok {
		return io.Copy(struct{ io.Writer }{c}, src)
	}
	piece := &io.LimitedReader{R: part.R}
	for part.N > 0 {
		portion, err := c.take(part.N)
		if err != nil {
			return n, err
		}
		piece.N = int64(portion)
		sent, err := c.pass(piece)
		part.N -= sent
		if n += sent; err != nil || sent < int64(portion) {
			return n, err
		}
	}
	return n, nil
}

// take takes what is best sent at a time from the lines to the client, at most so many bytes, and returns how many. The header
// does not wait for that.
func (c *call) take(most int64) (int, error) {
	if c.written == 0 && c.client.Limited() {
		_ = http.NewResponseController(c.ResponseWriter).Flush() // a writer that can't sends it with the body
	}
	n := int(min(most, int64(c.client.Portion())))
	return n, c.client.Take(c.request.Context(), n)
}

// write sends bytes, and takes down how many.
func (c *call) write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.wrote(int64(n))
	return n, err
}

// pass sends all of src in the way of the writer below, and takes down how much that was.
func (c *call) pass(src io.Reader) (int64, error) {
	to, ok := c.ResponseWriter.(io.ReaderFrom)
	if !ok {
		return io.Copy(plainWriter{c}, src)
	}
	n, err := to.ReadFrom(src)
	c.wrote(n)
	return n, err
}

// plainWriter writes what has been paid for.
type plainWriter struct{ c *call }

func (w plainWriter) Write(b []byte) (int, error) { return w.c.write(b) }
