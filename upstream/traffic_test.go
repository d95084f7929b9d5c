package upstream

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/entrepot/entrepot/upstream/bandwidth"
)

// parted answers for blobs and for all else by handlers of their own.
func parted(blob, other http.HandlerFunc) http.HandlerFunc {
	return func(rw http.ResponseWriter, req *http.Request) {
		if strings.Contains(req.URL.Path, "/blobs/") {
			blob(rw, req)
			return
		}
		other(rw, req)
	}
}

func TestWhatTrafficAFaultIsAbout(t *testing.T) {
	blob := func(ctx context.Context, r *Registry) { fetch(ctx, r) }
	manifest := func(ctx context.Context, r *Registry) { r.Manifest(ctx, repo, contentDigest.String(), nil) }
	for _, tt := range []struct {
		name   string
		answer http.HandlerFunc // nil: nobody listens
		ask    func(context.Context, *Registry)
		down   []bool // small, blobs, realms
	}{
		{"nobody listens to a blob request", nil, blob, []bool{true, true, false}},
		{"nobody listens to a manifest request", nil, manifest, []bool{true, true, false}},
		{"silence for a blob", silent, blob, []bool{true, true, false}},
		{"silence for a manifest", silent, manifest, []bool{true, true, false}},
		{"500 for blobs", status(500), blob, []bool{false, true, false}},
		{"500 for manifests", status(500), manifest, []bool{true, false, false}},
		{"blobs from a dead host", redirect("http://dead.test/"), blob, []bool{false, true, false}},
		{"blobs from a silent host", redirect("http://silent.test/"), blob, []bool{false, true, false}},
		{"manifests from a dead host", redirect("http://dead.test/"), manifest, []bool{true, false, false}},
		{"blob cut off", answer(200, layer[:5000], "Content-Length", "262144"), blob, []bool{false, true, false}},
		{"blob stalled", sendAndStop(5000), blob, []bool{false, true, false}},
		{"manifest cut off", answer(200, content[:5], "Content-Type", manifestType, "Content-Length", "19"), manifest, []bool{true, false, false}},
		{"token server is dead", challengeWith(`Bearer realm="http://dead.test/"`), manifest, []bool{false, false, true}},
		{"token server is silent", challengeWith(`Bearer realm="http://silent.test/"`), blob, []bool{false, false, true}},
		{"manifest stalled", sendAndStop(5), manifest, []bool{true, false, false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve("http://silent.test", silent)
				if tt.answer != nil {
					w.serve("http://registry.test", tt.answer)
				}
				r := w.registry(Options{}, "http://registry.test")
				for range downAt {
					tt.ask(t.Context(), r)
				}
				var down []bool
				for _, kind := range traffics {
					down = append(down, !r.endpoints[0].statusFor(kind).Up)
				}
				if diff := cmp.Diff(tt.down, down); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestManifestsDoNotReviveBlobs(t *testing.T) {
	for name, blob := range map[string]http.HandlerFunc{
		"silent storage host": redirect("http://silent.test/"),
		"cut off":             answer(200, nil, "Content-Length", "262144"),
		"out of order":        status(503),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve("http://silent.test", silent)
				w.serve("http://one.test", parted(blob, serveContent))
				w.serve("http://two.test", serveLayer)
				r := w.registry(Options{}, "http://one.test", "http://two.test")
				for range downAt {
					fetch(t.Context(), r)
				}
				for range 20 {
					if _, err := r.Resolve(t.Context(), repo, "7", nil); err != nil {
						t.Error(err)
					}
					start := time.Now()
					if from, err := fetch(t.Context(), r); from != "two.test" || err != nil || time.Since(start) > time.Second {
						t.Errorf("from %q with %v after %v", from, err, time.Since(start))
					}
					pause(t.Context(), 3*time.Second)
				}
				if r.Endpoints()[0].Up {
					t.Error("up")
				}
			})
		})
	}
}

func TestBlobsDoNotReviveManifests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://one.test", parted(serveLayer, status(503)))
		w.serve("http://two.test", serveContent)
		r := w.registry(Options{}, "http://one.test", "http://two.test")
		for range 10 {
			if from, err := fetch(t.Context(), r); from != "one.test" || err != nil {
				t.Errorf("from %q with %v", from, err)
			}
			if _, err := r.Resolve(t.Context(), repo, contentDigest.String(), nil); err != nil {
				t.Error(err)
			}
		}
		if n := w.count("one.test/v2/library/redis/manifests"); n != downAt {
			t.Errorf("one.test was asked for %d manifests", n)
		}
	})
}

// TestStreamFromBeforeAFallDoesNotUndoIt is about the last blobs that a dying endpoint has under way.
func TestStreamFromBeforeAFallDoesNotUndoIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := []http.HandlerFunc{serveIn(1000, 5*time.Second), answer(200, nil, "Content-Length", "262144")}
		w := newWorld(t)
		w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			h := status(503)
			if len(answers) > 0 {
				h, answers = answers[0], answers[1:]
			}
			h(rw, req)
		})
		r := w.registry(Options{}, "http://registry.test")
		early, err := r.OpenBlob(t.Context(), wanted(layerDigest, 0, -1))
		if err != nil {
			t.Fatal(err)
		}
		defer early.Close()
		pause(t.Context(), time.Second)
		fetch(t.Context(), r)
		if n, err := io.Copy(io.Discard, early); n != 1000 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		if r.Endpoints()[0].Up {
			t.Error("up")
		}
	})
}

func TestWhoIsHeldBackIsNotAtFault(t *testing.T) {
	for _, tt := range []struct {
		name    string
		pause   time.Duration // of the reader, once
		limiter *bandwidth.Line
		up      bool
	}{
		{"reader takes too long", heldBack + time.Second, nil, true},
		{"limiter takes too long", 0, bandwidth.NewLine(64), true},
		{"reader takes a while", heldBack - time.Second, nil, false},
		{"nobody holds it back", 0, nil, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve("http://registry.test", answer(200, layer[:100<<10], "Content-Length", "262144"))
				r := w.registry(Options{Lines: []*bandwidth.Line{tt.limiter}}, "http://registry.test")
				body, err := r.OpenBlob(t.Context(), wanted(layerDigest, 0, -1))
				if err != nil {
					t.Fatal(err)
				}
				defer body.Close()
				io.ReadFull(body, make([]byte, 1000))
				pause(t.Context(), tt.pause)
				if _, err := io.Copy(io.Discard, body); err == nil {
					t.Error("not cut off")
				}
				if up := r.Endpoints()[0].Up; up != tt.up {
					t.Errorf("up %t", up)
				}
			})
		})
	}
}

func TestTimeAtATokenServerIsNotTheEndpoints(t *testing.T) {
	for took, up := range map[time.Duration]bool{29 * time.Second: true, 10 * time.Second: false} {
		t.Run(took.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve("http://auth.test", func(rw http.ResponseWriter, req *http.Request) {
					http.NewResponseController(rw).Flush()
					pause(req.Context(), took)
					io.WriteString(rw, `{"token":"t"}`)
				})
				w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
					if req.Header.Get("Authorization") == "" {
						challengeWith(`Bearer realm="http://auth.test/"`)(rw, req)
						return
					}
					silent(rw, req)
				})
				r := w.registry(Options{HeaderTimeout: time.Minute}, "http://registry.test")
				if _, err := fetch(t.Context(), r); err == nil {
					t.Error("in time")
				}
				if got := r.Endpoints()[0].Up; got != up {
					t.Errorf("up %t", got)
				}
			})
		})
	}
}

func TestOneRottenBlobTakesNoEndpointOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rotten := digest.FromString("rotten")
		w := newWorld(t)
		serve := func(rw http.ResponseWriter, req *http.Request) {
			if strings.Contains(req.URL.Path, rotten.String()) {
				status(500)(rw, req)
				return
			}
			serveLayer(rw, req)
		}
		w.serve("http://mirror.test", serve)
		w.serve("http://registry.test", serveLayer)
		r := w.registry(Options{}, "http://mirror.test", "http://registry.test")
		for range downAt {
			if s, err := r.OpenBlob(t.Context(), wanted(rotten, 0, -1)); err == nil {
				s.Close()
			}
		}
		from := map[string]int{}
		for range 60 {
			pause(t.Context(), time.Minute)
			s, err := r.OpenBlob(t.Context(), wanted(layerDigest, 0, -1))
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, s)
			s.Close()
			from[s.Endpoint]++
		}
		if from["mirror.test"] == 0 {
			t.Errorf("an hour later all blobs come from %v; %d requests for the rotten one", from, w.count(rotten.String()))
		}
	})
}
