package upstream

import (
	"bytes"
	"context"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/entrepot/entrepot/upstream/bandwidth"
)

// serveIn answers with a blob of size bytes, half of them after as long as it says.
func serveIn(size int, took time.Duration) http.HandlerFunc {
	return func(rw http.ResponseWriter, req *http.Request) {
		rw.Write(bytes.Repeat([]byte("x"), size/2))
		http.NewResponseController(rw).Flush()
		pause(req.Context(), took)
		rw.Write(bytes.Repeat([]byte("x"), size-size/2))
	}
}

func TestSpeedIsMeasuredAndPreferred(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		took := 4 * time.Second
		w.serve("http://slow.test", func(rw http.ResponseWriter, req *http.Request) { serveIn(telling, took)(rw, req) })
		w.serve("http://fast.test", serveIn(telling, time.Second))
		r := w.registry(Options{BySpeed: true}, "http://slow.test", "http://fast.test")
		for i, want := range []string{"slow.test", "fast.test", "fast.test", "fast.test"} {
			if from, err := fetch(t.Context(), r); from != want || err != nil {
				t.Errorf("fetch %d from %s with %v, want %s", i, from, err, want)
			}
		}
		if speed := r.Endpoints()[0].Speed; speed != telling/4 {
			t.Errorf("speed %v", speed)
		}
		r.Distrust("fast.test")
		took = 2 * time.Second
		fetch(t.Context(), r)
		if speed := r.Endpoints()[0].Speed; speed != (telling/4+telling/2)/2 {
			t.Errorf("smoothed speed %v", speed)
		}
	})
}

func TestSmallBlobsAndSlowReadersTellNoSpeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		size, took := telling-1, time.Second
		w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) { serveIn(size, took)(rw, req) })
		r := w.registry(Options{}, "http://registry.test")
		fetch(t.Context(), r)
		if speed := r.Endpoints()[0].Speed; speed != 0 {
			t.Errorf("speed %v of a small blob", speed)
		}
		size, took = telling, 0
		body, err := r.OpenBlob(t.Context(), wanted(layerDigest, 0, -1))
		if err != nil {
			t.Fatal(err)
		}
		pause(t.Context(), time.Hour)
		for buf := make([]byte, 1<<16); err == nil; pause(t.Context(), time.Second) {
			_, err = body.Read(buf)
		}
		body.Close()
		if speed := r.Endpoints()[0].Speed; speed != 0 {
			t.Errorf("speed %v, though the network was never waited for", speed)
		}
	})
}

func TestSpeedOfATrickleIsMeasured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://slow.test", serveIn(telling/2, 20*time.Second))
		w.serve("http://fast.test", serveIn(telling/2, time.Second))
		r := w.registry(Options{BySpeed: true}, "http://slow.test", "http://fast.test")
		for i, want := range []string{"slow.test", "fast.test", "fast.test"} {
			if from, err := fetch(t.Context(), r); from != want || err != nil {
				t.Errorf("fetch %d from %s with %v, want %s", i, from, err, want)
			}
		}
		if speed := r.Endpoints()[0].Speed; speed != telling/40.0 {
			t.Errorf("speed %v", speed)
		}
	})
}

func TestEndpointThatLacksBlobsIsNoCandidateForTheFastest(t *testing.T) {
	for name, first := range map[string]http.HandlerFunc{
		"absent": status(404), "out of order": status(500), "web page": answer(200, nil, "Content-Type", "text/html")} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve("http://lacking.test", first)
				w.serve("http://slow.test", serveIn(telling, 20*time.Second))
				r := w.registry(Options{BySpeed: true}, "http://lacking.test", "http://slow.test")
				for range 5 {
					if from, err := fetch(t.Context(), r); from != "slow.test" || err != nil {
						t.Errorf("from %s with %v", from, err)
					}
				}
				if n := w.count("lacking.test"); n != 1 {
					t.Errorf("asked %d times", n)
				}
			})
		})
	}
}

func TestFailureDoesNotSpoilAMeasuredSpeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		answers := []http.HandlerFunc{status(404), serveIn(telling, time.Second), status(404)}
		w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			answers[0](rw, req)
			answers = answers[1:]
		})
		r := w.registry(Options{}, "http://registry.test")
		for i, want := range []float64{hopeless, telling, telling} {
			fetch(t.Context(), r)
			if speed := r.Endpoints()[0].Speed; speed != want {
				t.Errorf("after fetch %d: speed %v, want %v", i, speed, want)
			}
		}
	})
}

func TestCallerWhoLeavesMeasuresNothing(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{"before the answer": silent, "in the body": sendAndStop(100)} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve("http://registry.test", h)
				r := w.registry(Options{}, "http://registry.test")
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				fetch(ctx, r)
				if speed := r.Endpoints()[0].Speed; speed != 0 {
					t.Errorf("speed %v", speed)
				}
			})
		})
	}
}

func TestMeasuredSpeedIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		took := 10 * time.Second
		w.serve("http://one.test", func(rw http.ResponseWriter, req *http.Request) { serveIn(telling, took)(rw, req) })
		w.serve("http://two.test", serveIn(telling, 5*time.Second))
		r := w.registry(Options{BySpeed: true}, "http://one.test", "http://two.test")
		for _, want := range []string{"one.test", "two.test", "two.test", "one.test", "two.test", "one.test"} {
			if from, err := fetch(t.Context(), r); from != want || err != nil {
				t.Errorf("from %s with %v, want %s", from, err, want)
			}
			if want == "two.test" && w.count("two.test") == 2 { // old enough to look again, and better by now
				pause(t.Context(), measuredFor+time.Second)
				took = time.Second
			}
		}
		if speed := r.Endpoints()[0].Speed; speed != telling {
			t.Errorf("speed %v: what is too old still counts", speed)
		}
	})
}

func TestSpeedBehindALimiterIsNotTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://registry.test", serveIn(telling, time.Second))
		slow := w.registry(Options{Lines: []*bandwidth.Line{bandwidth.NewLine(telling / 8)}}, "http://registry.test")
		fetch(t.Context(), slow)
		if speed := slow.Endpoints()[0].Speed; speed != 0 {
			t.Errorf("speed %v, though the limiter had the network wait", speed)
		}
		wide := w.registry(Options{Lines: []*bandwidth.Line{bandwidth.NewLine(telling << 10)}}, "http://registry.test")
		fetch(t.Context(), wide)
		if speed := wide.Endpoints()[0].Speed; speed != telling {
			t.Errorf("speed %v behind a limiter that is not felt", speed)
		}
	})
}
