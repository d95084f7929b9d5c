package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestEndpointsAreTriedInTurnForDigestsOnly(t *testing.T) {
	ok := http.HandlerFunc(serveContent)
	for _, tt := range []struct {
		name     string
		byTag    bool
		first    http.HandlerFunc // nil: nobody listens
		second   http.HandlerFunc
		status   int // of the error; 0 and not failed: none
		failed   bool
		requests int
	}{
		{"the first has it", false, ok, ok, 0, false, 1},
		{"the first lacks it", false, status(404), ok, 0, false, 2},
		{"the first is out of order", false, status(503), ok, 0, false, 2},
		{"the first throttles", false, status(429), ok, 0, false, 2},
		{"nobody listens at the first", false, nil, ok, 0, false, 1},
		{"the first refuses", false, status(403), ok, 403, true, 1},
		{"the first cannot be asked like that", false, status(400), ok, 0, false, 2},
		{"the first lacks it, the mirror turns away", false, status(404), status(401), 404, true, 2},
		{"the first is out of order, the mirror turns away", false, status(503), status(401), 503, true, 2},
		{"both lack it", false, status(404), status(404), 404, true, 2},
		{"an outage outweighs a later absence", false, status(503), status(404), 503, true, 2},
		{"what the first lacks is lacking, though the mirror is out of order", false, status(404), status(502), 404, true, 2},
		{"silence outweighs a refusal", false, nil, status(403), 0, true, 1},
		{"a tag is what the first says", true, status(404), ok, 404, true, 1},
		{"a tag waits for the first", true, status(503), ok, 503, true, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			if tt.first != nil {
				w.serve("https://one.test", tt.first)
			}
			w.serve("https://two.test", tt.second)
			r := w.registry(Options{}, "https://one.test", "https://two.test")
			reference := contentDigest.String()
			if tt.byTag {
				reference = "7"
			}
			_, body, err := r.Manifest(t.Context(), repo, reference, nil)
			if !tt.failed {
				if err != nil || string(body) != string(content) {
					t.Errorf("%q, %v", body, err)
				}
			} else if e := asError(t, err); e.Status != tt.status {
				t.Errorf("error %v, want status %d", e, tt.status)
			}
			if len(w.lines()) != tt.requests {
				t.Errorf("requests %q, want %d", w.lines(), tt.requests)
			}
		})
	}
}

func TestEveryDigestMethodTurnsToTheNextEndpoint(t *testing.T) {
	w := newWorld(t)
	w.serve("https://one.test", status(404))
	w.serve("https://two.test", serveContent)
	r := w.registry(Options{}, "https://one.test", "https://two.test")
	if _, err := r.Resolve(t.Context(), repo, contentDigest.String(), nil); err != nil {
		t.Error("Resolve:", err)
	}
	if _, err := r.StatBlob(t.Context(), repo, contentDigest); err != nil {
		t.Error("StatBlob:", err)
	}
	body, err := r.OpenBlob(t.Context(), wanted(contentDigest, 0, -1))
	if err != nil {
		t.Fatal("OpenBlob:", err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); string(got) != string(content) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestManifestOfAnotherDigestIsAskedOfTheNext(t *testing.T) {
	other := answer(200, []byte(`{"schemaVersion":3}`), "Content-Type", manifestType)
	w := newWorld(t)
	w.serve("http://one.test", other)
	w.serve("http://two.test", serveContent)
	r := w.registry(Options{}, "http://one.test", "http://two.test")
	if _, body, err := r.Manifest(t.Context(), repo, contentDigest.String(), nil); string(body) != string(content) || err != nil {
		t.Errorf("%q, %v", body, err)
	}
	_, _, err := w.registry(Options{}, "http://one.test").Manifest(t.Context(), repo, contentDigest.String(), nil)
	if e := asError(t, err); e.Answered() || !strings.HasSuffix(e.Error(), "content of another digest came in its place") {
		t.Error(err)
	}
}

func TestManifestThatIsNotAllThereIsAnOutage(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"cut off": answer(200, content[:5], "Content-Type", manifestType, "Content-Length", "19"),
		"stalled": sendAndStop(5),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.serve("http://one.test", h)
				w.serve("http://two.test", serveContent)
				_, _, err := w.registry(Options{}, "http://one.test").Manifest(t.Context(), repo, contentDigest.String(), nil)
				if e := asError(t, err); !e.Outage() || e.Status != 0 {
					t.Errorf("%v", err)
				}
				r := w.registry(Options{}, "http://one.test", "http://two.test")
				for range 5 {
					if _, _, err := r.Manifest(t.Context(), repo, contentDigest.String(), nil); err != nil {
						t.Error(err)
					}
				}
				if n := w.count("one.test/v2/library"); n != 2 {
					t.Errorf("one.test was asked %d times, want once by each registry", n)
				}
			})
		})
	}
}

func TestEndpointsPathComesBeforeV2(t *testing.T) {
	w := newWorld(t)
	w.serve("https://mirror.test", serveContent)
	r := w.registry(Options{}, "https://mirror.test/docker%2Fhub/")
	if _, err := r.Resolve(t.Context(), repo, "7", nil); err != nil {
		t.Fatal(err)
	}
	if want := []string{"HEAD https://mirror.test/docker%2Fhub/v2/library/redis/manifests/7"}; !cmp.Equal(want, w.lines()) {
		t.Errorf("requests %q", w.lines())
	}
}

func TestNamesThatLeadElsewhereAreNotSent(t *testing.T) {
	w := newWorld(t)
	w.serve("https://registry.test", serveContent)
	r := w.registry(Options{}, "https://registry.test")
	for _, name := range []string{"", "../admin", "a/../../b", "a//b", "a/.", "/a", "a/", "a?b", "a#b", "a%2e", `a\b`, "a b", "a\nb", "é"} {
		_, errRepository := r.Resolve(t.Context(), name, "7", nil)
		_, _, errResource := r.List(t.Context(), repo, name, nil)
		for _, err := range []error{errRepository, errResource} {
			if e := asError(t, err); e.Answered() || !strings.HasSuffix(e.Error(), "not a name that can be asked for") {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
	if len(w.lines()) > 0 {
		t.Errorf("sent %q", w.lines())
	}
}

func TestSmallRequestsAreBoundedAsAWhole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://registry.test", func(rw http.ResponseWriter, req *http.Request) {
			rw.Header().Set("Content-Type", manifestType)
			for ctx := req.Context(); ctx.Err() == nil; { // a byte a second, for ever
				fmt.Fprint(rw, " ")
				http.NewResponseController(rw).Flush()
				pause(ctx, time.Second)
			}
		})
		start := time.Now()
		_, _, err := w.registry(Options{}, "http://registry.test").Manifest(t.Context(), repo, "7", nil)
		if e := asError(t, err); !errors.Is(e, errSlow) || e.Answered() || time.Since(start) != smallTimeout {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestSilentEndpointIsLeftForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://one.test", silent)
		w.serve("http://two.test", serveContent)
		r := w.registry(Options{HeaderTimeout: 3 * time.Second}, "http://one.test", "http://two.test")
		start := time.Now()
		if _, err := r.Resolve(t.Context(), repo, contentDigest.String(), nil); err != nil || time.Since(start) != 3*time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestCallerWhoLeavesIsToldWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.serve("http://one.test", silent)
		w.serve("http://two.test", serveContent)
		r := w.registry(Options{}, "http://one.test", "http://two.test")
		why := errors.New("no time left")
		for name, ask := range map[string]func(context.Context) error{
			"manifest": func(ctx context.Context) error {
				_, err := r.Resolve(ctx, repo, contentDigest.String(), nil)
				return err
			},
			"blob": func(ctx context.Context) error {
				_, err := r.OpenBlob(ctx, wanted(contentDigest, 0, -1))
				return err
			},
		} {
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, why)
			if err := ask(ctx); !errors.Is(err, why) || asError(t, err).Answered() {
				t.Errorf("%s: %v", name, err)
			}
			cancel()
		}
		if n := w.count("two.test"); n != 0 {
			t.Errorf("%d requests to the next endpoint for a caller who has left", n)
		}
	})
}

// pause waits, but not longer than ctx.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
