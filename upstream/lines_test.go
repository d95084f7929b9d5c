package upstream

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/upstream/bandwidth"
)

// endless answers with a blob that has no end worth waiting for, in pieces of so many bytes.
func endless(piece int) http.HandlerFunc {
	return func(rw http.ResponseWriter, req *http.Request) {
		rw.Header().Set("Content-Type", "application/octet-stream")
		rw.Header().Set("Content-Length", fmt.Sprint(1<<40))
		zeros := make([]byte, piece)
		for req.Context().Err() == nil {
			if _, err := rw.Write(zeros); err != nil {
				return
			}
			http.NewResponseController(rw).Flush()
		}
	}
}

// blobOf names a blob; whatever has the same name is the same.
func blobOf(name string) digest.Digest { return digest.FromString(name) }

// reading reads blobs at once, each by so many connections, until ctx ends, and tells how much of each has come.
type reading struct {
	wg   sync.WaitGroup
	came sync.Map // by the blob's name, *atomic.Int64
}

func (rd *reading) of(name string) int64 {
	n, _ := rd.came.LoadOrStore(name, new(atomic.Int64))
	return n.(*atomic.Int64).Load()
}

func (rd *reading) read(ctx context.Context, r *Registry, name string, connections int) {
	n, _ := rd.came.LoadOrStore(name, new(atomic.Int64))
	for range connections {
		rd.wg.Go(func() {
			body, err := r.OpenBlob(ctx, wanted(blobOf(name), 0, -1))
			if err != nil {
				return
			}
			defer body.Close()
			for buf := make([]byte, 32<<10); err == nil; {
				var m int
				m, err = body.Read(buf)
				n.(*atomic.Int64).Add(int64(m))
			}
		})
	}
}

func within(got, want int64, percent int64) bool {
	return got*100 >= want*(100-percent) && got*100 <= want*(100+percent)
}

func TestBlobsShareTheLines(t *testing.T) {
	const rate = 1_000_000
	type fill struct {
		registry, name string
		connections    int
		want           int64 // bytes a second
	}
	for _, tt := range []struct {
		name  string
		fills []fill
	}{
		{"one has more connections", []fill{{"wide", "a", 1, rate / 2}, {"wide", "b", 6, rate / 2}}},
		{"one comes in small pieces", []fill{{"wide", "a", 1, rate / 2}, {"crumbs", "b", 1, rate / 2}}},
		{"a registry has a line of its own", []fill{{"wide", "a", 1, rate * 9 / 10}, {"narrow", "b", 2, rate / 20}, {"narrow", "c", 1, rate / 20}}},
		{"alone", []fill{{"wide", "a", 1, rate}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve("http://wide.test", endless(32<<10))
				w.serve("http://crumbs.test", endless(700))
				total := bandwidth.NewLine(rate)
				registries := map[string]*Registry{
					"wide":   w.registry(Options{Lines: []*bandwidth.Line{nil, total}}, "http://wide.test"),
					"crumbs": w.registry(Options{Lines: []*bandwidth.Line{nil, total}}, "http://crumbs.test"),
					"narrow": w.registry(Options{Lines: []*bandwidth.Line{bandwidth.NewLine(rate / 10), total}}, "http://wide.test"),
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				var rd reading
				for _, f := range tt.fills {
					rd.read(ctx, registries[f.registry], f.name, f.connections)
				}
				rd.wg.Wait()
				for _, f := range tt.fills {
					if got := rd.of(f.name); !within(got, 20*f.want, 10) {
						t.Errorf("%s from %s: %d bytes in 20 s, want %d a second", f.name, f.registry, got, f.want)
					}
				}
			})
		})
	}
}

func TestTotalIsKeptByManyBlobs(t *testing.T) {
	for _, fills := range []int{1, 8, 64} {
		synctest.Test(t, func(t *testing.T) {
			const rate = 2_000_000
			w := newWorld(t)
			w.serve("http://registry.test", endless(32<<10))
			r := w.registry(Options{Lines: []*bandwidth.Line{bandwidth.NewLine(rate)}}, "http://registry.test")
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			var rd reading
			for i := range fills {
				rd.read(ctx, r, fmt.Sprint(i), 1)
			}
			rd.wg.Wait()
			sum := int64(0)
			for i := range fills {
				sum += rd.of(fmt.Sprint(i))
			}
			if !within(sum, 20*rate, 5) {
				t.Errorf("%d fills: %d bytes in 20 s", fills, sum)
			}
		})
	}
}

func TestNewRateIsObeyedByTransfersUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://registry.test", endless(32<<10))
		line := bandwidth.NewLine(1_000_000)
		r := w.registry(Options{Lines: []*bandwidth.Line{line}}, "http://registry.test")
		ctx, cancel := context.WithCancel(t.Context())
		var rd reading
		rd.read(ctx, r, "a", 3)
		for _, rate := range []int64{1_000_000, 100_000, 5_000_000} {
			line.SetRate(rate)
			before := rd.of("a")
			<-time.After(10 * time.Second)
			if got := rd.of("a") - before; !within(got, 10*rate, 5) {
				t.Errorf("%d bytes in 10 s at %d a second", got, rate)
			}
		}
		cancel()
		rd.wg.Wait()
	})
}

// What is small comes at once, however many blobs wait, and at their expense.
func TestSmallThingsDoNotQueueBehindBlobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1_000_000
		config := layer[:maxSmall]
		w := newWorld(t)
		w.serve("http://auth.test", func(rw http.ResponseWriter, _ *http.Request) { io.WriteString(rw, `{"token":"t"}`) })
		w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			switch {
			case req.Header.Get("Authorization") == "":
				challengeWith(`Bearer realm="http://auth.test/"`)(rw, req)
			case strings.Contains(req.URL.Path, "/manifests/"):
				serveContent(rw, req)
			case strings.Contains(req.URL.Path, blobOf("config").String()):
				answer(200, config, "Content-Length", fmt.Sprint(len(config)))(rw, req)
			default:
				endless(32<<10)(rw, req)
			}
		})
		r := w.registry(Options{Lines: []*bandwidth.Line{bandwidth.NewLine(rate)}}, "http://registry.test")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var rd reading
		for i := range 64 {
			rd.read(ctx, r, fmt.Sprint(i), 1)
		}
		<-time.After(10 * time.Second)
		start := time.Now()
		sum := func() (n int64) {
			for i := range 64 {
				n += rd.of(fmt.Sprint(i))
			}
			return n
		}
		before := sum()
		if _, _, err := r.Manifest(ctx, "library/another", "7", nil); err != nil {
			t.Error(err)
		}
		for range 20 {
			body, err := r.OpenBlob(ctx, wanted(blobOf("config"), 0, -1))
			if err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, body); n != int64(len(config)) || err != nil {
				t.Errorf("%d bytes, %v", n, err)
			}
			body.Close()
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("they took %v", took)
		}
		<-time.After(10 * time.Second)
		// Of 1.3 MB that passed at once a second's worth is made up for.
		if got := sum() - before; !within(got, 9*rate, 5) {
			t.Errorf("then %d bytes of blobs came in 10 s", got)
		}
		cancel()
		rd.wg.Wait()
	})
}
