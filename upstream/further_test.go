package upstream

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// beside asks for a further connection.
func beside(n int) BlobRequest {
	return BlobRequest{Repository: repo, Digest: layerDigest, Beside: n}
}

func TestFurtherConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://one.test", serveLayer)
		w.serve("http://two.test", serveLayer)
		r := w.registry(Options{ConnectionsPerBlob: 3, ConnectionsPerEndpoint: 2}, "http://one.test", "http://two.test")
		var open []*BlobStream
		for _, want := range []string{"one.test", "one.test", "two.test", "two.test", ""} {
			body, err := r.OpenBlob(t.Context(), beside(2))
			if want == "" {
				if _, isError := errors.AsType[*Error](err); !errors.Is(err, ErrEnough) || isError {
					t.Errorf("beyond the bound of endpoints: %v", err)
				}
			} else if err != nil || body.Endpoint != want {
				t.Fatalf("%v, want %s", err, want)
			} else {
				open = append(open, body)
			}
		}
		if from, err := fetch(t.Context(), r); from != "one.test" || err != nil {
			t.Errorf("what is needed came from %q with %v", from, err)
		}
		open[2].Close()
		open[2].Close()
		if n := r.Endpoints()[1].Connections; n != 1 {
			t.Errorf("%d connections after one of two was closed twice", n)
		}
		if _, err := r.OpenBlob(t.Context(), beside(3)); !errors.Is(err, ErrEnough) {
			t.Errorf("beyond the bound of a blob: %v", err)
		}
		body, err := r.OpenBlob(t.Context(), beside(1))
		if err != nil || body.Endpoint != "two.test" {
			t.Fatalf("%v, want two.test", err)
		}
		for _, b := range append(open, body) {
			b.Close()
		}
		for _, s := range r.Endpoints() {
			if s.Connections != 0 || !s.Up {
				t.Errorf("%+v after all were closed", s)
			}
		}
	})
}

func TestFurtherConnectionsSpareEndpoints(t *testing.T) {
	for _, tt := range []struct {
		name  string
		first http.HandlerFunc // of what one.test answers to a first request
		spoil func(r *Registry)
		until time.Duration // when it is asked for more again; 0: at once
	}{
		{"throttling for a minute", answer(429, nil, "Retry-After", "60"), nil, time.Minute},
		{"throttling for ever", answer(429, nil, "Retry-After", "1000000"), nil, time.Hour},
		{"throttling for an unknown time", answer(429, nil), nil, throttledFor},
		{"down", answer(200, layer[:1000], "Content-Length", "262144"), nil, firstProbe},
		{"a liar", serveLayer, func(r *Registry) { r.Distrust("one.test") }, asideFor},
		{"in order", serveLayer, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first := true
				w := newWorld(t)
				w.serve("http://one.test", func(rw http.ResponseWriter, req *http.Request) {
					if first {
						first = false
						tt.first(rw, req)
						return
					}
					serveLayer(rw, req)
				})
				r := w.registry(Options{}, "http://one.test")
				fetch(t.Context(), r)
				if tt.spoil != nil {
					tt.spoil(r)
				}
				if tt.until > 0 {
					pause(t.Context(), tt.until*3/4-time.Second)
					if _, err := r.OpenBlob(t.Context(), beside(1)); !errors.Is(err, ErrEnough) {
						t.Errorf("ahead of time: %v", err)
					}
					pause(t.Context(), tt.until/4+time.Second)
				}
				body, err := r.OpenBlob(t.Context(), beside(1))
				if err != nil {
					t.Fatal(err)
				}
				body.Close()
			})
		})
	}
}

func TestFurtherConnectionThatFailsIsNotTriedElsewhere(t *testing.T) {
	w := newWorld(t)
	w.serve("http://one.test", status(429))
	w.serve("http://two.test", serveLayer)
	r := w.registry(Options{}, "http://one.test", "http://two.test")
	_, err := r.OpenBlob(t.Context(), beside(1))
	if e := asError(t, err); !e.Throttled() || w.count("two.test") != 0 {
		t.Errorf("%v after %q", err, w.lines())
	}
	if n := r.Endpoints()[0].Connections; n != 0 {
		t.Errorf("%d connections", n)
	}
}

func TestFurtherConnectionsBySpeedGoToTheLeastBusy(t *testing.T) {
	w := newWorld(t)
	w.serve("http://one.test", serveLayer)
	w.serve("http://two.test", serveLayer)
	r := w.registry(Options{BySpeed: true}, "http://one.test", "http://two.test")
	for i, speed := range []float64{1, 2} {
		r.endpoints[i].speed, r.endpoints[i].lastMeasure = speed, time.Now()
	}
	for _, want := range []string{"two.test", "one.test", "two.test", "one.test"} {
		body, err := r.OpenBlob(t.Context(), beside(1))
		if err != nil || body.Endpoint != want {
			t.Fatalf("%v, want %s", err, want)
		}
		defer body.Close()
	}
}

func TestFurtherConnectionIsTriedWhereTheBlobIs(t *testing.T) {
	for name, bySpeed := range map[string]bool{"in order": false, "by speed": true} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.serve("http://near.test", status(404))
			w.serve("http://registry.test", serveLayer)
			r := w.registry(Options{BySpeed: bySpeed}, "http://near.test", "http://registry.test")
			body, err := r.OpenBlob(t.Context(), beside(1))
			if err != nil || body.Endpoint != "registry.test" {
				t.Fatalf("%v, want registry.test", err)
			}
			body.Close()
			for _, s := range r.Endpoints() {
				if s.Connections != 0 {
					t.Errorf("%+v", s)
				}
			}
		})
	}
	w := newWorld(t)
	w.serve("http://near.test", status(404))
	if _, err := w.registry(Options{}, "http://near.test").OpenBlob(t.Context(), beside(1)); !errors.Is(err, ErrEnough) {
		t.Errorf("where nobody has it: %v", err)
	}
}

// TestFurtherConnectionWantsItsRange is about servers that send all that precedes an offset too, which somebody else brings.
func TestFurtherConnectionWantsItsRange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := answer(200, layer, "Content-Length", "262144")
		w := newWorld(t)
		w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) { h(rw, req) })
		r := w.registry(Options{}, "http://registry.test")
		open := func(req BlobRequest) error {
			body, err := r.OpenBlob(t.Context(), req)
			if err == nil {
				body.Close()
			}
			return err
		}
		asked := func(requests int, err error) {
			t.Helper()
			if _, isError := errors.AsType[*Error](err); !errors.Is(err, ErrEnough) || isError {
				t.Errorf("%v, want ErrEnough", err)
			}
			if n := len(w.lines()); n != requests {
				t.Errorf("%d requests, want %d", n, requests)
			}
		}
		later := beside(1)
		later.Offset, later.Length = 200000, 1000
		asked(1, open(later))
		asked(1, open(later)) // known by now
		if err := open(beside(1)); err != nil {
			t.Errorf("from the start, where there is nothing to ignore: %v", err)
		}
		pause(t.Context(), rangelessFor)
		asked(3, open(later))
		h = serveLayer
		asked(3, open(later))
		if err := open(wanted(layerDigest, 1000, 1000)); err != nil {
			t.Fatal(err)
		}
		if err := open(later); err != nil {
			t.Errorf("after an answer that kept to its range: %v", err)
		}
		if s := r.Endpoints()[0]; s.Connections != 0 || !s.Up {
			t.Errorf("%+v", s)
		}
	})
}

func TestThrottlingHoldsForAsLongAsItWasSaid(t *testing.T) {
	for _, tt := range []struct {
		name  string
		after []string // of each 429, in turn
		free  time.Duration
	}{
		{"for no time", []string{"0"}, 0},
		{"until a day that is past", []string{"Thu, 01 Jan 1998 00:00:00 GMT"}, 0},
		{"an hour, then a second", []string{"3600", "1"}, time.Hour},
		{"a second, then a minute", []string{"1", "60"}, time.Minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				turns := make(chan string)
				w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
					if after, ok := <-turns; ok {
						answer(429, nil, "Retry-After", after)(rw, req)
						return
					}
					serveLayer(rw, req)
				})
				r := w.registry(Options{Patience: time.Nanosecond}, "http://registry.test")
				var asking sync.WaitGroup
				for range tt.after { // at once: what comes after a 429 is not asked at all
					asking.Go(func() { fetch(t.Context(), r) })
				}
				synctest.Wait()
				for _, after := range tt.after {
					turns <- after
					synctest.Wait()
				}
				asking.Wait()
				close(turns)
				if tt.free == 0 {
					pause(t.Context(), 2*time.Second)
				}
				if tt.free > 0 {
					pause(t.Context(), tt.free-time.Second)
					if _, err := r.OpenBlob(t.Context(), beside(1)); !errors.Is(err, ErrEnough) {
						t.Errorf("ahead of time: %v", err)
					}
					pause(t.Context(), time.Second)
				}
				body, err := r.OpenBlob(t.Context(), beside(1))
				if err != nil {
					t.Fatal(err)
				}
				body.Close()
			})
		})
	}
}

func TestThrottledManifestsLeaveBlobsTheirConnections(t *testing.T) {
	w := newWorld(t)
	w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
		if strings.Contains(req.URL.Path, "/manifests/") {
			status(429)(rw, req)
			return
		}
		serveLayer(rw, req)
	})
	r := w.registry(Options{}, "http://registry.test")
	r.Manifest(Dispensable(t.Context()), repo, "7", nil)
	body, err := r.OpenBlob(t.Context(), beside(1))
	if err != nil {
		t.Fatal(err)
	}
	body.Close()
}
