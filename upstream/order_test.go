package upstream

import (
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
		{"the mirror is out of order, the registry lacks it", 503, 404, 404},
		{"an outage of the registry outweighs an absence elsewhere", 404, 503, 503},
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

// TestWhomToTrustIsNotWhoComesFirst is about a mirror nearby, asked first, and the registry behind it.
func TestWhomToTrustIsNotWhoComesFirst(t *testing.T) {
	ok := http.HandlerFunc(serveLayer)
	for _, tt := range []struct {
		name           string
		near, registry http.HandlerFunc // nil: nobody listens
		status         int              // of the error; -1: none
	}{
		{"the mirror turns away", status(401), ok, -1},
		{"the mirror forbids", status(403), ok, -1},
		{"the mirror knows it is gone", status(410), ok, -1},
		{"the mirror may not say", status(451), ok, -1},
		{"the registry lacks it, the mirror is out of order", status(503), status(404), 404},
		{"the registry lacks it, nobody listens at the mirror", nil, status(404), 404},
		{"the registry lacks it, the mirror is a captive portal", answer(200, nil, "Content-Type", "text/html"), status(404), 404},
		{"the registry forbids, the mirror lacks it", status(404), status(403), 403},
		{"the registry is out of order, the mirror lacks it", status(404), status(503), 503},
		{"nobody listens at the registry, the mirror forbids", status(403), nil, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			for host, h := range map[string]http.HandlerFunc{"near.test": tt.near, "registry.test": tt.registry} {
				if h != nil {
					w.serve("http://"+host, h)
				}
			}
			r := w.registry(trusting([]string{"near.test", "registry.test"}, false, true))
			_, err := fetch(t.Context(), r)
			if tt.status < 0 && err != nil || tt.status >= 0 && asError(t, err).Status != tt.status {
				t.Errorf("%v, want status %d", err, tt.status)
			}
		})
	}
}

func TestOutageWithAReasonOutweighsSilence(t *testing.T) {
	w := newWorld(t)
	w.serve("http://one.test", answer(429, nil, "Retry-After", "60"))
	w.serve("http://three.test", status(502))
	r := w.registry(trusting([]string{"dead.test", "one.test", "gone.test", "three.test"}, true, true, true, true))
	if _, err := fetch(t.Context(), r); asError(t, err).RetryAfter != time.Minute {
		t.Errorf("%v, want the first that says why", err)
	}
}

func TestOrderOfEndpoints(t *testing.T) {
	const up, aside = true, true
	ofBlob := blobName{repo, layerDigest}.question(http.MethodGet)
	for _, tt := range []struct {
		name    string
		bySpeed bool
		q       question
		a, b    EndpointStatus // in the order of the options
		swapped bool
	}{
		{"equals stay", true, ofBlob, EndpointStatus{Up: up}, EndpointStatus{Up: up}, false},
		{"down", false, ofBlob, EndpointStatus{}, EndpointStatus{Up: up}, true},
		{"down, for a tag", false, question{kind: kindManifest}, EndpointStatus{}, EndpointStatus{Up: up}, true},
		{"aside", false, ofBlob, EndpointStatus{Up: up, Aside: aside, Lies: 1}, EndpointStatus{Up: up}, true},
		{"aside, for a manifest", false, question{kind: kindManifest, byDigest: true}, EndpointStatus{Up: up, Aside: aside, Lies: 1}, EndpointStatus{Up: up}, false},
		{"aside is worse than down", false, ofBlob, EndpointStatus{Up: up, Aside: aside, Lies: 1}, EndpointStatus{}, true},
		{"fewer lies", false, ofBlob, EndpointStatus{Up: up, Aside: aside, Lies: 2}, EndpointStatus{Up: up, Aside: aside, Lies: 1}, true},
		{"lies of old", false, ofBlob, EndpointStatus{Up: up, Lies: 2}, EndpointStatus{Up: up}, false},
		{"faster", true, ofBlob, EndpointStatus{Up: up, Speed: 1}, EndpointStatus{Up: up, Speed: 2}, true},
		{"faster, but it does not count", false, ofBlob, EndpointStatus{Up: up, Speed: 1}, EndpointStatus{Up: up, Speed: 2}, false},
		{"faster, for a tag", true, question{kind: kindManifest}, EndpointStatus{Up: up, Speed: 1}, EndpointStatus{Up: up, Speed: 2}, false},
		{"not measured", true, question{kind: kindManifest, byDigest: true}, EndpointStatus{Up: up, Speed: 1}, EndpointStatus{Up: up}, true},
		{"faster, but down", true, ofBlob, EndpointStatus{Up: up, Speed: 1}, EndpointStatus{Speed: 2}, false},
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
