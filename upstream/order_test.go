package upstream

import (
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// trusting returns options with endpoints of which some are trusted.
func trusting(hosts []string, trusted ...bool) Options {
	var o Options
	for i, host := range hosts {
		o.Endpoints = append(o.Endpoints, Endpoint{URL: &url.URL{Scheme: "http", Host: host}, Trusted: trusted[i]})
	}
	return o
}

func TestTagsAreResolvedByTrustedEndpoints(t *testing.T) {
	hosts := []string{"one.test", "two.test", "three.test"}
	ok := http.HandlerFunc(serveContent)
	for _, tt := range []struct {
		name    string
		trusted []bool
		answers []http.HandlerFunc // nil: nobody listens
		from    string             // the last that is asked
		status  int                // of the error; 0: none
	}{
		{"none is marked", []bool{false, false, false}, []http.HandlerFunc{status(503), ok, ok}, "one.test", 503},
		{"one is marked", []bool{false, true, false}, []http.HandlerFunc{ok, status(503), ok}, "two.test", 503},
		{"the first answers", []bool{true, true, false}, []http.HandlerFunc{ok, ok, ok}, "one.test", 0},
		{"absence is an answer", []bool{true, true, false}, []http.HandlerFunc{status(404), ok, ok}, "one.test", 404},
		{"a refusal is an answer", []bool{true, true, false}, []http.HandlerFunc{status(403), ok, ok}, "one.test", 403},
		{"an outage is none", []bool{true, false, true}, []http.HandlerFunc{status(503), ok, ok}, "three.test", 0},
		{"throttling is none", []bool{true, false, true}, []http.HandlerFunc{status(429), ok, ok}, "three.test", 0},
		{"the second decides", []bool{true, true, true}, []http.HandlerFunc{status(503), status(404), ok}, "two.test", 404},
		{"all are out of order", []bool{true, true, false}, []http.HandlerFunc{nil, status(502), ok}, "two.test", 502},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			for i, host := range hosts {
				if tt.answers[i] != nil {
					w.serve("http://"+host, tt.answers[i])
				}
			}
			_, err := w.registry(trusting(hosts, tt.trusted...)).Resolve(t.Context(), repo, "7", nil)
			if tt.status == 0 && err != nil || tt.status != 0 && asError(t, err).Status != tt.status {
				t.Errorf("%v, want status %d", err, tt.status)
			}
			lines := w.lines()
			if want := "HEAD http://" + tt.from + "/v2/library/redis/manifests/7"; lines[len(lines)-1] != want {
				t.Errorf("requests %q, want %s at the end", lines, want)
			}
		})
	}
}

func TestRefusalByTheRegistryOutweighsItsMirrors(t *testing.T) {
	for _, tt := range []struct {
		name             string
		mirror, registry int
		want             int
	}{
		{"the mirror lacks it", 404, 403, 403},
		{"the mirror is out of order", 503, 403, 403},
		{"the mirror turns away", 401, 404, 404},
		{"an outage still outweighs an absence", 503, 404, 503},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.serve("http://registry.test", status(tt.registry))
			w.serve("http://mirror.test", status(tt.mirror))
			w.serve("http://another.test", status(404))
			r := w.registry(Options{}, "http://registry.test", "http://mirror.test", "http://another.test")
			r.Distrust("registry.test") // so that it is asked last
			if _, err := r.OpenBlob(t.Context(), wanted(layerDigest, 0, -1)); asError(t, err).Status != tt.want {
				t.Errorf("%v, want status %d", err, tt.want)
			}
		})
	}
}

func TestOrderOfEndpoints(t *testing.T) {
	const up, aside = true, true
	for _, tt := range []struct {
		name    string
		bySpeed bool
		q       question
		a, b    EndpointStatus // in the order of the options
		swapped bool
	}{
		{"equals stay", true, question{kind: kindBlob, byDigest: true}, EndpointStatus{Up: up}, EndpointStatus{Up: up}, false},
		{"down", false, question{kind: kindBlob, byDigest: true}, EndpointStatus{}, EndpointStatus{Up: up}, true},
		{"down, for a tag", false, question{kind: kindManifest}, EndpointStatus{}, EndpointStatus{Up: up}, true},
		{"aside", false, question{kind: kindBlob, byDigest: true}, EndpointStatus{Up: up, Aside: aside, Lies: 1}, EndpointStatus{Up: up}, true},
		{"aside, for a manifest", false, question{kind: kindManifest, byDigest: true}, EndpointStatus{Up: up, Aside: aside, Lies: 1}, EndpointStatus{Up: up}, false},
		{"aside is worse than down", false, question{kind: kindBlob, byDigest: true}, EndpointStatus{Up: up, Aside: aside, Lies: 1}, EndpointStatus{}, true},
		{"fewer lies", false, question{kind: kindBlob, byDigest: true}, EndpointStatus{Up: up, Aside: aside, Lies: 2}, EndpointStatus{Up: up, Aside: aside, Lies: 1}, true},
		{"lies of old", false, question{kind: kindBlob, byDigest: true}, EndpointStatus{Up: up, Lies: 2}, EndpointStatus{Up: up}, false},
		{"faster", true, question{kind: kindBlob, byDigest: true}, EndpointStatus{Up: up, Speed: 1}, EndpointStatus{Up: up, Speed: 2}, true},
		{"faster, but it does not count", false, question{kind: kindBlob, byDigest: true}, EndpointStatus{Up: up, Speed: 1}, EndpointStatus{Up: up, Speed: 2}, false},
		{"faster, for a tag", true, question{kind: kindManifest}, EndpointStatus{Up: up, Speed: 1}, EndpointStatus{Up: up, Speed: 2}, false},
		{"not measured", true, question{kind: kindManifest, byDigest: true}, EndpointStatus{Up: up, Speed: 1}, EndpointStatus{Up: up}, true},
		{"faster, but down", true, question{kind: kindBlob, byDigest: true}, EndpointStatus{Up: up, Speed: 1}, EndpointStatus{Speed: 2}, false},
	} {
		r := &Registry{bySpeed: tt.bySpeed}
		if order := r.compare(tt.q, tt.a, tt.b); order > 0 != tt.swapped {
			t.Errorf("%s: %d", tt.name, order)
		}
		if there, back := r.compare(tt.q, tt.a, tt.b), r.compare(tt.q, tt.b, tt.a); there != -back {
			t.Errorf("%s: %d there and %d back", tt.name, there, back)
		}
	}
}

func TestLiarIsSetAsideForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://one.test", serveLayer)
		w.serve("http://two.test", serveLayer)
		log, logs := debugLog()
		r := w.registry(Options{Log: log}, "http://one.test", "http://two.test")
		expect := func(want string, status EndpointStatus) {
			t.Helper()
			if from, err := fetch(t.Context(), r); from != want || err != nil {
				t.Errorf("from %s with %v, want %s", from, err, want)
			}
			if diff := cmp.Diff(status, r.Endpoints()[0]); diff != "" {
				t.Error(diff)
			}
		}
		expect("one.test", EndpointStatus{Name: "one.test", Up: true})
		r.Distrust("one.test")
		r.Distrust("nobody.test")
		pause(t.Context(), asideFor/2)
		expect("two.test", EndpointStatus{Name: "one.test", Up: true, Aside: true, Lies: 1})
		r.Distrust("one.test")
		pause(t.Context(), asideFor-time.Second)
		expect("two.test", EndpointStatus{Name: "one.test", Up: true, Aside: true, Lies: 2})
		pause(t.Context(), time.Second)
		expect("one.test", EndpointStatus{Name: "one.test", Up: true, Lies: 2})
		if n := logs.FilterMessageSnippet("does not match its digest").Len(); n != 2 {
			t.Errorf("%d lies logged", n)
		}
	})
}

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

func TestFurtherConnectionTriesOneEndpoint(t *testing.T) {
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
		r.endpoints[i].speed = speed
	}
	for _, want := range []string{"two.test", "one.test", "two.test", "one.test"} {
		body, err := r.OpenBlob(t.Context(), beside(1))
		if err != nil || body.Endpoint != want {
			t.Fatalf("%v, want %s", err, want)
		}
		defer body.Close()
	}
}
