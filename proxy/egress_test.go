package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/upstream/bandwidth"
)

// socketWriter takes bodies as net/http's writer above a TCP connection does, and notes what it is given and when.
type socketWriter struct {
	*httptest.ResponseRecorder
	from   []io.Reader // what it was to read from
	pieces []int64
	at     []time.Time
	taking func() // is called for each piece
}

func (w *socketWriter) ReadFrom(src io.Reader) (int64, error) {
	part, ok := src.(*io.LimitedReader)
	if !ok {
		return 0, errors.New("a body without an end")
	}
	w.from, w.pieces, w.at = append(w.from, part.R), append(w.pieces, part.N), append(w.at, time.Now())
	if w.taking != nil {
		w.taking()
	}
	return io.Copy(w.Body, src)
}

// metered is a call whose body waits for bandwidth.
func metered(t *testing.T, egress *bandwidth.Clients, w http.ResponseWriter) *call {
	c := &call{ResponseWriter: w, request: httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)}
	p := &Proxy{egress: egress}
	p.meter(c, 1<<40)
	t.Cleanup(func() { p.settle(c) })
	return c
}

// file is a file with that content.
func file(t *testing.T, content []byte) *os.File {
	name := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestUnlimitedFilesGoToTheSocketAsFilesPieceByPiece(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), 10<<16) // 10 MiB
	f := file(t, content)
	w := &socketWriter{ResponseRecorder: httptest.NewRecorder()}
	egress := bandwidth.NewClients(0, 0)
	c := metered(t, egress, w)
	if n, err := io.CopyN(c, f, int64(len(content))); n != int64(len(content)) || err != nil || c.written != n {
		t.Fatalf("%d bytes, %v; %d counted", n, err, c.written)
	}
	if !bytes.Equal(w.Body.Bytes(), content) {
		t.Error("other bytes")
	}
	for i, from := range w.from {
		if from != io.Reader(f) || w.pieces[i] > 4<<20 {
			t.Errorf("piece %d of %d bytes from a %T", i, w.pieces[i], from)
		}
	}
	if len(w.pieces) > 10 {
		t.Errorf("%d pieces", len(w.pieces))
	}
}

func TestLimitIsObeyedByBodiesUnderWay(t *testing.T) {
	content := make([]byte, 10<<20)
	for name, send := range map[string]func(*call) (int64, error){
		"file":   func(c *call) (int64, error) { return io.CopyN(c, bytes.NewReader(content), int64(len(content))) },
		"writes": func(c *call) (int64, error) { n, err := c.Write(content); return int64(n), err },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const rate = 1_000_000
				egress := bandwidth.NewClients(0, 0)
				w := &socketWriter{ResponseRecorder: httptest.NewRecorder()}
				c := metered(t, egress, writerOf(w, name))
				first := true
				w.taking = func() {
					if first {
						egress.Total().SetRate(rate)
					}
					first = false
				}
				if name == "writes" {
					egress.Total().SetRate(rate)
				}
				start := time.Now()
				n, err := send(c)
				if n != int64(len(content)) || err != nil || c.written != n || w.Body.Len() != len(content) {
					t.Fatalf("%d bytes, %v; %d counted", n, err, c.written)
				}
				took := time.Since(start).Seconds()
				if took < float64(len(content)-4<<20)/rate || took > float64(len(content))/rate {
					t.Errorf("it took %v s", took)
				}
				for i, n := range w.pieces {
					if i > 0 && n > 64<<10 {
						t.Errorf("piece %d has %d bytes", i, n)
					}
					// What goes has been paid for: at no time has more gone than the rate allows and the burst.
					if sum := total(w.pieces[1:max(1, i+1)]); float64(sum) > rate*(w.at[i].Sub(start).Seconds()+0.1)+1 {
						t.Errorf("%d bytes have gone after %v", sum, w.at[i].Sub(start))
					}
				}
			})
		})
	}
}

// writerOf is w, or what of it writes alone.
func writerOf(w *socketWriter, name string) http.ResponseWriter {
	if name == "writes" {
		return w.ResponseRecorder
	}
	return w
}

func total(all []int64) (sum int64) {
	for _, n := range all {
		sum += n
	}
	return sum
}

func TestHeaderDoesNotWaitForBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		egress := bandwidth.NewClients(4<<10, 0)
		w := &socketWriter{ResponseRecorder: httptest.NewRecorder()}
		c := metered(t, egress, w)
		if err := egress.Total().Take(t.Context(), "another", 4<<10); err != nil { // the burst
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		c.request = c.request.WithContext(ctx)
		why := errors.New("the client left")
		var wg sync.WaitGroup
		wg.Go(func() {
			if n, err := io.CopyN(c, bytes.NewReader(make([]byte, 1<<20)), 1<<20); n != 0 || !errors.Is(err, why) {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
		synctest.Wait()
		if !w.Flushed {
			t.Error("the header waits")
		}
		cancel(why)
		wg.Wait()
	})
}

// What does not wait is paid for by what does; and a client is its address, whatever its port and its way of writing it.
func TestSmallBodiesArePaidForByTheirClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		egress := bandwidth.NewClients(0, 100_000)
		p := &Proxy{egress: egress}
		answer := func(from string) {
			c := &call{ResponseWriter: httptest.NewRecorder(), request: httptest.NewRequest("GET", "/", nil)}
			c.request.RemoteAddr = from
			start := time.Now()
			p.meter(c, maxUnmetered)
			if n, err := c.Write(make([]byte, maxUnmetered)); n != maxUnmetered || err != nil || time.Since(start) > 0 {
				t.Errorf("%d, %v after %v", n, err, time.Since(start))
			}
			p.settle(c)
		}
		answer("192.0.2.1:1000")
		answer("[::ffff:192.0.2.1]:2000")
		answer("[2001:db8::1]:1000")
		for from, want := range map[string]time.Duration{
			"192.0.2.1": 200 * time.Millisecond, "2001:db8::1": 200 * time.Millisecond, "192.0.2.2": 100 * time.Millisecond,
		} {
			client := egress.Join(netip.MustParseAddr(from))
			start := time.Now()
			for range 2 { // the first of them is the burst
				if err := client.Take(t.Context(), 10_000); err != nil {
					t.Error(err)
				}
			}
			client.Leave()
			if took := time.Since(start).Round(time.Millisecond); took != want {
				t.Errorf("%s waited %v, want %v", from, took, want)
			}
		}
	})
}
