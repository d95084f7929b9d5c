package upstream

import (
	"context"
	"io"
	"net/http"
	"strings"
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
		{"token server is dead", challengeWith(`Bearer realm="http://dead.test/"`), nil, 1},
		{"token server is out of order", challengeWith(`Bearer realm="http://broken.test/"`), nil, 3},
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
				answer(200, nil, "Content-Length", "262144")(rw, req)
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

func TestEndpointThatFailsIsAskedWhenAllDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var mended atomic.Bool
		w.serve("http://one.test", status(500))
		w.serve("http://two.test", failing(500, &mended, "", serveLayer))
		r := w.registry(Options{}, "http://one.test", "http://two.test")
		for range downAt {
			fetch(t.Context(), r)
		}
		mended.Store(true)
		if from, err := fetch(t.Context(), r); from != "two.test" || err != nil {
			t.Errorf("from %q with %v", from, err)
		}
		pause(t.Context(), firstProbe)
		want := []bool{false, true}
		for i, s := range r.Endpoints() {
			if s.Up != want[i] {
				t.Errorf("%s is up: %t", s.Name, s.Up)
			}
		}
	})
}

func TestRecoveryByTrafficEndsTheProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Bool
		w := newWorld(t)
		w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			if broken.Load() {
				status(500)(rw, req)
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
