package proxy

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// tcp returns the two ends of a connection.
func tcp(t *testing.T) (*conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	accepted, err := listener{l}.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		accepted.Close()
	})
	return accepted.(*conn), client
}

func TestConnSendsWhatItHeldBeforeWhatComesNext(t *testing.T) {
	c, client := tcp(t)
	write := func(s string, held int) {
		t.Helper()
		if n, err := c.Write([]byte(s)); n != len(s) || err != nil || len(c.held) != held {
			t.Fatalf("wrote %d of %q, %v; %d bytes wait, want %d", n, s, err, len(c.held), held)
		}
	}
	write("a", 0)
	c.hold()
	write("header,", 7)
	write("body", 0)
	write(";", 0)
	c.hold()
	write("header alone", 12)
	c.release()
	if len(c.held) != 0 {
		t.Errorf("%d bytes wait after the release", len(c.held))
	}
	c.hold()
	c.release()
	write(".", 0)
	c.Close()
	if got, err := io.ReadAll(client); string(got) != "aheader,body;header alone." || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestConnThatIsCutSaysSo(t *testing.T) {
	c, _ := tcp(t)
	c.hold()
	if _, err := c.Write([]byte("header")); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if n, err := c.Write([]byte("body")); n != 0 || err == nil {
		t.Errorf("wrote %d, %v", n, err)
	}
}

// spy is a body that looks at the connection when it is about to be written.
type spy struct {
	body  []byte
	about func()
}

func (s spy) WriteTo(w io.Writer) (int64, error) {
	s.about()
	n, err := w.Write(s.body)
	return int64(n), err
}

// Headers of answers whose body would not fit into one buffer with them wait for it, and nothing else ever waits.
func TestHeaderWaitsForItsBody(t *testing.T) {
	for _, size := range []int{0, 1, buffered - 1, buffered, 64 << 10, 8 << 20} {
		body := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
		var waits, late int // bytes, before the body and after the answer
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c := &call{ResponseWriter: w, request: r}
			c.set("Content-Length", fmt.Sprint(size))
			c.send(spy{body, func() { waits = len(connOf(r).held) }}, int64(size))
			late = len(connOf(r).held)
			if c.written != int64(size) || c.status != http.StatusOK {
				t.Errorf("%d bytes: %d of them, status %d", size, c.written, c.status)
			}
		}))
		s.Listener = Listener(s.Config, s.Listener)
		s.Start()
		for range 2 { // by the same connection
			res, err := s.Client().Get(s.URL)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || !bytes.Equal(got, body) {
				t.Errorf("%d bytes: got %d, %v", size, len(got), err)
			}
		}
		s.Close() // waits for the handlers
		if (waits > 0) != (size >= buffered) || late > 0 {
			t.Errorf("%d bytes: %d bytes of header waited, and %d after the answer", size, waits, late)
		}
	}
}

// A handler that fails between header and body leaves the client with no answer that could be taken for whole.
func TestHeaderDoesNotOutlastAPanic(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &call{ResponseWriter: w, request: r}
		c.set("Content-Length", fmt.Sprint(buffered))
		c.send(spy{nil, func() { panic(http.ErrAbortHandler) }}, buffered)
	}))
	s.Listener = Listener(s.Config, s.Listener)
	s.Start()
	defer s.Close()
	res, err := s.Client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got, err := io.ReadAll(res.Body); len(got) > 0 || err == nil {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

// A file goes to the socket inside the kernel.
var _ io.ReaderFrom = (*conn)(nil)
