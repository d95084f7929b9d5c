// Package load is the benchmark's HTTP client: one connection, kept open, one request at a time, and little more than the
// system calls. On a machine that client and server share, what a client costs blurs what the server does.
//
// It understands what the systems answer and refuses the rest: a status, headers, and a body of stated length.
package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// headerSize is more than any system's headers take.
	headerSize = 16 << 10
	// bufferSize is what is read of a body at a time: how often the client reads is not what is measured.
	bufferSize = 256 << 10
)

// Conn is a connection to a server. Its methods are not for concurrent use. It is cut when its context ends.
type Conn struct {
	conn   net.Conn
	header *bufio.Reader
	buffer []byte
	free   func() bool
	rest   int64 // of the body that is being read
}

// Dial connects. A receive buffer of 0 is the system's own choice.
func Dial(ctx context.Context, address string, receiveBuffer int) (*Conn, error) {
	d := net.Dialer{}
	if receiveBuffer > 0 {
		d.Control = func(_, _ string, raw syscall.RawConn) (err error) {
			failed := raw.Control(func(fd uintptr) {
				err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, receiveBuffer)
			})
			return errors.Join(failed, err)
		}
	}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &Conn{
		conn:   conn,
		header: bufio.NewReaderSize(conn, headerSize),
		buffer: make([]byte, bufferSize),
		free:   context.AfterFunc(ctx, func() { conn.Close() }),
	}, nil
}

// Close hangs up.
func (c *Conn) Close() error {
	c.free()
	return c.conn.Close()
}

// Request is what is asked.
type Request struct {
	// Method is GET if empty.
	Method, Path string
	// Accept and Range are headers, left out if empty.
	Accept, Range string
}

// Compile writes a request out, to be asked many times.
func (r Request) Compile() []byte {
	method := r.Method
	if method == "" {
		method = "GET"
	}
	text := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: bench\r\nUser-Agent: bench\r\n", method, r.Path)
	if r.Accept != "" {
		text += "Accept: " + r.Accept + "\r\n"
	}
	if r.Range != "" {
		text += "Range: " + r.Range + "\r\n"
	}
	return []byte(text + "\r\n")
}

// Answer is what begins an answer.
type Answer struct {
	Status int
	// Length is that of the body, or what it would be for HEAD.
	Length int64
}

// Ask sends a compiled request and reads the answer's headers. The body, which HEAD has none of, is read next.
func (c *Conn) Ask(request []byte) (Answer, error) {
	if c.rest > 0 {
		return Answer{}, errors.New("the body before has not been read")
	}
	if _, err := c.conn.Write(request); err != nil {
		return Answer{}, err
	}
	a, err := c.head()
	if err != nil {
		return a, fmt.Errorf("%s: %w", firstLine(request), err)
	}
	if request[0] != 'H' {
		c.rest = a.Length
	}
	return a, nil
}

func firstLine(request []byte) string {
	line, _, _ := strings.Cut(string(request), " HTTP/")
	return line
}

// head reads status and headers.
func (c *Conn) head() (Answer, error) {
	a := Answer{Length: -1}
	line, err := c.header.ReadSlice('\n')
	if err != nil {
		return a, err
	}
	if len(line) < 13 || string(line[:9]) != "HTTP/1.1 " {
		return a, fmt.Errorf("not an answer: %q", line)
	}
	if a.Status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return a, fmt.Errorf("not an answer: %q", line)
	}
	for {
		line, err := c.header.ReadSlice('\n')
		if err != nil {
			return a, err
		}
		if len(line) <= 2 {
			break
		}
		const name = "content-length:"
		if len(line) > len(name) && line[0]|0x20 == 'c' && strings.EqualFold(string(line[:len(name)]), name) {
			if a.Length, err = strconv.ParseInt(strings.TrimSpace(string(line[len(name):])), 10, 64); err != nil {
				return a, err
			}
		}
	}
	if a.Length < 0 {
		return a, fmt.Errorf("status %d, and no Content-Length", a.Status)
	}
	return a, nil
}

// Body reads the next n bytes of the body, all that is left if n is negative, into w, which may be nil.
func (c *Conn) Body(w io.Writer, n int64) error {
	if n < 0 || n > c.rest {
		n = c.rest
	}
	for n > 0 {
		p := c.buffer[:min(int64(len(c.buffer)), n)]
		var read int
		var err error
		if c.header.Buffered() > 0 {
			read, err = c.header.Read(p)
		} else {
			read, err = c.conn.Read(p)
		}
		n -= int64(read)
		c.rest -= int64(read)
		if w != nil && read > 0 {
			if _, err := w.Write(p[:read]); err != nil {
				return err
			}
		}
		if err != nil && n > 0 {
			return fmt.Errorf("%d bytes before the end of the body: %w", c.rest, err)
		}
	}
	return nil
}

// Get asks for all of a path and reads the body into w. It returns how long it took until the first byte of the body was read.
func (c *Conn) Get(r Request, w io.Writer) (firstByte time.Duration, err error) {
	start := time.Now()
	a, err := c.Ask(r.Compile())
	if err != nil {
		return 0, err
	}
	if a.Status != 200 {
		return 0, fmt.Errorf("GET %s: status %d", r.Path, a.Status)
	}
	if err := c.Body(w, 1); err != nil {
		return 0, fmt.Errorf("GET %s: %w", r.Path, err)
	}
	firstByte = time.Since(start)
	if err := c.Body(w, -1); err != nil {
		return 0, fmt.Errorf("GET %s: %w", r.Path, err)
	}
	return firstByte, nil
}
