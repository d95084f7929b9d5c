package upstream

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// probes returns the requests for /v2/.
func probes(w *world) (requests []heard) {
	for _, h := range w.requests() {
		if strings.HasSuffix(h.URL, "/v2/") {
			requests = append(requests, h)
		}
	}
	return requests
}

func TestProbeIsOneAnonymousRequestAtGrowingPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var mu sync.Mutex
		var times []time.Duration
		w := newWorld(t)
		w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			if strings.HasSuffix(req.URL.Path, "/v2/") {
				mu.Lock()
				times = append(times, time.Since(start))
				mu.Unlock()
			}
			status(503)(rw, req)
		})
		o := &witness{}
		r := w.registry(Options{Logins: asUser, Observer: o}, "http://registry.test/hub")
		var many sync.WaitGroup
		for range 20 {
			many.Go(func() { r.Resolve(t.Context(), repo, "7", nil) })
		}
		many.Wait()
		pause(t.Context(), 2*time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if len(times) < 6 {
			t.Fatalf("probed at %v", times)
		}
		last, pause := time.Duration(0), firstProbe
		for i, at := range times {
			if took := at - last; took > pause || took < pause*3/4 {
				t.Errorf("probe %d after %v, want %v or up to a quarter less", i, took, pause)
			}
			last, pause = at, min(pause*3/2, lastProbe)
		}
		for _, h := range probes(w) {
			if h.Method != http.MethodGet || !strings.HasSuffix(h.URL, "/hub/v2/") || h.Header.Get("Authorization") != "" {
				t.Errorf("probe %s %s with header %v", h.Method, h.URL, h.Header)
			}
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		if last := o.requests[len(o.requests)-1]; last != "docker.io probe failed" {
			t.Errorf("observed %q", last)
		}
	})
}

// failing answers traffic with a status until it is mended, and what else is asked for, or all from then on, by well.
func failing(code int, mended *atomic.Bool, part string, well http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, req *http.Request) {
		if !mended.Load() && strings.Contains(req.URL.Path, part) {
			status(code)(rw, req)
			return
		}
		well(rw, req)
	}
}

func TestWhatAnswerToAProbeBringsAnEndpointUp(t *testing.T) {
	for code, up := range map[int]bool{200: true, 307: true, 401: true, 404: true, 429: true, 500: false, 501: false, 503: false} {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve("http://registry.test", failing(503, new(atomic.Bool), "/manifests/", status(code)))
				r := w.registry(Options{}, "http://registry.test")
				for range downAt {
					r.Resolve(t.Context(), repo, "7", nil)
				}
				pause(t.Context(), firstProbe)
				if r.Endpoints()[0].Up != up {
					t.Errorf("up %t, want %t", !up, up)
				}
			})
		})
	}
}

func TestWhatAnswerForABlobBringsBlobsUp(t *testing.T) {
	for _, tt := range []struct {
		name string
		h    http.HandlerFunc
		up   bool
	}{
		{"its first byte", serveLayer, true},
		{"all of it", answer(200, layer, "Content-Length", "262144"), true},
		{"first byte from elsewhere", redirect("http://cdn.test/"), true},
		{"absent", status(404), true},
		{"forbidden", status(403), true},
		{"not for this user", status(401), true},
		{"throttled", status(429), true},
		{"a range that can't be had", status(416), true},
		{"nothing, for it is empty", answer(200, nil, "Content-Length", "0"), true},
		{"signature refused elsewhere", redirect("http://forbidding.test/"), false},
		{"silence elsewhere", redirect("http://dead.test/"), false},
		{"no byte", answer(200, nil, "Content-Length", "262144"), false},
		{"no more than a header", sendAndStop(0), false},
		{"web page", answer(200, layer, "Content-Type", "text/html"), false},
		{"out of order", status(503), false},
		{"token server is dead", challengeWith(`Bearer realm="http://dead.test/"`), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mended atomic.Bool
				w := newWorld(t)
				w.serve("http://cdn.test", serveLayer)
				w.serve("http://forbidding.test", status(403))
				w.serve("http://registry.test", failing(503, &mended, "/blobs/", tt.h))
				r := w.registry(Options{}, "http://registry.test")
				for range downAt {
					fetch(t.Context(), r)
				}
				mended.Store(true)
				pause(t.Context(), firstProbe)
				synctest.Wait()
				if r.Endpoints()[0].Up != tt.up {
					t.Errorf("up %t, want %t", !tt.up, tt.up)
				}
				if n := len(probes(w)); n > 1 { // one, by which the door is opened to other blobs
					t.Errorf("%d requests for /v2/", n)
				}
			})
		})
	}
}

func TestBlobProbeAsksForOneByteAsTheUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mended atomic.Bool
		w := newWorld(t)
		w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			if who, _, _ := req.BasicAuth(); who != user.Username {
				challengeWith("Basic")(rw, req)
				return
			}
			failing(500, &mended, "/blobs/", serveLayer)(rw, req)
		})
		o := &witness{}
		r := w.registry(Options{Logins: asUser, Observer: o}, "http://registry.test")
		for range downAt {
			fetch(t.Context(), r)
		}
		mended.Store(true)
		pause(t.Context(), firstProbe)
		synctest.Wait()
		if !r.Endpoints()[0].Up {
			t.Error("down")
		}
		asked := w.requests()
		last := asked[len(asked)-1]
		if !strings.HasSuffix(last.URL, "/v2/library/redis/blobs/"+layerDigest.String()) || last.Method != http.MethodGet ||
			last.Header.Get("Range") != "bytes=0-0" || last.Header.Get("Authorization") != basicHeader(user) {
			t.Errorf("probe %+v", last)
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		if last := o.requests[len(o.requests)-1]; last != "docker.io probe ok" {
			t.Errorf("observed %q", last)
		}
	})
}

// TestEndpointThatPassesProbesAndFailsBlobs is about one that has the first byte of every blob and the last of none.
func TestEndpointThatPassesProbesAndFailsBlobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://one.test", func(rw http.ResponseWriter, req *http.Request) {
			if req.Header.Get("Range") == "bytes=0-0" {
				serveLayer(rw, req)
				return
			}
			answer(200, layer[:5000], "Content-Length", "262144")(rw, req)
		})
		w.serve("http://two.test", serveLayer)
		log, logs := debugLog()
		r := w.registry(Options{Log: log}, "http://one.test", "http://two.test")
		failures := 0
		for start := time.Now(); time.Since(start) < 10*time.Minute; pause(t.Context(), 100*time.Millisecond) {
			if from, err := fetch(t.Context(), r); err != nil {
				failures++
			} else if from != "two.test" {
				t.Fatalf("whole from %s", from)
			}
		}
		// The pauses grow within a minute, and are 11 s at least then.
		if most := 60; failures > most {
			t.Errorf("%d blobs broke off in ten minutes, want %d at most", failures, most)
		}
		if down := logs.FilterMessage("endpoint is down").Len(); down != failures {
			t.Errorf("down %d times by the log", down)
		}
		pause(t.Context(), 2*steady) // it is let be, and by the probe it is well
		fetch(t.Context(), r)
		pause(t.Context(), firstProbe)
		if !r.Endpoints()[0].Up {
			t.Error("a fall after a long time up is held against it like the latest of a row")
		}
	})
}

// TestCloseEndsTheProbe counts on synctest, which fails if a goroutine is left.
func TestCloseEndsTheProbe(t *testing.T) {
	for name, after := range map[string]time.Duration{"between requests": time.Second, "in a request": 3 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve("http://registry.test", silent)
				r := w.registry(Options{HeaderTimeout: 10 * time.Second}, "http://registry.test")
				fetch(t.Context(), r)
				pause(t.Context(), after)
				start := time.Now()
				r.Close()
				if took := time.Since(start); took != 0 {
					t.Errorf("Close took %v", took)
				}
				fetch(t.Context(), r) // down already; and nothing may begin any more
			})
		})
	}
}
