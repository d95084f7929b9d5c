package upstream

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap"
)

// unhurried leaves the header more time than a caller of these tests takes to leave.
var unhurried = Options{HeaderTimeout: 20 * time.Second, StallTimeout: 10 * time.Second}

// fetch reads a blob to its end, wherever that is.
func fetch(ctx context.Context, r *Registry) (from string, err error) {
	body, err := r.OpenBlob(ctx, wanted(layerDigest, 0, -1))
	if err != nil {
		return "", err
	}
	defer body.Close()
	_, err = io.Copy(io.Discard, body)
	return body.Endpoint, err
}

func TestWhatBringsAnEndpointDown(t *testing.T) {
	leave := func(r *Registry) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		fetch(ctx, r)
	}
	closeEarly := func(r *Registry) {
		if body, err := r.OpenBlob(context.Background(), wanted(layerDigest, 0, -1)); err == nil {
			time.AfterFunc(5*time.Second, func() { body.Close() })
			io.Copy(io.Discard, body)
		}
	}
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc  // nil: nobody listens
		ask    func(r *Registry) // nil: fetch, and wait for as long as it takes
		faults int               // how many in a row bring it down; 0: any number does not
	}{
		{"nobody listens", nil, nil, 1},
		{"no answer", silent, nil, 1},
		{"cut off", answer(200, layer[:5000], "Content-Length", "262144"), nil, 1},
		{"ended early", answer(206, layer[:5000], "Content-Range", "bytes 0-4999/262144"), func(r *Registry) {
			if body, err := r.OpenBlob(context.Background(), wanted(layerDigest, 0, 10000)); err == nil {
				defer body.Close()
				io.Copy(io.Discard, body)
			}
		}, 1},
		{"stalled", sendAndStop(5000), nil, 1},
		{"silent storage host", redirect("http://dead.test/"), nil, 1},
		{"500", status(500), nil, 3},
		{"503", status(503), nil, 3},
		{"501", status(501), nil, 0},
		{"404", status(404), nil, 0},
		{"403", status(403), nil, 0},
		{"400", status(400), nil, 0},
		{"401", status(401), nil, 0},
		{"408", status(408), nil, 0},
		{"429", status(429), nil, 0},
		{"web page", answer(200, nil, "Content-Type", "text/html"), nil, 0},
		{"redirect to nowhere", redirect("ftp://cdn.test"), nil, 0},
		{"redirects without end", redirect("/again"), nil, 0},
		{"token server is dead", challengeWith(`Bearer realm="http://dead.test/"`), nil, 0},
		{"token server is out of order", challengeWith(`Bearer realm="http://broken.test/"`), nil, 0},
		{"caller leaves before the answer", silent, leave, 0},
		{"caller leaves the body", sendAndStop(5000), leave, 0},
		{"caller closes the body", sendAndStop(5000), closeEarly, 0},
		{"whole", serveLayer, nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve("http://broken.test", status(500))
				if tt.answer != nil {
					w.serve("http://registry.test", tt.answer)
				}
				r := w.registry(unhurried, "http://registry.test")
				ask := tt.ask
				if ask == nil {
					ask = func(r *Registry) { fetch(t.Context(), r) }
				}
				for n := 1; n <= max(tt.faults, 4); n++ {
					ask(r)
					if up := r.Endpoints()[0].Up; up != (tt.faults == 0 || n < tt.faults) {
						t.Fatalf("after %d faults it is up: %t", n, up)
					}
				}
				if streams := r.Endpoints()[0].Connections; streams != 0 {
					t.Errorf("%d streams left", streams)
				}
			})
		})
	}
}

// challengeWith answers 401 with a challenge.
func challengeWith(header string) http.HandlerFunc {
	return func(rw http.ResponseWriter, req *http.Request) {
		rw.Header().Set("WWW-Authenticate", header)
		status(http.StatusUnauthorized)(rw, req)
	}
}

func TestFaultsCountInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		codes := []int{503, 503, 404, 500, 502, 501, 504}
		w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			status(codes[0])(rw, req)
			codes = codes[1:]
		})
		r := w.registry(Options{}, "http://registry.test")
		for len(codes) > 0 {
			if !r.Endpoints()[0].Up {
				t.Errorf("down with %v to come", codes)
			}
			r.Resolve(t.Context(), repo, "7", nil)
		}
		if r.Endpoints()[0].Up {
			t.Error("up after three faults with no success between them")
		}
	})
}

// TestFailoverAndReturn is the life of a mirror that loses its disk and gets it back.
func TestFailoverAndReturn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		w := newWorld(t)
		w.serve("http://mirror.test", func(rw http.ResponseWriter, req *http.Request) {
			switch {
			case !broken.Load():
				serveLayer(rw, req)
			case strings.HasSuffix(req.URL.Path, "/v2/"):
				status(503)(rw, req)
			default:
				answer(200, layer[:5000], "Content-Length", "262144")(rw, req)
			}
		})
		w.serve("http://registry.test", serveLayer)
		log, logs := debugLog()
		r := w.registry(Options{Log: log}, "http://mirror.test", "http://registry.test")
		expect := func(want string, failed bool) {
			t.Helper()
			if from, err := fetch(t.Context(), r); from != want || (err != nil) != failed {
				t.Errorf("from %q with %v, want %s", from, err, want)
			}
		}
		expect("mirror.test", false)
		broken.Store(true)
		expect("mirror.test", true)
		expect("registry.test", false)
		pause(t.Context(), 10*time.Second)
		expect("registry.test", false)
		broken.Store(false)
		pause(t.Context(), lastProbe)
		expect("mirror.test", false)

		var said []string
		for _, entry := range logs.FilterLevelExact(zap.WarnLevel).All() {
			said = append(said, entry.Message+": "+entry.ContextMap()["endpoint"].(string)+": "+entry.ContextMap()["error"].(string))
		}
		for _, entry := range logs.FilterLevelExact(zap.InfoLevel).All() {
			said = append(said, entry.Message+": "+entry.ContextMap()["endpoint"].(string))
		}
		want := []string{"endpoint is down: mirror.test: unexpected EOF", "endpoint is back: mirror.test"}
		if diff := cmp.Diff(want, said); diff != "" {
			t.Error(diff)
		}
	})
}

func TestEndpointThatIsDownIsAskedWhenAllAre(t *testing.T) {
	w := newWorld(t)
	r := w.registry(Options{}, "http://one.test", "http://two.test")
	fetch(t.Context(), r)
	w.serve("http://two.test", serveLayer)
	if from, err := fetch(t.Context(), r); from != "two.test" || err != nil {
		t.Errorf("from %q with %v", from, err)
	}
	want := []bool{false, true}
	for i, s := range r.Endpoints() {
		if s.Up != want[i] {
			t.Errorf("%s is up: %t", s.Name, s.Up)
		}
	}
}

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
		r := w.registry(Options{Credentials: asUser, Observer: o}, "http://registry.test/hub")
		var many sync.WaitGroup
		for range 20 {
			many.Go(func() { fetch(t.Context(), r) })
		}
		many.Wait()
		pause(t.Context(), 2*time.Minute)
		mu.Lock()
		defer mu.Unlock()
		if len(times) < 6 {
			t.Fatalf("probed at %v", times)
		}
		last := time.Duration(0)
		for i, at := range times {
			pause := min(firstProbe<<i, lastProbe)
			if took := at - last; took > pause || took < pause*3/4 {
				t.Errorf("probe %d after %v, want %v or up to a quarter less", i, took, pause)
			}
			last = at
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

func TestWhatAnswerToAProbeBringsAnEndpointUp(t *testing.T) {
	for code, up := range map[int]bool{200: true, 307: true, 401: true, 404: true, 429: false, 500: false, 501: false, 503: false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
				if strings.HasSuffix(req.URL.Path, "/v2/") {
					status(code)(rw, req)
				} else {
					status(503)(rw, req)
				}
			})
			r := w.registry(Options{}, "http://registry.test")
			for range downAt {
				fetch(t.Context(), r)
			}
			pause(t.Context(), firstProbe)
			if r.Endpoints()[0].Up != up {
				t.Errorf("%d: up %t, want %t", code, !up, up)
			}
		})
	}
}

func TestRecoveryByTrafficEndsTheProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		w := newWorld(t)
		w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			if broken.Load() {
				status(503)(rw, req)
			} else {
				serveLayer(rw, req)
			}
		})
		r := w.registry(Options{}, "http://registry.test")
		for range 10 { // down and up again, each time before the probe's first pause is over
			broken.Store(true)
			for range downAt {
				fetch(t.Context(), r)
			}
			if r.Endpoints()[0].Up {
				t.Fatal("not down")
			}
			broken.Store(false)
			if _, err := fetch(t.Context(), r); err != nil || !r.Endpoints()[0].Up {
				t.Fatalf("not back: %v", err)
			}
		}
		pause(t.Context(), time.Hour)
		if n := len(probes(w)); n != 0 {
			t.Errorf("%d probes of an endpoint that is up", n)
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
