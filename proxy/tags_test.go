package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func TestTagIsFreshForItsTime(t *testing.T) {
	u := newRegistry(t)
	u.image("library/a", "1", random(10))
	m := newMirror(t, u, nil)
	m.get(manifestPath("a", "1"), acceptAll()).expectVerdict(t, "fwd=miss; stored")
	asked := u.count("")
	for range 3 {
		m.get(manifestPath("a", "1"), acceptAll())
		m.ask("HEAD", manifestPath("a", "1"), acceptAll()).expectVerdict(t, "hit; ttl=")
	}
	// The layer is not cached, so each manifest from the cache costs a HEAD that upstream is there; the tag costs none.
	if n := u.count("GET "); n != 1 || u.count("HEAD /v2/library/a/manifests/1") > 0 {
		t.Errorf("a fresh tag was asked for: %q", u.log[asked:])
	}
	m.pass(time.Minute)
	u.forget()
	a := m.get(manifestPath("a", "1"), acceptAll())
	a.expectVerdict(t, "fwd=stale; fwd-status=200; ttl=")
	if u.count("HEAD /v2/library/a/manifests/1") != 1 || u.count("") != 1 {
		t.Errorf("an expired tag costs one HEAD, not %q", u.log)
	}
	m.ask("HEAD", manifestPath("a", "1"), acceptAll()).expectVerdict(t, "hit")
}

func TestExpiredTagIsCheckedOnceHoweverManyAsk(t *testing.T) {
	u := newRegistry(t)
	d := u.image("library/a", "1")
	m := newMirror(t, u, nil)
	m.get(manifestPath("a", "1"), acceptAll())
	m.get(blobPath("a", digest.FromString(`{"image":"library/a:1"}`)))
	m.settled()
	m.pass(time.Hour)
	u.forget()
	held, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	u.fail(func(http.ResponseWriter, *http.Request) bool {
		once.Do(func() { close(held) })
		<-release
		return false
	})
	var wg sync.WaitGroup
	for range 32 {
		wg.Go(func() {
			a := m.ask("HEAD", manifestPath("a", "1"), acceptAll())
			if a.status != 200 || a.header.Get("Docker-Content-Digest") != d.String() {
				t.Errorf("%d %v", a.status, a.header)
			}
		})
	}
	<-held
	close(release)
	wg.Wait()
	// Who came after the first check had ended finds its result fresh: none of them asked again.
	if n := u.count(""); n != 1 {
		t.Errorf("upstream was asked %d times", n)
	}
}

func TestMovedTagIsFollowed(t *testing.T) {
	u := newRegistry(t)
	u.image("library/a", "1", random(10))
	m := newMirror(t, u, nil)
	m.get(manifestPath("a", "1"), acceptAll())
	moved := u.image("library/a", "1", random(20))
	m.pass(time.Hour)
	a := m.get(manifestPath("a", "1"), acceptAll())
	if a.status != 200 || a.header.Get("Docker-Content-Digest") != moved.String() || digest.FromBytes(a.body) != moved {
		t.Errorf("%d %v", a.status, a.header)
	}
}

func TestTagMovesOnlyWithItsManifest(t *testing.T) {
	u := newRegistry(t)
	old := u.image("library/a", "1")
	m := newMirror(t, u, nil)
	m.get(manifestPath("a", "1"), acceptAll())
	m.get(blobPath("a", digest.FromString(`{"image":"library/a:1"}`)))
	m.settled()
	moved := u.image("library/a", "1", random(20))
	m.pass(time.Hour)
	u.fail(func(w http.ResponseWriter, r *http.Request) bool { // HEAD is free, GET is limited
		if r.Method == "GET" {
			refuse(w, 429, "TOOMANYREQUESTS", "slow down")
		}
		return r.Method == "GET"
	})
	for range 2 {
		for _, method := range []string{"HEAD", "GET"} {
			a := m.ask(method, manifestPath("a", "1"), acceptAll())
			if a.status != 200 || a.header.Get("Docker-Content-Digest") != old.String() || a.header.Get("Warning") == "" {
				t.Errorf("%s: %d %v", method, a.status, a.header)
			}
		}
	}
	u.fail(nil)
	// While a registry counts as down, nobody waits for it: somebody's request has it asked again behind its back.
	for deadline := time.Now().Add(time.Minute); ; {
		m.pass(time.Hour)
		if a := m.get(manifestPath("a", "1"), acceptAll()); a.header.Get("Docker-Content-Digest") == moved.String() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the tag is never followed again")
		}
	}
}

// dockerd asks HEAD by tag and then GET by digest, and never GETs the tag.
func TestWhatDockerdPulledIsServedByTagWithUpstreamGone(t *testing.T) {
	u := newRegistry(t)
	layer := random(1000)
	d := u.image("library/a", "1", layer)
	m := newMirror(t, u, nil)
	if a := m.ask("HEAD", manifestPath("a", "1"), acceptAll()); a.header.Get("Docker-Content-Digest") != d.String() {
		t.Fatalf("%d %v", a.status, a.header)
	}
	manifest := m.get(digestPath("a", d), acceptAll()).body
	m.get(blobPath("a", digest.FromBytes(layer)))
	m.get(blobPath("a", digest.FromString(`{"image":"library/a:1"}`)))
	m.settled()
	u.stop()
	m.pass(time.Hour)
	m.get(manifestPath("a", "1"), acceptAll()).expect(t, 200, manifest)
}

func TestOutageIsNeverToldAsAbsence(t *testing.T) {
	for name, fault := range map[string]struct {
		answer func(w http.ResponseWriter)
		status int
		code   string
	}{
		"500": {func(w http.ResponseWriter) { http.Error(w, "oops", 500) }, 502, "UNAVAILABLE"},
		"502": {func(w http.ResponseWriter) { refuse(w, 502, "UNKNOWN", "bad gateway") }, 502, "UNKNOWN"},
		"503": {func(w http.ResponseWriter) { http.Error(w, "maintenance", http.StatusServiceUnavailable) }, 502, "UNAVAILABLE"},
		"429": {func(w http.ResponseWriter) {
			w.Header().Set("Retry-After", "7")
			refuse(w, 429, "TOOMANYREQUESTS", "limit")
		}, 503, "TOOMANYREQUESTS"},
		"silence":      {func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, 503, "UNAVAILABLE"},
		"captive page": {func(w http.ResponseWriter) { w.Header().Set("Content-Type", "text/html"); io.WriteString(w, "<html>") }, 502, "UNAVAILABLE"},
	} {
		t.Run(name, func(t *testing.T) {
			u := newRegistry(t)
			u.fail(func(w http.ResponseWriter, _ *http.Request) bool { fault.answer(w); return true })
			for _, path := range []string{manifestPath("a", "1"), digestPath("a", digest.FromString("x")), blobPath("a", digest.FromString("x")), "/v2/a/tags/list"} {
				m := newMirror(t, u, nil) // to which upstream is not known to be down
				a := m.get(path, acceptAll())
				code := fault.code
				if code == "UNKNOWN" && strings.Contains(path, "/blobs/") {
					code = "UNAVAILABLE" // upstream was asked by HEAD, whose answer has no words
				}
				a.expectError(t, fault.status, code)
				if name == "429" && a.header.Get("Retry-After") != "7" {
					t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
				}
				if head := m.ask("HEAD", path, acceptAll()); head.status != fault.status {
					t.Errorf("HEAD %s: %d", path, head.status)
				}
			}
		})
	}
}

func TestAnswersOfUpstreamArePassedOn(t *testing.T) {
	for status, code := range map[int]string{401: "UNAUTHORIZED", 403: "DENIED", 404: "NAME_UNKNOWN"} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			u := newRegistry(t)
			u.image("library/a", "1", random(100))
			m := newMirror(t, u, nil)
			m.get(manifestPath("a", "1"), acceptAll())
			m.pass(time.Hour)
			u.fail(func(w http.ResponseWriter, _ *http.Request) bool { refuse(w, status, code, "because"); return true })
			a := m.get(manifestPath("a", "1"), acceptAll())
			a.expectError(t, status, code)
			if !strings.Contains(string(a.body), "because") || a.header.Get("WWW-Authenticate") != "" {
				t.Errorf("%s %v", a.body, a.header)
			}
			// It was an answer, not an outage: an outage later brings nothing back.
			m.pass(time.Minute)
			u.stop()
			m.get(manifestPath("a", "1"), acceptAll()).expectError(t, 503, "UNAVAILABLE")
		})
	}
}

func TestIncompleteImageIsRefusedEarlyWhenUpstreamIsGone(t *testing.T) {
	u := newRegistry(t)
	layer := random(1000)
	d := u.image("library/a", "1", layer)
	index := u.manifest("library/a", "multi", ocispec.MediaTypeImageIndex, `{"manifests":[`+descriptor(ocispec.MediaTypeImageManifest, d, 1)+`]}`)
	m := newMirror(t, u, nil)
	m.get(manifestPath("a", "1"), acceptAll())
	m.get(manifestPath("a", "multi"), acceptAll())
	m.get(blobPath("a", digest.FromString(`{"image":"library/a:1"}`)))
	m.settled()
	u.stop()
	paths := []string{manifestPath("a", "1"), digestPath("a", d), manifestPath("a", "multi"), digestPath("a", index)}
	for _, freshness := range []time.Duration{5 * time.Second, time.Hour} { // its last answer is not just now any more
		m.pass(freshness)
		for _, path := range paths {
			m.get(path, acceptAll()).expectError(t, 503, "UNAVAILABLE")
		}
	}
}

func TestIndexIsServedWhenOneOfItsImagesCanBe(t *testing.T) {
	u := newRegistry(t)
	here, away := u.image("library/a", "here"), u.image("library/a", "away", random(50))
	u.manifest("library/a", "multi", ocispec.MediaTypeImageIndex, `{"manifests":[`+
		descriptor(ocispec.MediaTypeImageManifest, away, 1)+`,`+descriptor(ocispec.MediaTypeImageManifest, here, 1)+`]}`)
	m := newMirror(t, u, nil)
	m.get(manifestPath("a", "multi"), acceptAll())
	m.get(digestPath("a", here), acceptAll())
	m.get(blobPath("a", digest.FromString(`{"image":"library/a:here"}`)))
	m.settled()
	u.stop()
	for range 2 {
		if a := m.get(manifestPath("a", "multi"), acceptAll()); a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
		m.get(digestPath("a", away), acceptAll()).expectError(t, 503, "UNAVAILABLE")
		m.pass(time.Hour)
	}
}

func TestSlowCheckDoesNotHoldUpWhatIsCached(t *testing.T) {
	u := newRegistry(t)
	u.image("library/a", "1")
	m := newMirror(t, u, nil)
	m.get(manifestPath("a", "1"), acceptAll())
	m.get(blobPath("a", digest.FromString(`{"image":"library/a:1"}`)))
	m.settled()
	m.pass(time.Hour)
	silent := make(chan struct{})
	defer close(silent)
	u.fail(func(http.ResponseWriter, *http.Request) bool { <-silent; return false })
	a := m.get(manifestPath("a", "1"), acceptAll())
	if a.status != 200 || a.header.Get("Warning") == "" {
		t.Errorf("%d %v", a.status, a.header)
	}
}

func TestAnyAnswerEndsAnOutage(t *testing.T) {
	u := newRegistry(t)
	layer := random(100)
	u.image("library/a", "1", layer)
	u.lists["library/a/tags/list?"] = list{"", `{"name":"library/a","tags":["1"]}`}
	m := newMirror(t, u, nil)
	m.get(manifestPath("a", "1"), acceptAll())
	m.get(blobPath("a", digest.FromBytes(layer)))
	m.get(blobPath("a", digest.FromString(`{"image":"library/a:1"}`)))
	m.settled()
	for _, other := range []string{"/v2/a/tags/list", blobPath("a", digest.FromString("unknown"))} {
		m.pass(time.Hour)
		u.fail(func(w http.ResponseWriter, _ *http.Request) bool {
			refuse(w, http.StatusServiceUnavailable, "UNAVAILABLE", "maintenance")
			return true
		})
		m.get(manifestPath("a", "1"), acceptAll()).expectVerdict(t, "hit; ttl=-")
		u.fail(nil)
		m.get(other)
		m.get(manifestPath("a", "1"), acceptAll()).expectVerdict(t, "fwd=stale; fwd-status=200")
	}
}

func TestAcceptDecides(t *testing.T) {
	u := newRegistry(t)
	child := u.image("library/a", "")
	u.manifest("library/a", "1", ocispec.MediaTypeImageIndex, `{"manifests":[`+descriptor(ocispec.MediaTypeImageManifest, child, 1)+`]}`)
	old := `{"schemaVersion":2,"layers":[]}`
	u.fail(func(w http.ResponseWriter, r *http.Request) bool { // upstream converts for who takes nothing else
		accept := strings.Join(r.Header.Values("Accept"), ",")
		if strings.HasSuffix(r.URL.Path, "/manifests/1") && !strings.Contains(accept, ocispec.MediaTypeImageIndex) {
			w.Header().Set("Content-Type", dockerManifest)
			io.WriteString(w, old)
			return true
		}
		return false
	})
	m := newMirror(t, u, nil)
	index := m.get(manifestPath("a", "1"), "Accept: "+dockerManifest, "Accept: application/json", "Accept: "+ocispec.MediaTypeImageIndex)
	if got := index.header.Get("Content-Type"); got != ocispec.MediaTypeImageIndex {
		t.Fatalf("%d %s", index.status, got)
	}
	for range 2 {
		a := m.get(manifestPath("a", "1"), "Accept: "+dockerManifest)
		a.expect(t, 200, []byte(old))
		if a.header.Get("Content-Type") != dockerManifest {
			t.Errorf("%v", a.header)
		}
		m.get(manifestPath("a", "1"), "Accept: text/plain;q=0.1, application/*").expect(t, 200, index.body)
		m.get(manifestPath("a", "1")).expect(t, 200, index.body)
	}
}

func TestBadManifestsAreNeitherServedNorKept(t *testing.T) {
	good := `{"schemaVersion":2,"layers":[]}`
	d := digest.FromString(good)
	for name, fault := range map[string]func(w http.ResponseWriter){
		"other bytes": func(w http.ResponseWriter) { io.WriteString(w, `{"schemaVersion":2,"layers":[1]}`) },
		"wrong Docker-Content-Digest": func(w http.ResponseWriter) {
			w.Header().Set("Docker-Content-Digest", digest.FromString("other").String())
			io.WriteString(w, good)
		},
		"no JSON": func(w http.ResponseWriter) {
			w.Header().Set("Docker-Content-Digest", digest.FromString("no JSON").String())
			io.WriteString(w, "no JSON")
		},
		"short": func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "1000")
			io.WriteString(w, good)
		},
		"9 MiB": func(w http.ResponseWriter) { io.WriteString(w, `{"x":"`+strings.Repeat("x", 9<<20)+`"}`) },
		"endless": func(w http.ResponseWriter) {
			for {
				if _, err := io.WriteString(w, strings.Repeat(" ", 1<<16)); err != nil {
					return
				}
			}
		},
		"bomb": func(w http.ResponseWriter) {
			w.Header().Set("Content-Encoding", "gzip")
			io.WriteString(w, "\x1f\x8b")
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := newRegistry(t)
			u.manifest("library/a", "1", dockerManifest, good)
			m := newMirror(t, u, nil)
			u.fail(func(w http.ResponseWriter, r *http.Request) bool {
				w.Header().Set("Content-Type", dockerManifest)
				if r.Method == "GET" {
					fault(w)
				}
				return r.Method == "GET"
			})
			paths := []string{digestPath("a", d)}
			if name != "other bytes" { // by tag, any bytes may be the right ones
				paths = append(paths, manifestPath("a", "1"))
			}
			for _, path := range paths {
				if a := m.get(path, acceptAll()); a.status < 500 {
					t.Errorf("%s: %d %.100s", path, a.status, a.body)
				}
			}
			u.fail(nil)
			for _, path := range []string{manifestPath("a", "1"), digestPath("a", d)} {
				m.get(path, acceptAll()).expect(t, 200, []byte(good))
			}
		})
	}
}

func TestDamagedManifestOnDiskHeals(t *testing.T) {
	u := newRegistry(t)
	d := u.image("library/a", "1", random(10))
	m := newMirror(t, u, nil)
	good := m.get(digestPath("a", d), acceptAll()).body
	m.settled()
	m.damage(d)
	a := m.get(digestPath("a", d), acceptAll()) // from memory, where it is right
	a.expect(t, 200, good)
	a.expectVerdict(t, "hit")
	m.restart()
	a = m.get(digestPath("a", d), acceptAll())
	a.expect(t, 200, good)
	a.expectVerdict(t, "fwd=miss")
	a = m.get(digestPath("a", d), acceptAll())
	a.expect(t, 200, good)
	a.expectVerdict(t, "hit")
}
